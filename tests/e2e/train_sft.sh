#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Instruction tuning, from JSON lines to checkpoints: losses of records as TRL computed
# them; the same bits on every layout and after a resume; packs as their records.
. "${srcdir:-.}/tests/e2e/lib.sh"
align=$srcdir/tests/oracle/align
mkdir model && cp "$align"/ref/* "$align"/tokenizer/tokenizer.model model
expect 0 1 - import model -o ref.h5

# ---- losses of the oracle's chats and instructions ----
awk '/^ "instructions"/ { exit } /^  \{/ { b = "" } { b = b $0 }
    /\]\}\]?,?$/ { sub(/\]?,$/, "", b); print b }' "$align/sft_examples.json" >chats.jsonl
awk '/^ "instructions"/ { on = 1; next } !on { next } /^  \{/ { b = "" } { b = b $0 }
    /\}(\]\})?,?$/ { sub(/(\]\}|,)$/, "", b); print b }' "$align/sft_examples.json" >instructions.jsonl
[ "$(cat chats.jsonl instructions.jsonl | wc -l)" -eq 19 ] || fail "expected 19 examples"

trl() { # TEMPLATE KEY: of its whole batch
    awk -v t="  \"$1\":{" -v k="\"$2\":" '$0 == t { on = 1 }
        on && (at = index($0, k)) { print $0 == "" ? "" : substr($0, at + length(k)) + 0; exit }' \
        OFMT=%.12g "$align/sft_records.json"
}
as_trl() { # TEMPLATE FILE...
    name=$1
    shift
    expect 0 2 - tokens "$@" -o "$name.h5" --tokenizer ref.h5 --template "$name"
    for layout in "1 1" "2 2" "4 2" "4 4" "3 1"; do
        figures=$name.$(echo "$layout" | tr ' ' x)
        on "${layout% *}" eval ref.h5 --tokens "$name.h5" --pipeline "${layout#* }" --json
        [ $code -eq 0 ] || fail "eval: $(cat err)"
        sed -n 's/.*"nll_sum": \([^,]*\), "count": \([^,]*\),.*/\1 \2/p' out >"$figures"
        same "$name.1x1" "$figures" "$name: ranks and pipeline $layout"
    done
    echo "$(cat "$name.1x1") $(trl "$name" nll_sum) $(trl "$name" counted)" | awk -v t="$name" '
        { d = $1 - $3; if (d < 0) d = -d
          printf "%s: %.6f by %d tokens, TRL %.6f by %d: %.2g a token (1e-5)\n", t, $1, $2, $3, $4, d / $2
          exit !(NF == 4 && $2 == $4 && d <= 1e-5 * $2) }' || fail "$name: not as TRL"
}
as_trl solar_eos chats.jsonl instructions.jsonl
as_trl chatml chats.jsonl instructions.jsonl
as_trl alpaca instructions.jsonl
expect 3 2 "expected records of at most 100 tokens (the sequence length), found one of 656" \
    eval ref.h5 --tokens solar_eos.h5 --seq-len 100

# ---- runs ----
head -n 96 "$srcdir/configs/quickstart/train.jsonl" |
    sed 's/^{"text": "Question: \(.*\)\\nAnswer: \(.*\)\\n"}/{"prompt": "\1", "completion": "\2"}/' >math.jsonl
head -n 56 math.jsonl >train.jsonl
tail -n 40 math.jsonl >held.jsonl
for set in train held; do
    expect 0 1 - tokens $set.jsonl -o $set.h5 --tokenizer ref.h5 --template solar_eos --max-length 512
    expect 0 1 - tokens $set.jsonl -o $set.packed.h5 --tokenizer ref.h5 --template solar_eos --pack 512
done
cat >run.yaml <<'Y'
run: {name: a, dir: runs, seed: 7}
model: {init: ref.h5}
data: {train: [{path: train.h5, weight: 3}, {path: held.h5}], valid: [{name: held, path: held.h5}], seq_len: 512}
train: {objective: sft, steps: 6, global_batch: 16, micro_batch: 2}
optim: {lr: 1.0e-3, schedule: cosine, warmup: 2}
eval: {every: 3}
Y
sed 's/\.h5/.packed.h5/g; s/global_batch: 16/global_batch: 8/; s/seq_len: 512/&, packing: true/' run.yaml |
    sed 's/ref\.packed/ref/' >packed.yaml
