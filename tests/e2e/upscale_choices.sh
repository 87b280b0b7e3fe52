#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Choices of upscale (--preset, --seam, --zero, --init-noise) as a user meets them, and
# what inspect --map draws of them.
. "${srcdir:-.}/tests/e2e/lib.sh"

# has TEXT: the last output holds TEXT.
has() {
    if grep -qF -- "$1" out; then
        echo "ok: \"$1\""
    else
        fail "no \"$1\" in"
        cat out
    fi
}

expect 0 1 - import "$srcdir/tests/oracle/model/tiny-mistral" -o base.h5
expect 0 1 - tokens "$srcdir/COPYING" -o text.h5 --tokenizer base.h5

# ---- solar ----
expect 0 1 - upscale base.h5 -o drop.h5 --drop 1
expect 0 2 - upscale base.h5 -o solar.h5 --preset solar
has "4 layers -> 6 (0:3,1:4), "
same drop.h5 solar.h5 "--preset solar and --drop 1"
expect 0 1 - upscale base.h5 -o link.h5 --preset solar --mode link
expect 0 1 - upscale base.h5 -o five.h5 --layers 0:4,3:4
expect 2 2 "that 4 divides, so that m is a quarter of them; five.h5 has 5" \
    upscale five.h5 -o new.h5 --preset solar

# ---- block expansion starts with the function of its source ----
# nll FILE RANKS PIPELINE [PRECISION]: the sum of losses over the text, all its digits.
nll() {
    on "$2" eval "$1" --tokens text.h5 --seq-len 64 --pipeline "$3" --precision "${4:-fp32}" --json
    [ $code -eq 0 ] || fail "eval $1: $(cat err)"
    sed -n 's/.*"nll_sum": \([^,]*\), "count": \([^,]*\),.*/\1 \2/p' out
}
expect 0 1 - upscale base.h5 -o expanded.h5 --layers 0:2,1:4,3:4 --zero o_proj,down_proj
has "4 layers -> 6 (0:2,1:4,3:4), o_proj,down_proj of 2 inserted copies zeroed (the function is the source's), "
expect 0 3 - upscale base.h5 -o expanded3.h5 --layers 0:2,1:4,3:4 --zero down_proj,o_proj
same expanded.h5 expanded3.h5 "1 and 3 ranks"
expect 0 1 - upscale base.h5 -o half.h5 --layers 0:2,1:4,3:4 --zero o_proj
nll base.h5 1 1 >of.base
nll expanded.h5 1 1 >of.expanded
nll expanded.h5 2 2 >of.expanded2
nll half.h5 1 1 >of.half
nll solar.h5 1 1 >of.solar
cat of.base of.expanded of.half
[ -s of.base ] || fail "no loss of the base"
same of.base of.expanded "loss of base and expansion"
same of.base of.expanded2 "loss of base and expansion, two stages"
on 1 check --precision
if grep -q '^bf16' out; then
    nll base.h5 1 1 bf16 >of.base16
    nll expanded.h5 1 1 bf16 >of.expanded16
    cat of.base16
    same of.base16 of.expanded16 "loss of base and expansion in bf16"
fi
for other in half solar; do
    if cmp -s of.base of.$other; then
        fail "$other.h5 has the loss of the base: it cannot be told apart"
    fi
done
expect 0 1 - upscale base.h5 -o noisy.h5 --layers 0:2,1:4,3:4 --zero o_proj,down_proj \
    --init-noise 0.01 --seed 4
has "noise in 2 inserted copies"
nll noisy.h5 1 1 >of.noisy
same of.base of.noisy "noise behind zeros"

# ---- averaged and noisy: the same bytes from any ranks, another file for each choice ----
expect 0 1 - upscale base.h5 -o mean.h5 --preset solar --seam mean:1 --init-noise 0.02
has "(0:3,1:4), 2 of them averaged, noise in 2 inserted copies, "
expect 0 3 - upscale base.h5 -o mean3.h5 --drop 1 --seam mean:1 --init-noise 2e-2 --seed 0
same mean.h5 mean3.h5 "1 and 3 ranks"
expect 0 1 - upscale base.h5 -o seed.h5 --drop 1 --seam mean:1 --init-noise 0.02 --seed 1
expect 1 1 - diff mean.h5 seed.h5 --summary
has "q_proj                                    2 of      6"
has "input_layernorm                           0 of      6"
expect 0 1 - upscale base.h5 -o seam.h5 --drop 1 --seam mean:1
expect 1 1 - diff solar.h5 seam.h5
has "18 of 57 tensors differ"

# ---- inspect --map ----
expect 0 1 - inspect solar.h5 --map
sed 's/seal [0-9a-f]*/seal S/' out >map
cat >want <<'M'
solar.h5
6 layers, 0:3,1:4 of base.h5 (4 layers, seal S)
source       0
             0123
0-2          ===|
3-5          |===
1 joint; 2 layers are inserted copies
=  a copy: 6
M
same map want "inspect --map"
expect 0 1 - inspect mean.h5 --map
sed 's/seal [0-9a-f]*/seal S/' out >map
cat >want <<'M'
mean.h5
6 layers, 0:3,1:4 of base.h5 (4 layers, seal S)
source       0
             0123
