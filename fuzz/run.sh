#!/usr/bin/env bash
# Runs fuzz targets with their corpora; stops at the first finding.
# usage: fuzz/run.sh [SECONDS each, default 60] [TARGET ...]      needs: cmake --preset fuzz && cmake --build --preset fuzz
# Each target NAME starts from fuzz/corpus/NAME (kept) and works in build/fuzz/corpus/NAME (scratch).
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for source in fuzz/*_fuzz.cc; do targets+=("$(basename "$source" .cc)"); done
fi
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=0}
for target in "${targets[@]}"; do
  scratch=build/fuzz/corpus/$target
  kept=fuzz/corpus/$target
  mkdir -p "$scratch" "$kept"
  options=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix=build/fuzz/)
  [ -f "fuzz/$target.dict" ] && options+=(-dict="fuzz/$target.dict")
  echo "== $target, $seconds s"
  if ! "build/fuzz/$target" "${options[@]}" "$scratch" "$kept" >"build/fuzz/$target.log" 2>&1; then
    tail -n 60 "build/fuzz/$target.log"
    echo "$target found something; the input lies in build/fuzz/"
    exit 1
  fi
  grep -E "stat::number_of_executed_units|stat::average_exec_per_sec" "build/fuzz/$target.log"
done
