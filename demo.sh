#!/usr/bin/env bash
# Asks a small language model a question on this machine.
#
#   ./demo.sh                      asks a default question
#   ./demo.sh "your question"      asks yours
#
# The first run installs what is missing (root or sudo), builds Steelyard and fetches a model of 98 MB; later runs need no
# network and take seconds. With an NVIDIA driver (580 or newer) it runs on the GPU: a CUDA compiler is fetched into your
# cache where none is installed. It prints the memory plan, loads with a progress bar, streams the answer and ends with
# timings against what this machine was measured to be able to do.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/scripts/common.sh"

case ${1:-} in
  -h | --help) print_usage "$0"; exit 0 ;;
  -*) say "error: demo.sh takes a question, not the option '$1'; see ./demo.sh --help."; exit 2 ;;
esac
[ $# -le 1 ] || { say 'error: put the question in quotes: ./demo.sh "why is the sky blue?"'; exit 2; }
question=${1:-Why is the sky blue? Answer in two or three sentences.}

step "1/4 Set-up"
"$root/scripts/setup.sh" build
step "2/4 Build"
configure release
targets=(steelyard)
if [ "$(this_cuda_state)" = ready ]; then targets+=(steelyard_kernels); fi
build release "${targets[@]}"
step "3/4 Model"
model=$("$root/scripts/fetch_model.sh" smollm2)
step "4/4 $question"
exec "$root/build/release/steelyard" run "$model" "$question" --temperature 0 --verbose --num-predict 256
