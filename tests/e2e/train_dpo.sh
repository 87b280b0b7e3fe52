#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Preference tuning, from pairs to checkpoints: the same bits on every layout, after a
# resume and with the prompt run once or twice the same losses; the reference's file; sDPO
# in chunks, gone on with anywhere; evaluation beside a reference.
. "${srcdir:-.}/tests/e2e/lib.sh"
align=$srcdir/tests/oracle/align
mkdir model && cp "$align"/ref/* "$align"/tokenizer/tokenizer.model model
expect 0 1 - import model -o ref.h5
sed -n 's/^{"text": "Question: \(.*\)\\nAnswer: \(.*\)\\n"}$/{"prompt": "\1", "completion": "\2"}/p' \
    "$srcdir/configs/quickstart/train.jsonl" | head -n 61 |
    awk '{ at = index($0, ", \"completion\": "); prompt = substr($0, 1, at - 1)
           answer = substr($0, at + 16); sub(/}$/, "", answer)
           if (NR > 1) print prompt ", \"chosen\": " answer ", \"rejected\": \"I do not know. " before "}"
           before = substr(answer, 2) }' >pairs.jsonl
head -n 44 pairs.jsonl >train.jsonl
tail -n 16 pairs.jsonl >held.jsonl
for set in train held; do
    expect 0 1 - tokens $set.jsonl -o $set.h5 --tokenizer ref.h5 --template solar_eos --max-length 384
done
cat >run.yaml <<'Y'
run: {name: a, dir: runs, seed: 7}
model: {init: ref.h5}
data: {train: [{path: train.h5}], valid: [{name: held, path: held.h5}], seq_len: 384}
train: {objective: dpo, steps: 6, global_batch: 8, micro_batch: 2}
dpo: {beta: 0.1}
optim: {lr: 2.0e-4, schedule: linear, warmup: 2}
eval: {every: 3}
Y
expect 0 1 - check run.yaml

train() { # NAME RANKS SETTING...
    name=$1 ranks=$2
    shift 2
    settings=
    for s in "$@"; do settings="$settings --set $s"; done
    # shellcheck disable=SC2086
    expect 0 "$ranks" - train run.yaml --set run.name="$name" $settings
    bits "$name"
}
# All that a run says of its steps but times.
bits() {
    sed 's/"tokens_per_s": .*"epoch"/"epoch"/' "runs/$1/metrics.jsonl" >"$1.bits"
    [ "$(grep -c '"grad_norm"' "$1.bits")" -eq 6 ] || fail "$1: expected 6 steps"
}
same_run() { # NAME LIKE
    same "$1.bits" "$2.bits" "metrics"
    on 1 diff "runs/$1/checkpoints/latest" "runs/$2/checkpoints/latest"
    [ $code -eq 0 ] || fail "weights of $1 and $2 differ: $(cat out err)"
}

# ---- layouts ----
train p1 1
for key in loss rewards/chosen rewards/rejected rewards/accuracies rewards/margins logps/chosen \
    logps/rejected logratio/chosen logratio/rejected; do
    grep -q "\"$key\": [-0-9]" p1.bits || fail "metrics.jsonl lacks $key"
    grep -q "\"eval_held_$key\": [-0-9]" p1.bits || fail "metrics.jsonl lacks eval_held_$key"
done
sed -n '1s/.*"loss": \([^,]*\),.*/\1/p' p1.bits |
    awk '{ d = $1 - log(2); exit !(d < 1e-5 && d > -1e-5) }' || fail "the first loss is not ln 2: $(head -n 1 p1.bits)"
head -n 8 train.jsonl >few.jsonl
expect 0 1 - tokens few.jsonl -o few.h5 --tokenizer ref.h5 --template solar_eos --max-length 384
sed 's/path: train.h5/path: few.h5/' run.yaml >few.yaml
expect 0 1 - train few.yaml --set run.name=few
bits few
awk -F'"rewards/margins": ' '/grad_norm/ { split($2, a, ","); last = a[1] } END { exit !(last > 1) }' few.bits ||
    fail "the margins of eight pairs did not grow: $(tail -n 2 few.bits)"
OMP_NUM_THREADS=2 train p1threads 1
same_run p1threads p1
train p2 2 parallel.pipeline=2
same_run p2 p1
train p4 4 parallel.pipeline=4 parallel.schedule=gpipe
same_run p4 p1
train d2 2
train p2d2 4 parallel.pipeline=2
same_run p2d2 d2
losses p1 >p1.losses
losses d2 >d2.losses
paste p1.losses d2.losses | awk '
    function off(a, b) { return a > b ? (a - b) / a : (b - a) / a }
    { l = off($2, $6); g = off($4, $8); if (l > L) L = l; if (g > G) G = g }
    END { printf "data 1 and 2: losses %.2g (5e-6 allowed), gradient norms %.2g (2e-4)\n", L, G
          exit !(NR == 6 && L <= 5e-6 && G <= 2e-4) }' || fail "data degrees differ"
