# Helpers shared by every room: compile options, libraries and the room function.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)

add_library(steelyard_options INTERFACE)
target_include_directories(steelyard_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_options(steelyard_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wno-missing-field-initializers>)
if(STEELYARD_SANITIZE)
  target_compile_options(steelyard_options INTERFACE -fsanitize=${STEELYARD_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)  # gcc sees ghosts in <regex> through sanitized code
  target_link_options(steelyard_options INTERFACE -fsanitize=${STEELYARD_SANITIZE})
endif()
if(STEELYARD_FUZZ)
  target_compile_options(steelyard_options INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(steelyard_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

if(STEELYARD_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
  # Whether a program can be built and run under the thread sanitizer, for tests that look for races.
  include(CheckCXXSourceRuns)
  set(CMAKE_REQUIRED_FLAGS "${CMAKE_CXX_FLAGS} -fsanitize=thread")
  check_cxx_source_runs("int main() { return 0; }" STEELYARD_HAS_TSAN)
  unset(CMAKE_REQUIRED_FLAGS)
endif()

# steelyard_room(NAME ROOMS room... [TEST_ROOMS room...] LIBS lib... [SUBDIRS dir...])
# Library steelyard_NAME from every *.cc here (and in SUBDIRS) that isn't a test; executable NAME_test from *_test.cc.
# TEST_ROOMS are the rooms that only tests include.
function(steelyard_room name)
  cmake_parse_arguments(R "" "" "ROOMS;TEST_ROOMS;LIBS;SUBDIRS;TEST_LIBS" ${ARGN})
  set(globs *.cc)
  foreach(dir ${R_SUBDIRS})
    list(APPEND globs ${dir}/*.cc)
  endforeach()
  file(GLOB all CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} ${globs})
  set(tests ${all})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER all EXCLUDE REGEX "_test\\.cc$|^main\\.cc$")
  set(deps ${R_ROOMS})
  set(test_deps ${R_TEST_ROOMS})
  list(TRANSFORM deps PREPEND steelyard_)
  list(TRANSFORM test_deps PREPEND steelyard_)
  if(all)
    add_library(steelyard_${name} STATIC ${all})
    target_link_libraries(steelyard_${name} PUBLIC steelyard_options ${deps} ${R_LIBS})
  else()
    add_library(steelyard_${name} INTERFACE)
    target_link_libraries(steelyard_${name} INTERFACE steelyard_options ${deps} ${R_LIBS})
  endif()
  if(STEELYARD_TESTS AND tests)
    add_executable(${name}_test ${tests})
    # Undefined behaviour is looked for in what is tested: in the tests themselves it would double their compile time.
    if(STEELYARD_SANITIZE MATCHES undefined)
      set_source_files_properties(${tests} PROPERTIES COMPILE_OPTIONS -fno-sanitize=undefined)
    endif()
    target_link_libraries(${name}_test PRIVATE steelyard_${name} ${test_deps} ${R_TEST_LIBS} GTest::gtest GTest::gmock GTest::gtest_main)
    target_compile_definitions(${name}_test PRIVATE STEELYARD_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    gtest_discover_tests(${name}_test DISCOVERY_TIMEOUT 60)
  endif()
endfunction()
