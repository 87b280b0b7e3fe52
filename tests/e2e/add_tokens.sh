#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tokens added to a model, from upscale --add-tokens to tuning, export and import again;
# the oracle's rows in their place give the oracle's losses.
. "${srcdir:-.}/tests/e2e/lib.sh"
align=$srcdir/tests/oracle/align
tokens='<|im_start|>,<|im_end|>'

has() { # FILE TEXT
    grep -qF -- "$2" "$1" || {
        fail "$1 without \"$2\":"
        cat "$1"
    }
}

mkdir model && cp "$align"/ref/* "$align"/tokenizer/tokenizer.model model
expect 0 1 - import model -o ref.h5
awk '/^ "instructions"/ { exit } /^  \{/ { b = "" } { b = b $0 }
    /\]\}\]?,?$/ { sub(/\]?,$/, "", b); print b }' "$align/sft_examples.json" >chats.jsonl
awk '/^ "instructions"/ { on = 1; next } !on { next } /^  \{/ { b = "" } { b = b $0 }
    /\}(\]\})?,?$/ { sub(/(\]\}|,)$/, "", b); print b }' "$align/sft_examples.json" >instructions.jsonl

# ---- the file ----
expect 0 1 - upscale ref.h5 -o chat.h5 --add-tokens "$tokens"
has out "2 tokens added, ids 512 to 513, "
expect 0 3 - upscale ref.h5 -o chat3.h5 --add-tokens "$tokens"
same chat.h5 chat3.h5 "1 and 3 ranks"
expect 0 2 - upscale ref.h5 -o deep.h5 --drop 1 --add-tokens "$tokens" --init zero
has out "4 layers -> 6 (0:3,1:4), 2 tokens added, ids 512 to 513, "
expect 0 1 - inspect chat.h5 --verify
has out "/model/lm_head                          F32   [514, 64]"
has out "2 tokens added"
has out "every block matches"
expect 0 1 - upscale ref.h5 -o deeper.h5 --drop 1
expect 1 1 - diff deep.h5 deeper.h5
expect 0 1 - upscale chat.h5 -o more.h5 --add-tokens '<|tool|>' --init normal --seed 3
has out "1 token added, ids 514 to 514, "

# ---- ids and losses of the oracle, with its own rows for the new tokens ----
expect 0 1 - export deep.h5 -o zero
expect 0 1 - export chat.h5 -o folder
has folder/added_tokens.json '"<|im_end|>": 513'
has folder/config.json '"vocab_size": 514'
number() { # FILE NAME: where the data of an array ends, in bytes of the file
    head=$(dd if="$1" bs=1 count=8 2>/dev/null | od -An -tu8 | tr -d ' ')
    end=$(dd if="$1" bs=1 skip=8 count="$head" 2>/dev/null | tr -d ' ' |
        sed 's/.*"'"$2"'":{[^}]*"data_offsets":\[[0-9]*,\([0-9]*\)\].*/\1/')
    echo $((8 + head + end))
}
rows=$align/sft_added_rows.safetensors
for array in "model.embed_tokens.weight embed_tokens" "lm_head.weight lm_head"; do
    to=$(number folder/model.safetensors "${array% *}")
    from=$(number "$rows" "chatml_added.${array#* }_rows_512_513")
    dd if="$rows" of=folder/model.safetensors bs=512 count=1 iflag=skip_bytes skip=$((from - 512)) \
        oflag=seek_bytes seek=$((to - 512)) conv=notrunc 2>/dev/null
done
expect 0 2 - import folder -o oracle.h5
expect 1 1 - diff chat.h5 oracle.h5
has out "2 of 39 tensors differ"
expect 0 2 - tokens chats.jsonl instructions.jsonl -o set.h5 --tokenizer oracle.h5 --template chatml_added
trl() { # KEY: of the whole batch
    awk -v t='  "chatml_added":{' -v k="\"$1\":" '$0 == t { on = 1 }
        on && (at = index($0, k)) { print substr($0, at + length(k)) + 0; exit }' \
        OFMT=%.12g "$align/sft_records.json"
}
for layout in "1 1" "2 2" "4 2"; do
    on "${layout% *}" eval oracle.h5 --tokens set.h5 --pipeline "${layout#* }" --json
    [ $code -eq 0 ] || fail "eval: $(cat err)"
    sed -n 's/.*"nll_sum": \([^,]*\), "count": \([^,]*\),.*/\1 \2/p' out >"figures.$(echo "$layout" | tr ' ' x)"
done
same figures.1x1 figures.2x2 "pipeline 2"
same figures.1x1 figures.4x2 "pipeline 2, data 2"
echo "$(cat figures.1x1) $(trl nll_sum) $(trl counted)" | awk '
    { d = $1 - $3; if (d < 0) d = -d
      printf "chatml_added: %.6f by %d tokens, TRL %.6f by %d: %.2g a token (1e-5)\n", $1, $2, $3, $4, d / $2
      exit !(NF == 4 && $2 == $4 && d <= 1e-5 * $2) }' || fail "chatml_added: not as TRL"
expect 0 1 - tokens --show 0 set.h5 --tokenizer oracle.h5
has out "513  [<|im_end|>]"