sed 's/train: \[.*\], valid/train: [{path: train.h5}], valid/' run.yaml >one.yaml
sed 's/train: \[.*\], valid/train: [{path: train.packed.h5}], valid/' packed.yaml >onepacked.yaml
file=run.yaml

train() { # NAME RANKS SETTING...
    name=$1 ranks=$2
    shift 2
    settings=
    for s in "$@"; do settings="$settings --set $s"; done
    # shellcheck disable=SC2086
    expect 0 "$ranks" - train "$file" --set run.name="$name" $settings
    losses "$name" >"$name.bits"
    [ "$(wc -l <"$name.bits")" -eq 6 ] || fail "$name: expected 6 steps in metrics.jsonl"
}
same_run() { # NAME LIKE: losses, counts, validation, weights and moments
    same "$1.bits" "$2.bits" "losses"
    for run in "$1" "$2"; do
        grep -o '"eval_held_nll_sum.*\|"tokens": [0-9]*, "counted_tokens": [0-9]*' \
            "runs/$run/metrics.jsonl" >"$run.counts"
    done
    same "$1.counts" "$2.counts" "counts, validation"
    on 1 diff "runs/$1/checkpoints/latest" "runs/$2/checkpoints/latest"
    [ $code -eq 0 ] || fail "weights of $1 and $2 differ: $(cat out err)"
}
layouts() { # PREFIX SETTING...
    x=$1
    shift
    train "${x}p1" 1 "$@"
    OMP_NUM_THREADS=2 train "${x}p1threads" 1 "$@"
    same_run "${x}p1threads" "${x}p1"
    train "${x}p2" 2 parallel.pipeline=2 "$@"
    same_run "${x}p2" "${x}p1"
    train "${x}p4" 4 parallel.pipeline=4 parallel.schedule=gpipe "$@"
    same_run "${x}p4" "${x}p1"
    train "${x}d2" 2 "$@"
    train "${x}p2d2" 4 parallel.pipeline=2 "$@"
    same_run "${x}p2d2" "${x}d2"
    paste "${x}p1.bits" "${x}d2.bits" | awk '
        function off(a, b) { return a > b ? (a - b) / a : (b - a) / a }
        { l = off($2, $6); g = off($4, $8); if (l > L) L = l; if (g > G) G = g }
        END { printf "data 1 and 2: losses %.2g (5e-6 allowed), gradient norms %.2g (2e-4)\n", L, G
              exit !(L <= 5e-6 && G <= 2e-4) }' || fail "data degrees differ"
    awk 'NR == 1 { first = $2 } END { exit !($2 < first) }' "${x}p1.bits" || fail "the loss did not fall"
}
layouts r
file=packed.yaml
layouts k
[ "$(grep -o '"eval_held_count.*' runs/rp1/metrics.jsonl | head -n 1)" = \
    "$(grep -o '"eval_held_count.*' runs/kp1/metrics.jsonl | head -n 1)" ] || fail "held-out counts"

# All records in one step, as records and as packs: the same losses.
packs=$("$DUSK" inspect train.packed.h5 --json | sed -n 's/.*"packs": \([0-9]*\).*/\1/p' | head -n 1)
file=one.yaml
train whole 1 train.micro_batch=1 train.global_batch=56
file=onepacked.yaml
train wholepacked 1 train.micro_batch=1 train.global_batch="$packs"
paste whole.bits wholepacked.bits | awk '
    { d = $2 - $6; if (d < 0) d = -d; if (d > D) D = d }
    END { printf "56 records, alone and packed: losses %.2g apart (1e-5)\n", D; exit !(NR == 6 && D <= 1e-5) }' ||
    fail "packed losses differ"
[ "$packs" -lt 56 ] || fail "$packs packs"

