#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Frozen tensors stay bit for bit while the others learn as they would without; the bits
# are the same for every pipeline, after a resume and where a stage has nothing to train;
# a run takes less memory; other verbs take its checkpoints.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_inputs
expect 0 1 - import "$srcdir/tests/oracle/model/tiny-mistral-bf16" -o half.h5
expect 0 1 - upscale base.h5 -o up.h5 --layers 0:3,1:4
expect 0 1 - upscale half.h5 -o uphalf.h5 --layers 0:3,1:4

# Layers 3 and 4 of 6, without k_proj, the final norm and the head are trained: with two
# stages the first has nothing to train, and q and v go without k.
freeze='train.freeze=["layers.0-2","layers.5","*k_proj*","model.embed_tokens.weight"]'
is_frozen='layers\.[0125]\.\|k_proj\|embed_tokens'
tensors=57 trained=18 # 2 x 8, norm, lm_head

train() { # NAME RANKS SETTING...
    name=$1 ranks=$2
    shift 2
    settings=
    for s in "$@"; do settings="$settings --set $s"; done
    # shellcheck disable=SC2086
    expect 0 "$ranks" - train run.yaml --set run.name="$name" --set eval.every=0 \
        --set optim.warmup=0 --set train.steps=3 $settings
    losses "$name" >"$name.bits"
}

# differ A B: the tensors that differ, in names; moments too where both have them.
differ() {
    on 1 diff "$1" "$2" --json
    [ $code -le 1 ] || fail "diff $1 $2: $(cat err)"
    sed 's/.*"tensors"//' out | grep -o '"name": "[^"]*"' >names
}

# changed A B N WHAT: N tensors differ, none of them frozen.
changed() {
    differ "$1" "$2"
    grep "$is_frozen" names && fail "$4: frozen tensors differ"
    [ "$(wc -l <names)" -eq "$3" ] && echo "ok: $4: $3 tensors differ" ||
        fail "$4: $(wc -l <names) tensors differ, expected $3"
}

same_run() { # NAME LIKE
    same "$1.bits" "$2.bits" "losses and norms"
    differ "runs/$1/checkpoints/latest" "runs/$2/checkpoints/latest"
    [ -s names ] && fail "weights of $1 and $2 differ: $(cat names)"
}

layouts() { # PREFIX INIT UP SETTING...
    x=$1 init=$2 up=$3
    shift 3
    train "${x}p1" 1 "$freeze" model.init="$init" "$@"
    grep -q "^frozen: 39 of $tensors tensors" err || fail "the log does not say what is frozen: $(cat err)"
    changed "$up" "runs/${x}p1/checkpoints/latest" $trained "${x}p1"
    for layout in "p2 2 2" "p3 3 3" "p6 6 6"; do
        # shellcheck disable=SC2086
        set -- $layout "$@"
        name=$x$1 ranks=$2 pipeline=$3
        shift 3
        train "$name" "$ranks" "$freeze" model.init="$init" parallel.pipeline="$pipeline" "$@"
        same_run "$name" "${x}p1"
    done
    train "${x}p2gpipe" 2 "$freeze" model.init="$init" parallel.pipeline=2 \
        parallel.schedule=gpipe train.micro_batch=1 "$@"
    same_run "${x}p2gpipe" "${x}p1"
    train "${x}d2" 2 "$freeze" model.init="$init" "$@"
    train "${x}p2d2" 4 "$freeze" model.init="$init" parallel.pipeline=2 "$@"
    same_run "${x}p2d2" "${x}d2"
    changed "$up" "runs/${x}p2d2/checkpoints/latest" $trained "${x}p2d2"

    # The first update of what is trained is that of a run with nothing frozen.
    train "${x}whole" 1 model.init="$init" train.steps=1 optim.clip=0 "$@"
    train "${x}some" 1 "$freeze" model.init="$init" train.steps=1 optim.clip=0 "$@"
    train "${x}some2" 2 "$freeze" model.init="$init" train.steps=1 optim.clip=0 \
        parallel.pipeline=2 "$@"
    for run in "${x}some" "${x}some2"; do
        differ "runs/${x}whole/checkpoints/latest" "runs/$run/checkpoints/latest"
        grep -v "$is_frozen" names && fail "$run: the first update of what is trained differs"
        [ "$(grep -c . names)" -eq $((3 * (tensors - trained))) ] ||
            fail "$run: $(grep -c . names) weights and moments differ, expected all of frozen tensors"
    done

    # Going on, on another layout, has the bits of one run.
    train "${x}chain" 1 "$freeze" model.init="$init" checkpoint.every=1 checkpoint.keep=0 "$@"
    rm -r "runs/${x}chain/checkpoints/step-00000003" "runs/${x}chain/checkpoints/step-00000002"
    train "${x}chain" 2 "$freeze" model.init="$init" parallel.pipeline=2 checkpoint.every=1 \
        checkpoint.keep=0 "$@"
    same_run "${x}chain" "${x}p1"
}
layouts "" base.h5 up.h5
layouts b half.h5 uphalf.h5 train.precision=bf16 train.allow_slow_bf16=true

