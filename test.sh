#!/usr/bin/env bash
# Sets up, builds and runs every test: the rooms' unit tests and the end-to-end tests.
#
#   ./test.sh                 everything that this machine can run
#   ./test.sh --quick         without the tests that take long (label "slow")
#   ./test.sh --gpu           only the tests of the GPU; says what it skips where there is none
#   ./test.sh --filter REGEX  only the tests whose name matches
#
# The first run installs what is missing (root or sudo) and fetches two models (350 MB); later runs need no network.
# The last line counts the tests: N passed, N failed, N skipped. Set STEELYARD_TEST_DATA to a directory with vocab/ and
# templates/ to test against those too; without it the tests that need it say that they are skipped.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/scripts/common.sh"

select=()
while [ $# -gt 0 ]; do
  case $1 in
    --quick) select+=(-LE slow) ;;
    --gpu) select+=(-L gpu) ;;
    --filter) [ $# -ge 2 ] || die "--filter wants a regular expression."; select+=(-R "$2"); shift ;;
    -h | --help) print_usage "$0"; exit 0 ;;
    *) say "error: test.sh doesn't know '$1'; see ./test.sh --help."; exit 2 ;;
  esac
  shift
done

step "Set-up"
"$root/scripts/setup.sh" test
"$root/scripts/fetch_model.sh" smollm2 >/dev/null
"$root/scripts/fetch_model.sh" gemma3 >/dev/null
step "Build"
configure release
build release
step "Tests"
status=0
run_ctest release "${select[@]}" || status=$?
print_count release
exit "$status"