train apart 1 dpo.prefix_sharing=false
losses apart >apart.losses
paste p1.losses apart.losses | awk '
    { d = $2 - $6; if (d < 0) d = -d; if (d > D) D = d }
    END { printf "prompt run once and twice: losses %.2g apart (6e-5)\n", D; exit !(NR == 6 && D <= 6e-5) }' ||
    fail "sharing the prompt changes the loss"

# ---- the reference's file ----
[ "$(ls runs/p1/reference-*.h5 | wc -l)" -eq 2 ] || fail "expected two references: $(ls runs/p1)"
mkdir -p runs/again && cp runs/p1/reference-*.h5 runs/again
train again 2 parallel.pipeline=2
grep -q 'reference: 44 pairs of train.h5, from runs/again/reference-' err || fail "the file was not read: $(cat err)"
same_run again p1
train cached 1 dpo.cache=kept.h5
[ -s kept.h5 ] || fail "dpo.cache was not written"
train cached2 2 dpo.cache=kept.h5 parallel.pipeline=2
grep -q 'from kept.h5' err || fail "dpo.cache was not read"
same_run cached2 p1
cp kept.h5 other.h5
expect 3 2 "kept.h5: " train run.yaml --set run.name=b --set dpo.cache=kept.h5 --set 'data.train=[{path: held.h5}]'
grep -q data err || fail "does not say that the data differ: $(cat err)"
expect 3 1 "kept.h5: " train run.yaml --set run.name=c --set dpo.cache=kept.h5 --set model.layers=0:3,1:4
grep -q weights err || fail "does not say that the weights differ: $(cat err)"
same kept.h5 other.h5 "refused files stay"
# Stopped in its middle, it goes on from there.
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    sed "s/\"prompt\": \"/&Problem $i. /" pairs.jsonl
done >many.jsonl
expect 0 1 - tokens many.jsonl -o many.h5 --tokenizer ref.h5 --template solar_eos --max-length 384
sed 's/path: train.h5/path: many.h5/; s/, valid: .*, seq_len/, seq_len/; s/steps: 6/steps: 1/; s/, warmup: 2//; s/every: 3/every: 0/' run.yaml >many.yaml
"$DUSK" train many.yaml --set run.name=part >out 2>err &
waits=0
until ls runs/part/*.part >/dev/null 2>&1 || [ $waits -ge 600 ]; do
    sleep 0.05
    waits=$((waits + 1))
done
kill -TERM $!
wait $!
code=$?
[ $code -eq 75 ] || fail "stopped in the reference: exit code $code, expected 75: $(cat err)"
ls runs/part/reference-*.part >/dev/null 2>&1 || fail "nothing was kept: $(ls runs/part)"
expect 0 2 "going on where a run was killed" train many.yaml --set run.name=part --set parallel.pipeline=2
expect 0 1 - train many.yaml --set run.name=whole
same "$(ls runs/part/reference-*.h5)" "$(ls runs/whole/reference-*.h5)" "reference"
train none 1 dpo.reference=none
ls runs/none/reference-* 2>/dev/null && fail "a reference of none"
expect 0 1 - upscale ref.h5 -o deep.h5 --layers 0:4,1:4
expect 3 2 "deep.h5: the reference has another num_hidden_layers" train run.yaml --set run.name=d \
    --set dpo.reference=deep.h5
mkdir bare && cp "$align"/ref/* bare
expect 0 1 - import bare -o bare.h5
expect 3 2 "bare.h5: the reference's tokenizer is none" train run.yaml --set run.name=d --set dpo.reference=bare.h5
train self 1 dpo.reference=ref.h5
same self.bits p1.bits "the start model as a named reference"

# ---- going on ----
for from in 2 4; do
    rm -rf runs/going
    train going 1 checkpoint.every=2
    rm -rf runs/going/checkpoints/step-00000006
    [ $from -eq 4 ] || rm -rf runs/going/checkpoints/step-00000004
    train going 4 checkpoint.every=2 parallel.pipeline=4
    same_run going p1
done
expect 2 1 "dpo.beta was 0.1" train run.yaml --set run.name=p1 --set dpo.beta=0.2

# ---- sDPO ----
chunks="dpo.chunks=3 train.steps=6 optim.warmup=1"
# shellcheck disable=SC2086
{
    train s1 1 $chunks
    [ "$(grep -o '"lr": [^,]*' s1.bits | sort | uniq -c | awk '{ print $1 }' | sort -u)" = 3 ] ||
        fail "the schedule does not start anew in each chunk: $(grep -o '"lr": [^,]*' s1.bits)"
    for step in 3 5; do # a chunk's reference is the model it starts from
        sed -n "/\"step\": $step, .*grad_norm/s/.*\"loss\": \([^,]*\),.*/\1/p" s1.bits |
            awk '{ d = $1 - log(2); exit !(d < 1e-5 && d > -1e-5) }' || fail "step $step does not begin at ln 2"
    done
    train s2 2 $chunks parallel.pipeline=2
    same_run s2 s1
    for from in 1 2 3 4 5; do # anywhere: the starts of chunks are 2 and 4
        rm -rf runs/sg
        train sg 1 $chunks checkpoint.every=1 checkpoint.keep=0
        for later in 2 3 4 5 6; do
            [ $later -le $from ] || rm -rf runs/sg/checkpoints/step-0000000$later
        done
        train sg 2 $chunks checkpoint.every=1 checkpoint.keep=0 parallel.pipeline=2
        same_run sg s1
    done
    # The newest two are damaged: back to the chunk before.
    rm -rf runs/sg/checkpoints/step-00000006
    for step in 4 5; do
        printf x | dd of=runs/sg/checkpoints/step-0000000$step/state.h5 bs=1 seek=70000 conv=notrunc 2>/dev/null
    done
    train sg 2 $chunks checkpoint.every=1 checkpoint.keep=0 parallel.pipeline=2
    grep -q 'CHECKPOINT NOT USABLE' err || fail "the damage was not seen: $(cat err)"
    same_run sg s1
    rm runs/sg/reference-*.h5 runs/sg/checkpoints/step-00000006 -rf
    train sg 1 $chunks checkpoint.every=1 checkpoint.keep=0 # files gone: made from the checkpoints
    same_run sg s1
    rm -rf runs/sg/reference-*.h5 runs/sg/checkpoints/step-00000006 runs/sg/checkpoints/step-00000004
    expect 3 2 "the reference of this chunk" train run.yaml --set run.name=sg --set dpo.chunks=3 \
        --set train.steps=6 --set optim.warmup=1 --set parallel.pipeline=2
}
expect 2 1 "dpo.reference: expected init with dpo.chunks 3" check run.yaml --set dpo.chunks=3 \
    --set dpo.reference=ref.h5
