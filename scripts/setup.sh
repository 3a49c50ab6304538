#!/usr/bin/env bash
# Installs what Steelyard needs and this machine lacks, from the distribution's packages (Debian 12, Ubuntu 24.04).
#
#   scripts/setup.sh build     what building and running need
#   scripts/setup.sh test      also what ./test.sh needs
#   scripts/setup.sh ci        also what .ci/run needs: clang-format, and clang for the fuzz targets
#
# With an NVIDIA driver (580 or newer) and no CUDA 13 compiler it fetches one into the user's cache, without root.
# It asks nothing, needs root or sudo only when something is missing, and touches no network when nothing is.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

purpose=${1:-build}
case $purpose in
  build | test | ci) ;;
  -h | --help) print_usage "$0"; exit 0 ;;
  *) die "setup.sh knows 'build', 'test' and 'ci', not '$purpose'." ;;
esac

missing=()
need_command() { command -v "$1" >/dev/null || missing+=("$2"); }
need_header() {
  local dir
  for dir in /usr/include /usr/local/include "/usr/include/$(uname -m)-linux-gnu"; do
    [ -e "$dir/$1" ] && return
  done
  missing+=("$2")
}
# Boost.Asio and Beast from 1.81 on; 108100 is Boost's own spelling of it.
need_boost() {
  local dir version
  for dir in /usr/local/include /usr/include; do
    [ -e "$dir/boost/beast.hpp" ] || continue
    version=$(sed -n 's/^#define BOOST_VERSION \([0-9]*\).*/\1/p' "$dir/boost/version.hpp")
    [ "${version:-0}" -ge 108100 ] && return
  done
  missing+=("libboost1.81-dev|libboost-dev")
}

need_command g++ g++
need_command cmake cmake
need_command ninja ninja-build
need_command pkg-config pkg-config
need_command python3 python3
need_header CLI/CLI.hpp libcli11-dev
need_header fmt/core.h libfmt-dev
need_header nlohmann/json.hpp nlohmann-json3-dev
need_header pcre2.h libpcre2-dev
need_header curl/curl.h libcurl4-openssl-dev
need_header editline/readline.h libedit-dev
need_header ncurses.h libncurses-dev
need_header gtest/gtest.h libgtest-dev
need_header gmock/gmock.h libgmock-dev
need_boost
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

# pip only fetches models and the CUDA compiler: with these in the cache it isn't needed.
wanted=(smollm2)
[ "$purpose" = build ] || wanted+=(gemma3)
cuda=$(this_cuda_state)
if [ "$cuda" = fetch ] || ! "$root/scripts/fetch_model.sh" --have "${wanted[@]}"; then
  python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
fi

if [ "$purpose" != build ]; then
  [ -n "$(find_numpy_python)" ] || missing+=(python3-numpy)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)  # for other servers' client packages
fi
if [ "$purpose" = ci ]; then
  need_command git git
  need_command clang-format-14 clang-format-14
  [ -n "$(find_fuzz_clang)" ] || missing+=("clang-16|clang-18" "libclang-rt-16-dev|libclang-rt-18-dev")
fi

# Without a compiler the CPU works all the same.
prepare_cuda() {
  case $cuda in
    old) say "the NVIDIA driver $(driver_version) is too old: CUDA 13 needs $cuda_least_driver or newer, so Steelyard uses the CPU." ;;
    fetch) fetch_nvcc || say "without a CUDA compiler the GPU's part isn't built, so Steelyard uses the CPU." ;;
  esac
}

if [ ${#missing[@]} -eq 0 ]; then prepare_cuda; exit 0; fi

command -v apt-get >/dev/null ||
  die "missing here: ${missing[*]%%|*}. Install them with your package manager and run this again."
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null ||
    die "installing ${missing[*]%%|*} needs root: run this as root once, or install sudo."
  as_root=(sudo)
  [ -t 0 ] || as_root+=(-n)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q "$@" >"$log" 2>&1 </dev/null
}
fail() { tail -n 15 "$log" >&2; die "$1"; }
candidate() { [[ $(apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [^\(] ]]; }

say "installing: ${missing[*]%%|*}"
apt update || fail "apt-get update failed (its last lines are above): is there a network?"
packages=()
for alternatives in "${missing[@]}"; do
  chosen=
  for name in ${alternatives//|/ }; do
    if candidate "$name"; then chosen=$name; break; fi
  done
  [ -n "$chosen" ] || die "this system's package sources have no ${alternatives//|/ or }; Debian 12 and Ubuntu 24.04 do."
  packages+=("$chosen")
done
apt install -y --no-install-recommends "${packages[@]}" ||
  fail "apt-get could not install ${packages[*]}; its last lines are above."
say "installed."
prepare_cuda
