#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The embedded example from its Hugging Face folder to its loss on held-out text, as it
# is and up-scaled: ids and losses of transformers (tests/oracle/model/example.json).
. "${srcdir:-.}/tests/e2e/lib.sh"
example=$srcdir/configs/quickstart
oracle=$srcdir/tests/oracle/model/example.json

# loss_of MODEL: the expected loss at seq_len 512, which is the model's first row.
loss_of() {
    sed -n "/\"$1\": \[/,/\"loss\"/s/.*\"loss\": \([0-9.e-]*\).*/\1/p" "$oracle"
}

# equals_oracle MODEL RANKS ARGUMENT...: the loss within 1e-5.
equals_oracle() {
    model=$1 ranks=$2
    shift 2
    on "$ranks" eval "$@" --tokens valid.h5 --seq-len 512 --json
    [ $code -eq 0 ] || fail "eval $*: $(cat err)"
    found=$(sed -n 's/.*"loss": \([^,]*\),.*/\1/p' out)
    echo "$model on $ranks ranks: loss $found, transformers $(loss_of "$model")"
    awk -v a="$found" -v b="$(loss_of "$model")" \
        'BEGIN { d = a - b; exit !(a > 0 && b > 0 && d < 1e-5 && d > -1e-5) }' ||
        fail "$model: loss $found, expected $(loss_of "$model")"
}

expect 0 1 - import "$example/model" -o base.h5
expect 0 2 - tokens "$example/valid.jsonl" -o valid.h5 --tokenizer base.h5
tokens=$("$DUSK" inspect valid.h5 --json | sed -n 's/.*"tokens": \([0-9]*\).*/\1/p' | head -n 1)
wanted=$(sed -n 's/.*"tokens": \([0-9]*\),.*/\1/p' "$oracle")
[ "$tokens" = "$wanted" ] || fail "$tokens tokens, SentencePiece gives $wanted"
equals_oracle base8 2 base.h5
expect 0 1 - upscale base.h5 -o up.h5 --layers 0:6,2:8
equals_oracle 0:6,2:8 2 up.h5 --pipeline 2
exit $failed