0-2          ==~|
3-5          |~*=
1 joint; 2 layers are inserted copies
=  a copy: 3
~  averaged over a joint (mean:1): 2
*  noise of 0.02 x rms (seed 0): 2, some under another mark
M
same map want "inspect --map of averaged and noisy layers"
expect 0 1 - inspect expanded.h5 --map
has "2-4          |0==|"
has "5              |0"
has "0  zeroed o_proj,down_proj: 2"
expect 0 1 - inspect link.h5 --map
has "3-5          |==="
expect 0 1 - inspect base.h5 --map
has "4 layers, not made by a map of layers"
expect 0 1 - inspect mean.h5 --map --json
has '"ranges": "0:3,1:4", "source_layers": 4, "seam": "mean:1", "zero": null, "init_noise": "0.02", "init_noise_seed": "0", "map": [{"layer": 0, "source": 0, "mean_with": null, "joint_before": false, "inserted": false, "zeroed": false, "noisy": false},'
has '{"layer": 3, "source": 1, "mean_with": 3, "joint_before": true, "inserted": true, "zeroed": false, "noisy": true}'
expect 0 1 - inspect base.h5 --map --json
has '"map": null'
expect 0 1 - inspect expanded.h5
has "  zero                     o_proj,down_proj"
has "  source_layers            4"
expect 3 1 "expected a dusk checkpoint" inspect text.h5 --map
expect 3 1 "not a file that dusk wrote" inspect "$srcdir/COPYING" --map
expect 2 1 "expected one at a time" inspect base.h5 --map --stats

# 130 source layers, no wider than a terminal.
ranges=0:4
for i in 1 2 3 4 5 6 7; do ranges=$ranges,0:4; done
expect 0 1 - upscale base.h5 -o 32.h5 --layers "$ranges" --mode link
expect 0 1 - upscale 32.h5 -o 128.h5 --layers 0:32,0:32,0:32,0:32 --mode link
expect 0 1 - upscale 128.h5 -o 130.h5 --layers 0:128,126:128 --mode link
expect 0 1 - upscale 130.h5 -o wide.h5 --layers 0:120,10:130 --mode link
expect 0 1 - inspect wide.h5 --map
has "a column is 3 source layers"
awk 'length > 80 { print; bad = 1 } END { exit bad }' out || fail "wider than 80"

# ---- what a run makes of it ----
cat >run.yaml <<'Y'
run: {name: a, dir: runs, seed: 7}
model: {init: expanded.h5}
data: {train: [{path: text.h5}], seq_len: 32}
train: {steps: 2, global_batch: 4, micro_batch: 1, freeze: ["layers.0-1", "layers.3-4", "*embed*", "model.norm*", "lm_head*"]}
optim: {lr: 1.0e-3}
Y
expect 0 1 - train run.yaml
expect 0 1 - inspect runs/a/checkpoints/latest --map
has "0  zeroed o_proj,down_proj: 2"
expect 1 1 - diff expanded.h5 runs/a/checkpoints/latest --summary
has "embed_tokens                              0 of      1"
has "down_proj                                 2 of      6"
expect 0 1 - train run.yaml --set run.name=b --set 'model.layers="0:6,5:6"' --set 'train.freeze=[]'
expect 0 1 - inspect runs/b/checkpoints/latest --map --json
has '"ranges": "0:6,5:6", "source_layers": 6, "seam": null, "zero": null'

# ---- what cannot be ----
refused() { # TEXT ARGUMENT...
    text=$1
    shift
    expect 2 1 "$text" upscale base.h5 -o new.h5 "$@"
    expect 2 2 "$text" upscale base.h5 -o new.h5 "$@"
    [ "$(grep -cF -- "$text" err)" -eq 1 ] || fail "expected one line on stderr: $(cat err)"
}
refused "expected one of --layers RANGES, --drop M and --preset solar" --preset solar --layers 0:3,1:4
refused "expected one of --layers RANGES, --drop M and --preset solar" --preset solar --drop 1
refused '--preset: expected solar, found "lunar"' --preset lunar
refused "--seam: a link holds no weights" --preset solar --seam mean:1 --mode link
refused "--zero: a link holds no weights" --preset solar --zero o_proj --mode link
refused "--init-noise: a link holds no weights" --preset solar --init-noise 1 --mode link
refused "did you mean down_proj?" --preset solar --zero o_proj,donw_proj
refused "mean:K with K up to 3" --preset solar --seam mean:4
refused "without a joint" --layers 0:4 --seam mean:1
refused "comes twice" --layers 0:4 --zero o_proj
refused "--init-noise: expected a number from 1e-09 to 100" --preset solar --init-noise 0
refused "--seed: is for --add-tokens A,B and --init-noise STD" --preset solar --seed 1
if [ -e new.h5 ] || ls ./*.tmp-* >/dev/null 2>&1; then
    fail "something was left behind: $(ls)"
fi

# A damaged source is found by what is altered too.
size=$(wc -c <base.h5)
cp base.h5 bad.h5
byte=$(dd if=bad.h5 bs=1 skip=$((size / 2)) count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
printf "$(printf '\\%03o' $((byte ^ 16)))" |
    dd of=bad.h5 bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
expect 3 2 "damaged: bytes " upscale bad.h5 -o new.h5 --layers 0:4,0:4 --init-noise 0.1
if [ -e new.h5 ] || ls ./*.tmp-* >/dev/null 2>&1; then
    fail "something was left behind: $(ls)"
fi
exit $failed