# bf16 of fp32 weights: a frozen tensor has the rounded weight from the first step on.
train r 1 "$freeze" train.precision=bf16 train.allow_slow_bf16=true checkpoint.every=1
changed runs/r/checkpoints/step-00000001 runs/r/checkpoints/step-00000003 $((3 * trained)) \
    "bf16 of fp32 weights"

# A tied model: its head is frozen with the embedding, on one stage and on two.
cat >tied.yaml <<'Y'
run: {name: a, dir: runs, seed: 7}
model:
  init: random
  tokenizer: base.h5
  shape: {hidden_size: 64, intermediate_size: 96, num_hidden_layers: 3,
          num_attention_heads: 4, num_key_value_heads: 2, vocab_size: 512,
          max_position_embeddings: 64, tie_word_embeddings: true}
data: {train: [{path: text.h5}], seq_len: 32}
train: {steps: 3, global_batch: 8, freeze: [model.embed_tokens.weight, layers.2]}
optim: {lr: 1.0e-3}
checkpoint: {every: 1}
Y
for layout in "1 1" "2 2" "2 1" "4 2"; do
    # shellcheck disable=SC2086
    set -- $layout
    expect 0 "$1" - train tied.yaml --set run.name="tied$1$2" --set parallel.pipeline="$2"
    losses "tied$1$2" >"tied$1$2.bits"
    differ "runs/tied$1$2/checkpoints/step-00000001" "runs/tied$1$2/checkpoints/step-00000003"
    grep 'embed_tokens\|layers\.2\.' names && fail "tied$1$2: frozen tensors changed"
    [ "$(grep -c . names)" -eq $((3 * 19)) ] || fail "tied$1$2: $(grep -c . names) tensors changed"
done
same tied11.bits tied22.bits "tied"
same tied21.bits tied42.bits "tied, data 2"

# Another list needs leave; what thaws starts with moments of 0.
rm -r runs/chain/checkpoints/step-00000003
expect 2 2 "train.freeze was [\"layers.0-2\", \"layers.5\", \"*k_proj*\", \"model.embed_tokens.weight\"], now it is [\"layers.0-2\"]; a resumed run must keep it" \
    train run.yaml --set run.name=chain --set train.steps=3 --set 'train.freeze=["layers.0-2"]'
expect 0 2 "train.freeze was" train run.yaml --set run.name=chain --set train.steps=3 \
    --set optim.warmup=0 --set eval.every=0 --set 'train.freeze=["layers.0-2"]' \
    --set parallel.pipeline=2 --set 'checkpoint.resume_allow=[train.freeze]'
is_frozen='layers\.[012]\.'
changed runs/chain/checkpoints/step-00000002 runs/chain/checkpoints/step-00000003 \
    $((3 * (tensors - 27))) "after the thaw"