expect 3 1 "expected at least one pair for each of the 60 of dpo.chunks" train run.yaml --set run.name=e \
    --set dpo.chunks=60 --set train.steps=60

# ---- evaluation ----
on 1 eval runs/p1/checkpoints/latest --tokens held.h5 --reference ref.h5 --json
[ $code -eq 0 ] || fail "eval: $(cat err)"
cp out eval.1
for key in loss rewards/margins rewards/accuracies logps/chosen logratio/rejected; do
    a=$(sed -n "s|.*\"eval_$key\": \([^,]*\),.*|\1|p" eval.1)
    b=$(sed -n "s|.*\"eval_held_$key\": \([^,]*\),.*|\1|p" p1.bits | tail -n 1)
    [ -n "$a" ] && [ "$a" = "$b" ] || fail "eval_$key: dusk eval says $a, the run $b"
done
on 4 eval runs/p1/checkpoints/latest --tokens held.h5 --reference ref.h5 --json --pipeline 2
for file in eval.1 out; do sed 's/"run_s": [^}]*//' $file >$file.bits; done
same out.bits eval.1.bits "4 ranks and 1"
expect 0 2 - eval runs/p1/checkpoints/latest --tokens held.h5 --reference ref.h5 --loss ipo --beta 0.2
grep -q '^accuracy .* of 16 pairs$' out || fail "lines: $(cat out)"
expect 3 2 "held.h5: expected a set of records, found one of pairs" eval ref.h5 --tokens held.h5
expect 3 1 "deep.h5: the reference has another" eval ref.h5 --tokens held.h5 --reference deep.h5
expect 2 1 "expected with --reference" eval ref.h5 --tokens held.h5 --beta 0.2

# ---- what does not fit ----
expect 2 1 "dpo.beta: expected a number above 0" check run.yaml --set dpo.beta=0
expect 2 2 "label_smoothing" train run.yaml --set run.name=f --set dpo.loss=ipo --set dpo.label_smoothing=0.1
expect 2 1 "label_smoothing" check run.yaml --set dpo.loss=exo_pair
expect 2 1 "dpo.loss" check run.yaml --set dpo.loss=sigmoit
expect 2 1 "dpo.beta" check run.yaml --set train.objective=sft
expect 3 2 "expected records of at most 128 tokens" train run.yaml --set run.name=g --set data.seq_len=128
sed 's/"chosen": /"completion": /; s/, "rejected".*/}/' held.jsonl >records.jsonl
expect 0 1 - tokens records.jsonl -o records.h5 --tokenizer ref.h5 --template solar_eos
expect 3 2 "records.h5: expected a set of pairs, found one of records" train run.yaml --set run.name=h \
    --set 'data.train=[{path: records.h5}]'
"$DUSK" tokens "$srcdir/COPYING" -o text.h5 --tokenizer ref.h5 2>err || fail "tokens: $(cat err)"
expect 3 1 "text.h5: expected a set of pairs, found a token set" train run.yaml --set run.name=i \
    --set 'data.train=[{path: text.h5}]'
exit $failed
