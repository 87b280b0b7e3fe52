#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A real small model trained in fp32 and in bf16 from the same start: losses stay within
# 0.5 %. 12 steps; DUSK_STEPS=200 DUSK_TIMEOUT=3600 for the long form (a few minutes).
. "${srcdir:-.}/tests/e2e/lib.sh"
steps=${DUSK_STEPS:-12}
data="$srcdir/configs/quickstart"
"$DUSK" import "$data/model" -o base.h5 >/dev/null 2>err &&
    "$DUSK" tokens "$data/train.jsonl" -o text.h5 --tokenizer base.h5 >/dev/null 2>err || {
    echo "FAIL: cannot make the inputs: $(cat err)"
    exit 1
}
cat >run.yaml <<Y
run: {name: a, dir: runs}
model: {init: base.h5}
data: {train: [{path: text.h5}], seq_len: 256}
train: {steps: $steps, global_batch: 16, micro_batch: 8, allow_slow_bf16: true}
optim: {lr: 3.0e-4, schedule: cosine, warmup: 5}
Y
for precision in fp32 bf16; do
    expect 0 1 "$precision by " train run.yaml --set run.name=$precision \
        --set train.precision=$precision
    losses $precision >$precision.bits
    [ "$(wc -l <$precision.bits)" -eq "$steps" ] || fail "$precision: not $steps steps"
done
paste fp32.bits bf16.bits | awk '
    { l = ($2 - $6) / $2; if (l < 0) l = -l; sum += l; if (l > L) { L = l; at = $1 } }
    END { printf "%d steps: losses %.2g apart at most (step %d; 5e-3 allowed), %.2g on average\n", NR, L, at, sum / NR
          exit !(NR > 0 && L > 0 && L <= 5e-3) }' || fail "bf16 leaves fp32"
exit $failed
