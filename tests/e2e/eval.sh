#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Evaluation: the same figures, to the bit, on any ranks and stages, of a file, a link, a
# training checkpoint; every token but the first is counted once.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_inputs
figures() { # NAME RANKS ARGUMENT...
    name=$1 ranks=$2
    shift 2
    on "$ranks" eval "$@" --tokens text.h5 --json
    [ $code -eq 0 ] || fail "eval $*: $(cat err)"
    sed -n 's/.*"nll_sum": \([^,]*\), "count": \([^,]*\), "loss": \([^,]*\),.*/\1 \2 \3/p' out >"$name.figures"
    echo "$name: $(cat "$name.figures")"
    [ -s "$name.figures" ] || fail "$name: no figures"
}
figures alone 1 base.h5 --seq-len 50
figures p2 2 base.h5 --seq-len 50 --pipeline 2
same alone.figures p2.figures "pipeline 2"
figures d3 3 base.h5 --seq-len 50
same alone.figures d3.figures "3 replicas"
figures p2d2 4 base.h5 --seq-len 50 --pipeline 2
same alone.figures p2d2.figures "2 x 2"

# bf16: other figures, near, and as independent of the layout.
figures b1 1 base.h5 --seq-len 50 --precision bf16
figures b2d2 4 base.h5 --seq-len 50 --pipeline 2 --precision bf16
same b1.figures b2d2.figures "bf16, 2 x 2"
paste -d' ' alone.figures b1.figures | awk '
    { d = ($3 - $6) / $3; if (d < 0) d = -d; printf "fp32 and bf16: %.2g apart\n", d
      exit !(d > 0 && d < 1e-3) }' || fail "bf16: $(cat b1.figures)"
expect 2 1 "--precision: expected fp32 or bf16, found fp16" eval base.h5 --tokens text.h5 \
    --precision fp16

tokens=$("$DUSK" inspect text.h5 --json | sed -n 's/.*"tokens": \([0-9]*\).*/\1/p' | head -n 1)
counted=$(cut -d' ' -f2 alone.figures)
[ "$counted" -eq $((tokens - 1)) ] || fail "$counted counted of $tokens tokens"

for mode in copy link; do
    on 2 upscale base.h5 -o "$mode.h5" --layers 0:3,1:4 --mode "$mode"
    [ $code -eq 0 ] || fail "upscale --mode $mode: $(cat err)"
    figures "$mode" 2 "$mode.h5" --seq-len 64 --pipeline 2
done
same copy.figures link.figures "copy and link"
expect 0 2 - train run.yaml --set train.steps=1 --set optim.warmup=1 --set eval.every=0
figures trained 2 runs/a/checkpoints/latest --seq-len 64
same copy.figures trained.figures "the map in the run file (one step of rate 0)"
exit $failed