rm -r runs/whole/checkpoints/step-00000001
train whole 1 checkpoint.every=1 checkpoint.keep=0
rm -r runs/whole/checkpoints/step-00000003
expect 2 1 "train.freeze was [], now it is" train run.yaml --set run.name=whole --set train.steps=3 \
    --set 'train.freeze=["layers.0-2"]'

# Patterns that cannot be.
expect 2 2 "such as model.layers.5.self_attn.q_proj.weight or layers.0-5, found \"model.layer.0.*\", which matches none" \
    train run.yaml --set run.name=bad --set 'train.freeze=["model.layer.0.*"]'
expect 2 1 "model's layers 0 to 5, FROM <= TO, found \"layers.3-6\"" train run.yaml \
    --set run.name=bad --set 'train.freeze=[layers.3-6]'
expect 2 2 "found all 57 frozen" train run.yaml --set run.name=bad --set 'train.freeze=["*"]'
expect 2 1 "train.freeze: expected layers.FROM-TO" check run.yaml --set 'train.freeze=[layers.3-2]'
expect 2 1 "the head of a tied model is model.embed_tokens.weight" check tied.yaml \
    --set 'train.freeze=[lm_head.weight]'
expect 2 1 "found all 57 frozen" check run.yaml --memory --set 'train.freeze=["*"]'

# The plan is smaller by what frozen tensors do without.
total() { # SETTING...: bytes of the one rank
    on 1 check run.yaml --memory --ranks 1 "$@"
    awk '$1 == "0" { print $NF }' out
}
all=$(total)
some=$(total --set "$freeze")
frozen=$((4 * 46208 + 2 * 2048 + 512 * 64)) # parameters
echo "plan: $all bytes, with $frozen frozen parameters $some"
[ "$((all - some))" -eq $((12 * frozen)) ] || fail "memory: expected 12 bytes less for each frozen parameter"

# What others make of the checkpoint: whole, sealed, zeros for what was not trained.
last=runs/p1/checkpoints/latest
expect 0 1 - inspect $last --verify
expect 0 1 - upscale $last -o again.h5 --layers 0:6,5:6
expect 0 1 - merge $last up.h5 -o mean.h5 --method linear
expect 0 1 - export $last -o HF
expect 0 1 - import HF -o back.h5
differ back.h5 $last
[ -s names ] && fail "exported weights differ: $(cat names)"
is_frozen='layers\.[0125]\.\|k_proj\|embed_tokens'
changed up.h5 back.h5 $trained "exported"
expect 0 1 - eval $last --tokens text.valid.h5

# Preference tuning in two chunks: references come and go, moments start anew.
mkdir model && cp "$srcdir"/tests/oracle/align/ref/* "$srcdir/tests/oracle/align/tokenizer/tokenizer.model" model
expect 0 1 - import model -o ref.h5
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
    echo "{\"prompt\": \"What is $i and $i?\", \"chosen\": \"It is $((i + i)).\", \"rejected\": \"I do not know $i.\"}"
done >pairs.jsonl
expect 0 1 - tokens pairs.jsonl -o pairs.h5 --tokenizer ref.h5 --template solar_eos --max-length 128
cat >dpo.yaml <<'Y'
run: {name: a, dir: runs, seed: 7}
model: {init: ref.h5}
data: {train: [{path: pairs.h5}], seq_len: 128}
train: {objective: dpo, steps: 4, global_batch: 4, freeze: [layers.0, "*v_proj*", model.norm.weight]}
dpo: {chunks: 2}
optim: {lr: 1.0e-3}
Y
is_frozen='layers\.0\.\|v_proj\|"norm"'
for layout in "1 1" "2 2"; do
    # shellcheck disable=SC2086
    set -- $layout
    expect 0 "$1" - train dpo.yaml --set run.name="dpo$1" --set parallel.pipeline="$2"
    losses "dpo$1" >"dpo$1.bits"
    differ ref.h5 "runs/dpo$1/checkpoints/latest"
    grep "$is_frozen" names && fail "dpo$1: frozen tensors changed"
    grep -q 'layers\.1\.q_proj' names || fail "dpo$1: nothing was trained: $(cat names)"
done
same_run dpo2 dpo1
exit $failed
