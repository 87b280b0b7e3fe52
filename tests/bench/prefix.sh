#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Pairs a second of DPO with the prompt run once for both answers, and once for each:
# prefix.sh CKPT PAIRS.h5 fp32|bf16 [ROUNDS]
#
# One process, OMP_NUM_THREADS threads (all cores), 8 pairs a step and micro-batch, STEPS
# steps (42) of which the first two are left out; both in turns, ROUNDS times (3). Steps
# differ by several times in their tokens and are the same in all runs: of each step the
# median over rounds is taken, and the pairs of all steps by the sum of these.
set -eu
: "${DUSK:=./dusk}" "${STEPS:=42}"
[ $# -ge 3 ] || { echo "usage: prefix.sh CKPT PAIRS.h5 fp32|bf16 [ROUNDS]" >&2 && exit 2; }
ckpt=$(realpath "$1") pairs=$(realpath "$2") precision=$3 rounds=${4:-3}
DUSK=$(realpath "$DUSK")
OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
export OMP_NUM_THREADS OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >run.yaml <<Y
run: {name: run, dir: runs, seed: 1}
model: {init: $ckpt}
data: {train: [{path: $pairs}], seq_len: 1024}
train: {objective: dpo, steps: $STEPS, global_batch: 8, micro_batch: 8, precision: $precision}
dpo: {reference: none}
optim: {lr: 2.0e-4, schedule: linear, weight_decay: 0}
checkpoint: {every: 0}
Y
for _ in $(seq "$rounds"); do
    for sharing in true false; do
        rm -rf runs
        "$DUSK" train run.yaml --set dpo.prefix_sharing=$sharing >said 2>&1 || { cat said >&2 && exit 1; }
        sed -n 's/^{"step": \([0-9]*\),.*"step_s": \([0-9.eE+-]*\),.*/\1 \2/p' \
            runs/run/metrics.jsonl | tail -n +3 >>$sharing.seconds
    done
done
# rate SECONDS: lines of a step and its seconds.
rate() {
    sort -k 1,1n -k 2,2g "$1" | awk '
        function close_step() { if (n) { steps++; sum += n % 2 ? x[(n + 1) / 2] : (x[n / 2] + x[n / 2 + 1]) / 2 } n = 0 }
        $1 != step { close_step(); step = $1 }
        { x[++n] = $2 }
        END { close_step(); print 8 * steps / sum }'
}
once=$(rate true.seconds) twice=$(rate false.seconds)
echo "$precision, $OMP_NUM_THREADS threads, medians of $rounds rounds in turns"
printf '  prompt run once   %8.2f pairs/s\n  for each answer   %8.2f pairs/s\n  ratio             %8.3f\n' \
    "$once" "$twice" "$(echo "$once $twice" | awk '{ print $1 / $2 }')"
