# `cmake --install build/release [--prefix DIR]`: the program, the GPU's kernels where they were built, and the documents.
include(GNUInstallDirs)
install(TARGETS steelyard RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
# The program looks for the kernels beside itself and in ../lib/steelyard.
if(TARGET steelyard_kernels)
  install(FILES ${CMAKE_BINARY_DIR}/steelyard_kernels.bin DESTINATION lib/steelyard)
endif()
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md" PATTERN "*.svg")
