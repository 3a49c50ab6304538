# What building the GPU back end needs on this machine; sourced by common.sh. Steelyard needs no installed CUDA: a driver
# that supports CUDA 13 and a compiler, which comes from the Python package registry where none is installed.
cuda_dir=${XDG_CACHE_HOME:-$HOME/.cache}/steelyard/cuda-13.0
# One whole CUDA 13.0 compiler: nvcc with its assembler, the optimiser, and the headers that kernels include.
cuda_wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85)
cuda_least_driver=580

# driver_version [FILE]: of the NVIDIA driver, "580.65.06"; nothing where there is none.
driver_version() {
  local file=${1:-/proc/driver/nvidia/version} version
  version=$(sed -n '/^NVRM version/s/.* \([0-9]\{3,\}\.[0-9][0-9.]*\) .*/\1/p' "$file" 2>/dev/null | head -n 1) || true
  if [ -z "$version" ] && [ $# -eq 0 ] && command -v nvidia-smi >/dev/null; then
    version=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sed -n '/^[0-9]/{p;q}') || true
  fi
  printf '%s' "$version"
}

# nvcc_release NVCC: "13.0"
nvcc_release() { "$1" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\),.*/\1/p' || true; }

# An installed compiler of CUDA 13 or newer; nothing where there is none.
installed_nvcc() {
  local nvcc release
  for nvcc in "$(command -v nvcc || true)" "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc"; do
    [ -x "$nvcc" ] || continue
    release=$(nvcc_release "$nvcc")
    if [ "${release%%.*}" -ge 13 ] 2>/dev/null; then printf '%s' "$nvcc"; return; fi
  done
}

# The compiler that fetch_nvcc left in the cache; nothing where there is none.
fetched_nvcc() {
  local nvcc=$cuda_dir/nvidia/cu13/bin/nvcc
  if [ -x "$nvcc" ]; then printf '%s' "$nvcc"; fi
}

# cuda_state DRIVER-VERSION INSTALLED-NVCC FETCHED-NVCC: none (no driver), old (driver too old), ready (there is a
# compiler) or fetch.
cuda_state() {
  if [ -z "$1" ]; then
    echo none
  elif [ "${1%%.*}" -lt "$cuda_least_driver" ]; then
    echo old
  elif [ -n "$2$3" ]; then
    echo ready
  else
    echo fetch
  fi
}
this_cuda_state() { cuda_state "$(driver_version)" "$(installed_nvcc)" "$(fetched_nvcc)"; }

# Fetches the compiler into the user's cache; it appears under its name only when it is whole and compiles a kernel.
# The exit status is 1, after a line that says why, when it can't be had.
fetch_nvcc() {
  local scratch wheel
  mkdir -p "${cuda_dir%/*}" && scratch=$(mktemp -d "${cuda_dir%/*}/.cuda.XXXXXX") ||
    { say "can't write to ${cuda_dir%/*}."; return 1; }
  say "fetching a CUDA 13.0 compiler (100 MB) from the Python package registry"
  if ! python3 -m pip download --no-deps --no-cache-dir --only-binary :all: --disable-pip-version-check --quiet \
    --dest "$scratch/wheels" "${cuda_wheels[@]}" >&2; then
    rm -rf "$scratch"
    say "couldn't download ${cuda_wheels[*]}; pip's message above says why."
    return 1
  fi
  for wheel in "$scratch"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$scratch/cuda" || break; done
  chmod +x "$scratch"/cuda/nvidia/cu13/bin/* "$scratch"/cuda/nvidia/cu13/nvvm/bin/* 2>/dev/null
  printf '#include <cuda_fp16.h>\nextern "C" __global__ void k(__half* x) { *x = __hadd(*x, *x); }\n' >"$scratch/k.cu"
  if ! "$scratch/cuda/nvidia/cu13/bin/nvcc" -std=c++20 -arch=sm_90a -fatbin -o "$scratch/k.fatbin" "$scratch/k.cu" >&2; then
    rm -rf "$scratch"
    say "the CUDA compiler that was fetched doesn't work here; its message is above."
    return 1
  fi
  rm -rf "$cuda_dir"
  mv "$scratch/cuda" "$cuda_dir"
  rm -rf "$scratch"
  say "kept as $cuda_dir"
}

# The architectures of this machine's GPUs as CMake wants them, "86;90a"; nothing where none can be named.
gpu_architectures() {
  command -v nvidia-smi >/dev/null || return 0
  nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
    sed -n 's/^\([0-9]*\)\.\([0-9]\)$/\1\2/p' | sort -un | sed 's/^90$/90a/' | paste -sd';' - || true
}

# Arguments for CMake, one a line: the compiler and what to compile for. Without a GPU the general and the Hopper
# kernels are compiled, to see that they do; release packages carry every architecture (the preset's default).
cuda_arguments() {
  local architectures nvcc
  if [ -z "$(installed_nvcc)" ]; then
    nvcc=$(fetched_nvcc)
    if [ -n "$nvcc" ]; then echo "-DSTEELYARD_NVCC=$nvcc"; fi
  fi
  architectures=$(gpu_architectures)
  echo "-DSTEELYARD_CUDA_ARCHITECTURES=${architectures:-80;90a}"
}
