#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# dusk bench: every section measures something, alone and on ranks; the JSON holds what the
# table shows; nothing is left behind without a wish for it.
. "${srcdir:-.}/tests/e2e/lib.sh"
export HOME="$folder"
small="--size tiny --seconds 0.01 --memory-bytes 2M --disk-bytes 1M --no-profile"

# shellcheck disable=SC2086
expect 0 1 - bench gemm memory ops step disk $small --json rows.json
for section in gemm memory ops step disk; do
    grep -q "\"section\": \"$section\"" rows.json || fail "no row of $section in the JSON"
done
awk '/"median"/ && !/"median": [0-9.e+-]+/ { bad = 1 } END { exit bad }' rows.json ||
    fail "a median that is no number"
grep -q '"name": "tokens", "unit": "1/s"' rows.json || fail "no tokens/s of a step"
if "$DUSK" check --precision | grep -q bf16; then
    grep -q 'tiny, bf16, pipeline 1 x data 1' rows.json || fail "no step in bf16"
fi
# shellcheck disable=SC2086
expect 0 2 - bench net step $small --pipeline 2 --json ranks.json
grep -q '"section": "net"' ranks.json || fail "no row of net in the JSON"
[ -e .cache ] && fail "a profile was saved in spite of --no-profile"
# The runner on sleeping operations: no step is shorter than its table says.
expect 0 4 - bench schedule --stages 4 --micro-batches 8 --op-ms 2 --seconds 0.01 --no-profile --json piped.json
for name in gpipe 1f1b interleaved zb-h1 zb-v; do
    ratio=$(tr '{' '\n' <piped.json | sed -n 's/.*"name": "'$name' step", .*"share": \([0-9.]*\).*/\1/p')
    awk -v ratio="$ratio" 'BEGIN { exit !(ratio > 0.99) }' || fail "bench schedule: $name: step / ideal $ratio"
done
grep -q '"name": "zb-h1 ideal step", "unit": "ms", "median": 54' piped.json || fail "ideal step of zb-h1"
grep -q '"name": "1f1b ideal step", "unit": "ms", "median": 66' piped.json || fail "ideal step of 1f1b"
expect 2 2 "expected a divisor of the number of ranks, 2" bench schedule --stages 3 --no-profile
expect 2 1 "expected gpipe, 1f1b, interleaved, zb-h1, zb-v or all" bench schedule --schedule zero --no-profile
# shellcheck disable=SC2086
expect 2 1 "frobnicate" bench frobnicate $small
expect 2 1 "--size" bench --size huge

# A run file's model, batch and layout; what it cannot be is said before anything is
# measured.
cat >run.yaml <<'Y'
run: {name: mine, dir: runs}
model: {init: random, shape: {num_hidden_layers: 3, hidden_size: 32, intermediate_size: 64,
    num_attention_heads: 4, num_key_value_heads: 2, vocab_size: 64}}
data: {train: [{path: none.h5}], seq_len: 16}
train: {steps: 1, global_batch: 4}
optim: {lr: 1.0e-3}
parallel: {pipeline: 2, split: [1, 2]}
Y
expect 0 2 - bench step --run run.yaml --seconds 0.01 --no-profile --json run.json
grep -q 'mine, fp32, pipeline 2 x data 1' run.json || fail "no step of the run file"
expect 0 4 - bench step --run run.yaml --seconds 0.01 --no-profile --pipeline 1 --json run.json
grep -q 'mine, fp32, pipeline 1 x data 4' run.json || fail "no step of the run file by data"
expect 2 1 "number of ranks" bench step --run run.yaml
expect 2 1 "one of --size and --run" bench step --run run.yaml --size toy
expect 2 1 "absent.yaml" bench step --run absent.yaml
exit $failed
