#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Pairs a second of DPO with the prompt run once for both answers, and once for each:
# prefix.sh CKPT PAIRS.h5 fp32|bf16 [ROUNDS]
#
# One process, OMP_NUM_THREADS threads (all cores), 8 pairs a step and micro-batch, STEPS
# steps (14) of which the first two are left out; both in turns, ROUNDS times (3).
set -eu
: "${DUSK:=./dusk}" "${STEPS:=14}"
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
median() { sort -g "$1" | awk '{ x[NR] = $1 } END { print NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2 }'; }
for _ in $(seq "$rounds"); do
    for sharing in true false; do
        rm -rf runs
        "$DUSK" train run.yaml --set dpo.prefix_sharing=$sharing >said 2>&1 || { cat said >&2 && exit 1; }
        sed -n 's/.*"step_s": \([0-9.eE+-]*\),.*/\1/p' runs/run/metrics.jsonl | tail -n +3 |
            awk '{ print 8 / $1 }' >rates
        median rates >>$sharing.rates
    done
done
echo "$precision, $OMP_NUM_THREADS threads, medians of $rounds rounds in turns"
printf '  prompt run once   %8.2f pairs/s\n  for each answer   %8.2f pairs/s\n  ratio             %8.2f\n' \
    "$(median true.rates)" "$(median false.rates)" \
    "$(echo "$(median true.rates) $(median false.rates)" | awk '{ print $1 / $2 }')"
