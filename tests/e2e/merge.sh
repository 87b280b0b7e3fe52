#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# merge as a user meets it: what it prints and records, bad command lines, and memory
# that does not grow with the model.
. "${srcdir:-.}/tests/e2e/lib.sh"
oracle=$srcdir/tests/oracle/model
make_hf=$(dirname "$DUSK")/tests/support/make_hf

# has TEXT WHAT: the last output holds TEXT.
has() {
    if grep -qF -- "$1" out; then
        echo "ok: $2: \"$1\""
    else
        fail "$2: no \"$1\" in"
        cat out
    fi
}

expect 0 1 - import "$oracle/merge/a" -o a.h5
expect 0 1 - import "$oracle/merge/b" -o b.h5
expect 0 1 - import "$oracle/tiny-mistral" -o tiny.h5
expect 0 1 - import "$oracle/tiny-mistral-bf16" -o half.h5

expect 0 1 - merge a.h5 b.h5 -o linear.h5 --method linear --weight 0.3,0.7
has "linear.h5: linear merge of 2 models, 12176 parameters" merge
expect 0 3 - merge a.h5 b.h5 -o linear3.h5 --method=linear --weight=0.3,0.7
same linear.h5 linear3.h5 "1 and 3 ranks"
expect 0 1 - inspect linear.h5 --verify
has "linear merge of a.h5 (weight 0.3, seal " inspect
has "b.h5 (weight 0.7, seal " inspect
has "every block matches" inspect
expect 0 1 - merge a.h5 b.h5 -o slerp.h5 --method slerp --t 0.25
has "slerp merge at t 0.25, 3 of 39 tensors nearly parallel and mixed linearly, 12176" merge
expect 0 2 - merge a.h5 b.h5 -o slerp2.h5 --method slerp --t 0.25
same slerp.h5 slerp2.h5 "1 and 2 ranks"
expect 0 1 - inspect slerp.h5
has "slerp merge, t 0.25, of a.h5 (seal " inspect

# The types of the first model, or the one asked for; a folder of a run; more models.
expect 0 1 - merge half.h5 tiny.h5 -o new.h5 --method linear
expect 0 1 - inspect new.h5 --json
has '{"name": "/model/norm", "dtype": "BF16"' "inspect --json"
expect 0 1 - merge half.h5 tiny.h5 -o new.h5 --method linear --dtype f32 --force
expect 0 1 - inspect new.h5 --json
has '{"name": "/model/norm", "dtype": "F32"' "inspect --json"
expect 0 1 - tokens "$srcdir/COPYING" -o text.h5 --tokenizer tiny.h5
cat >run.yaml <<'Y'
run: {name: a, dir: runs, seed: 7}
model: {init: tiny.h5}
data: {train: [{path: text.h5}], seq_len: 32}
train: {steps: 2, global_batch: 4, micro_batch: 1}
optim: {lr: 1.0e-3}
Y
expect 0 1 - train run.yaml
expect 0 2 - merge runs/a/checkpoints/step-00000002 runs/a/checkpoints/latest tiny.h5 \
    -o mean.h5 --method linear --weight 1,1,2
expect 0 1 - inspect mean.h5 --json
has "step-00000002/state.h5 (weight 1, seal " inspect
has "tiny.h5 (weight 2, seal " inspect
grep -q exp_avg out && fail "the merge holds an optimizer's state"
expect 0 1 - merge mean.h5 mean.h5 -o again.h5 --method linear --weight 0.1,0.7
expect 0 1 - diff mean.h5 again.h5
has "0 of 39 tensors differ" diff
expect 0 1 - export slerp.h5 -o slerp

# Bad command lines and models that do not fit.
rm new.h5
refused() { expect "$1" "$2" "$3" merge $4 -o new.h5; }
refused 2 1 "expected at least 2 arguments, found 1" "a.h5 --method linear"
refused 2 1 "expected --method linear or --method slerp" "a.h5 b.h5"
refused 2 1 '--method: expected linear or slerp, found "ties"' "a.h5 b.h5 --method ties"
refused 2 1 "expected --t T" "a.h5 b.h5 --method slerp"
refused 2 1 '--t: expected a number from 0 to 1, found "nan"' "a.h5 b.h5 --method slerp --t nan"
refused 2 1 '--t: expected a number from 0 to 1, found "-0.1"' "a.h5 b.h5 --method slerp --t -0.1"
refused 2 1 "expected 2 models, found 3" "a.h5 b.h5 a.h5 --method slerp --t 0.5"
refused 2 1 "--t belongs to --method slerp" "a.h5 b.h5 --method linear --t 0.5"
refused 2 1 "--weight belongs to --method linear" "a.h5 b.h5 --method slerp --t 0.5 --weight 1,2"
refused 2 1 "expected 2 numbers, one for each model, found 3" "a.h5 b.h5 --method linear --weight 1,2,3"
for weight in 1,x 1, ,1 1,,2 '1;2' ''; do
    expect 2 1 "--weight: expected numbers with commas" \
        merge a.h5 b.h5 -o new.h5 --method linear --weight "$weight"
done
refused 2 1 "expected numbers that fp32 holds, found nan" "a.h5 b.h5 --method linear --weight 1,nan"
refused 2 1 "expected one that is not 0" "a.h5 b.h5 --method linear --weight 0,0"
refused 2 2 "expected a positive sum" "a.h5 b.h5 --method linear --weight -1,0.5"
refused 2 1 "--dtype: expected keep|f32|bf16|f16" "a.h5 b.h5 --method linear --dtype f64"
refused 3 2 "a.h5 and tiny.h5: cannot be merged: hidden_size is 16 and 64" "a.h5 tiny.h5 --method linear"
refused 3 1 "No such file" "a.h5 absent.h5 --method linear"
expect 2 1 "expected -o OUT" merge a.h5 b.h5 --method linear
expect 2 2 "linear.h5: exists; --force replaces it" merge a.h5 b.h5 -o linear.h5 --method linear
same linear.h5 linear3.h5 "not replaced"
if [ -e new.h5 ] || ls ./*.tmp-* >/dev/null 2>&1; then
    fail "something was left behind:"
    ls
fi
expect 0 2 - merge a.h5 b.h5 -o a.h5 --method linear --weight 0.3,0.7 --force
expect 0 1 - diff a.h5 linear.h5

# 335 MB: a rank holds a small part of it, whatever the method.
"$make_hf" large hidden=512 ff=2048 layers=4 heads=8 kv_heads=8 head_dim=64 vocab=65536 \
    dtype=0 >/dev/null || fail "make_hf"
expect 0 1 - import large -o large.h5
rm -r large
bytes=$(wc -c <large.h5)
for method in "linear" "slerp --t 0.5"; do
    # shellcheck disable=SC2086 # a list of words
    expect 0 1 - merge large.h5 large.h5 -o merged.h5 --force --method $method
    peak=$(sed -n 's/.*peak memory \([0-9]*\) MB a rank$/\1/p' out)
    case $(nm "$DUSK" 2>/dev/null) in
    *__asan_init*) echo "   sanitizers have memory of their own: $peak MB" ;;
    *) [ "$bytes" -gt 300000000 ] && [ "${peak:-999}" -lt 100 ] &&
        echo "ok: $method: $peak MB at most, of models of $((bytes / 1000000)) MB" ||
        fail "$method: $peak MB at most, of models of $bytes bytes" ;;
    esac
done
exit $failed
