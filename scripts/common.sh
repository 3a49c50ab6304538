# Shared by demo.sh, test.sh and .ci/run: source it. `root` is the checkout.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache_dir=${XDG_CACHE_HOME:-$HOME/.cache}/steelyard
models_dir=$cache_dir/models
old_models_dir=${XDG_CACHE_HOME:-$HOME/.cache}/strata/models

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# A heading on stderr, so that stdout stays for results.
step() { printf '\n== %s\n' "$*" >&2; }

# print_usage SCRIPT: the comment block at the head of the script, without its first line.
print_usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"; }

# The first Python 3 that has numpy, for the tests that need it; nothing when there is none.
find_numpy_python() {
  local python
  for python in python3 /usr/bin/python3; do
    if "$python" -c 'import numpy' >/dev/null 2>&1; then command -v "$python"; return; fi
  done
}

# The newest-known-good clang that can link libFuzzer; its major version or nothing.
find_fuzz_clang() {
  local major
  for major in 16 18 17 19; do
    command -v "clang++-$major" >/dev/null || continue
    compgen -G "/usr/lib/llvm-$major/lib/clang/*/lib/linux/libclang_rt.fuzzer-$(uname -m).a" >/dev/null || continue
    printf '%s\n' "$major"
    return
  done
}

. "$root/scripts/cuda.sh"

# Whether a build was configured without a CUDA compiler and there is one now.
misses_nvcc() {
  grep -q '^STEELYARD_NVCC:.*-NOTFOUND$' "$1/CMakeCache.txt" 2>/dev/null && [ -n "$(installed_nvcc)$(fetched_nvcc)" ]
}

# configure PRESET [-DNAME=VALUE...]: once; later Ninja reconfigures by itself when a CMake file or the set of sources
# changes. ccache is used where it is installed.
configure() {
  local preset=$1 launcher=() cuda=()
  shift
  if [ -f "$root/build/$preset/build.ninja" ] && ! misses_nvcc "$root/build/$preset"; then return; fi
  if [ "$preset" = release ]; then mapfile -t cuda < <(cuda_arguments); fi
  if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_C_COMPILER_LAUNCHER=ccache)
  fi
  (cd "$root" && cmake --preset "$preset" "${launcher[@]}" "${cuda[@]}" "$@") >&2 ||
    die "CMake could not configure the $preset build; its message above says why."
}

# build PRESET [TARGET...]
build() {
  local preset=$1
  shift
  (cd "$root" && cmake --build --preset "$preset" ${1:+--target "$@"}) >&2 ||
    die "the $preset build failed; the first error above says why."
}

# run_ctest PRESET [CTEST-OPTION...]: runs the preset's tests, with their results in build/PRESET/tests.xml. Tests find
# the models in the user's cache, numpy through STEELYARD_PYTHON, and shared data through STEELYARD_TEST_DATA.
run_ctest() {
  local preset=$1
  shift
  rm -f "$root/build/$preset/tests.xml"
  STEELYARD_PYTHON=$(find_numpy_python) ctest --test-dir "$root/build/$preset" --parallel "$(nproc)" --timeout 900 \
    --output-on-failure --no-tests=ignore --output-junit "$root/build/$preset/tests.xml" "$@" >&2
}

# print_count PRESET: the count of its tests as one plain line on stdout; before it, why tests were skipped.
print_count() { python3 "$root/scripts/count_tests.py" "$root/build/$1"; }