# ---- a run, and back to a folder ----
head -n 7 chats.jsonl >short.jsonl
expect 0 1 - tokens short.jsonl -o sft.h5 --tokenizer chat.h5 --template chatml_added
cat >run.yaml <<'Y'
run: {name: a, dir: runs, seed: 7}
model: {init: chat.h5}
data: {train: [{path: sft.h5}], seq_len: 256}
train: {objective: sft, steps: 2, global_batch: 4, micro_batch: 2}
optim: {lr: 1.0e-3}
Y
expect 0 1 - train run.yaml
expect 0 2 - train run.yaml --set run.name=b --set parallel.pipeline=2
expect 0 1 - diff runs/a/checkpoints/latest runs/b/checkpoints/latest
expect 0 1 - export runs/a/checkpoints/latest -o tuned
has tuned/config.json '"eos_token_id": 513'
has tuned/tokenizer_config.json '"eos_token": "<|im_end|>"'
has tuned/tokenizer_config.json "{{ '<|im_start|>assistant\\\\n' }}"
has tuned/tokenizer_config.json '"513": {'
has tuned/added_tokens.json '"<|im_start|>": 512'
expect 0 1 - import tuned -o again.h5
expect 0 1 - upscale runs/a/checkpoints/latest -o plain.h5 --layers 0:4
expect 0 1 - diff plain.h5 again.h5
expect 0 1 - tokens short.jsonl -o sft2.h5 --tokenizer again.h5 --template chatml_added
for set in sft sft2; do
    on 1 inspect $set.h5 --json
    grep -o '"/tokens".*\|"tokenizer": [^,]*' out >$set.facts
done
same sft.facts sft2.facts "the tokenizer of the folder"

# ---- the same token in tokenizer.json and special_tokens_map.json ----
cp "$srcdir"/tests/oracle/model/tiny-mistral/*token* model
expect 0 1 - import model -o full.h5
expect 0 1 - upscale full.h5 -o fullchat.h5 --add-tokens "$tokens"
expect 0 1 - tokens short.jsonl -o full.set.h5 --tokenizer fullchat.h5 --template chatml_added
expect 0 1 - train run.yaml --set run.name=full --set model.init=fullchat.h5 \
    --set 'data.train=[{path: full.set.h5}]'
expect 0 1 - export runs/full/checkpoints/latest -o full
has full/tokenizer.json '"content": "<|im_end|>"'
has full/tokenizer.json '"id": 513'
has full/special_tokens_map.json '"eos_token": "<|im_end|>"'

# ---- what does not fit ----
expect 3 2 "sft.h5: made with tokenizer " train run.yaml --set run.name=c --set model.init=ref.h5
expect 3 1 "sft.h5: made with tokenizer " eval ref.h5 --tokens sft.h5
expect 3 1 "vocab_size is 512 and 514" merge --method linear ref.h5 chat.h5 -o new.h5
expect 0 1 - upscale ref.h5 -o other.h5 --add-tokens '<a>,<b>'
expect 3 2 "expected one tokenizer" merge --method linear other.h5 chat.h5 -o new.h5
expect 2 1 "template chatml_added: expected a tokenizer with the token <|im_start|>, found none" \
    tokens chats.jsonl -o new.h5 --tokenizer ref.h5 --template chatml_added
refused() { # TEXT ARGUMENT...
    text=$1
    shift
    expect 2 1 "$text" upscale "$@" -o new.h5
    expect 2 2 "$text" upscale "$@" -o new.h5
    [ "$(grep -cF -- "$text" err)" -eq 1 ] || fail "expected one line on stderr: $(cat err)"
}
refused 'token "</s>": expected a new one, but the tokenizer of ref.h5 has it as id 2' ref.h5 --add-tokens '<a>,</s>'
refused 'token "<|im_end|>": expected a new one' chat.h5 --add-tokens '<|im_end|>'
refused "found an empty one" ref.h5 --add-tokens ''
refused "found an empty one" ref.h5 --add-tokens '<a>,,<b>'
refused 'token "<a>" is there twice' ref.h5 --add-tokens '<a>,<a>'
refused 'token " <b>": expected no white space at its ends' ref.h5 --add-tokens '<a>, <b>'
refused "expected --mode copy" ref.h5 --add-tokens '<a>' --mode link
refused "--init: expected mean, zero or normal" ref.h5 --add-tokens '<a>' --init one
refused "--init: is for --add-tokens A,B" ref.h5 --drop 1 --init zero
refused "expected one of --layers RANGES, --drop M and --preset solar, or --add-tokens A,B" ref.h5
rm model/*token*
expect 0 1 - import model -o bare.h5
expect 3 2 "bare.h5: the checkpoint has no tokenizer.model" upscale bare.h5 -o new.h5 --add-tokens '<a>'

# A folder whose files list a token that the model has no row for.
cp "$align"/tokenizer/tokenizer.model model
echo '{"<pad>": 512}' >model/added_tokens.json
expect 0 1 'added token "<pad>" has id 512, but vocab_size is 512' import model -o pad.h5
refused 'lists "<pad>" as id 512, for which the model has no row' pad.h5 --add-tokens '<a>'
expect 0 1 - upscale pad.h5 -o padded.h5 --add-tokens '<pad>,<a>'
echo '{"<pad>": 51' >model/added_tokens.json
expect 3 2 "added_tokens.json: not valid JSON" import model -o new.h5
if [ -e new.h5 ] || ls ./*.tmp-* >/dev/null 2>&1; then
    fail "something was left behind: $(ls)"
fi
exit $failed