# ---- epochs, and going on ----
file=one.yaml
epochs="train.steps=null train.epochs=1.5 checkpoint.every=2"
# shellcheck disable=SC2086
train epochs 1 $epochs # 84 samples, 16 a step
grep -q '"step": 6,.*"epoch": 1' runs/epochs/metrics.jsonl || fail "the epoch of step 6"
rm -r runs/epochs/checkpoints/step-00000006 runs/epochs/checkpoints/step-00000004
cp epochs.bits whole.epochs.bits
# shellcheck disable=SC2086
train epochs 4 $epochs parallel.pipeline=4
same epochs.bits whole.epochs.bits "gone on at step 2 on another layout"
expect 2 1 "optim.warmup: expected at most the 6 steps of train.epochs 1.5, found 7" train one.yaml \
    --set run.name=w --set train.steps=null --set train.epochs=1.5 --set optim.warmup=7
rm -r runs/epochs/checkpoints/step-00000006
"$DUSK" tokens "$srcdir/COPYING" -o text.h5 --tokenizer ref.h5 2>err || fail "tokens: $(cat err)"
expect 2 1 "train.objective was sft, now it is pretrain" train run.yaml --set run.name=epochs \
    --set train.objective=pretrain --set 'checkpoint.resume_allow=[data]' \
    --set 'data.train=[{path: text.h5}]'

# ---- the template goes with the model ----
on 1 inspect runs/rp2d2/checkpoints/latest --json
for value in '"chat.template": "solar_eos"' '"chat.template_hash": "' '"chat.jinja": "{'; do
    grep -qF "$value" out || fail "the checkpoint lacks $value"
done
expect 0 1 - export runs/rp2d2/checkpoints/latest -o exported
grep -qF '"chat_template": "{' exported/tokenizer_config.json || fail "no chat_template: $(cat exported/*config.json)"
cp exported/*.json exported/tokenizer.model model
cp exported/model.safetensors model
echo '{"eos_token_id": 1, "top_p": 0.5}' >model/generation_config.json
echo '{"chat_template": "old", "legacy": true}' >model/tokenizer_config.json
expect 0 1 - import model -o again.h5
expect 0 1 - train run.yaml --set run.name=again --set model.init=again.h5
expect 0 1 - export runs/again/checkpoints/latest -o exported2
for line in '"eos_token_id": 2' '"top_p": 0.5'; do
    grep -qF "$line" exported2/generation_config.json || fail "generation_config.json lacks $line"
done
grep -qF '"legacy": true' exported2/tokenizer_config.json || fail "tokenizer_config.json lost a key"
for folder in exported exported2; do
    grep '"chat_template"' $folder/tokenizer_config.json | sed 's/,$//' >$folder.chat
done
same exported.chat exported2.chat "chat templates"

# ---- what does not fit ----
expect 3 2 "text.h5: is a token set, but train.objective is sft" train run.yaml --set run.name=b \
    --set 'data.train=[{path: text.h5}]'
expect 3 1 "train.h5: is a record set, but train.objective is pretrain" train run.yaml \
    --set run.name=c --set train.objective=pretrain
expect 3 2 "train.h5: is not packed, but data.packing is true" train run.yaml --set run.name=d \
    --set data.packing=true
expect 3 1 "expected packs of 128 tokens (the sequence length), found packs of 512" train run.yaml \
    --set run.name=e --set data.packing=true --set 'data.train=[{path: train.packed.h5}]' \
    --set data.seq_len=128
expect 3 2 "train.h5: expected records of at most 128 tokens" train run.yaml --set run.name=f \
    --set data.seq_len=128
echo '{"prompt": "a", "chosen": "b", "rejected": "c"}' >pairs.jsonl
"$DUSK" tokens pairs.jsonl -o pairs.h5 --tokenizer ref.h5 --template solar_eos 2>err || fail "pairs: $(cat err)"
expect 3 2 "pairs.h5: expected a set of records, found one of pairs" train run.yaml --set run.name=g \
    --set 'data.train=[{path: pairs.h5}]'
expect 2 1 "train.tokens: expected train.steps or train.epochs" check run.yaml --set train.steps=null \
    --set train.tokens=1e6
exit $failed
