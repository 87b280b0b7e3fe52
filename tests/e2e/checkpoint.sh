#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# upscale, inspect and diff as a user meets them: results, exit codes, bad input.
. "${srcdir:-.}/tests/e2e/lib.sh"
oracle=$srcdir/tests/oracle/model

# has TEXT WHAT: the last output holds TEXT.
has() {
    if grep -qF -- "$1" out; then
        echo "ok: $2: \"$1\""
    else
        fail "$2: no \"$1\" in"
        cat out
    fi
}

expect 0 1 - import "$oracle/tiny-mistral" -o base.h5
expect 0 1 - import "$oracle/tiny-mistral-bf16" -o rounded.h5

# Three ways to the same weights; the same bytes from one rank and two.
expect 0 1 - upscale base.h5 -o copy.h5 --drop 1
has "4 layers -> 6 (0:3,1:4)" upscale
expect 0 2 - upscale base.h5 -o copy2.h5 --layers 0:3,1:4
same copy.h5 copy2.h5 "1 and 2 ranks"
expect 0 2 - upscale base.h5 -o link.h5 --layers 0:3,1:4 --mode link
has "linked to base.h5" upscale
expect 0 1 - diff copy.h5 link.h5
has "0 of 57 tensors differ" diff
expect 0 1 - upscale link.h5 -o whole.h5 --layers 0:6
expect 0 1 - diff copy.h5 whole.h5

expect 2 1 "exists; --force replaces it" upscale base.h5 -o copy.h5 --drop 1
expect 0 1 - upscale base.h5 -o copy.h5 --drop 1 --force
same copy.h5 copy2.h5 "replaced"
expect 2 1 "out of bounds" upscale base.h5 -o new.h5 --layers 0:5
expect 2 2 "is empty" upscale base.h5 -o new.h5 --layers 0:2,2:2
expect 2 1 "expected 1 to 3" upscale base.h5 -o new.h5 --drop 4
expect 2 1 "expected one of --layers RANGES, --drop M and --preset solar" upscale base.h5 -o new.h5
expect 2 1 "expected one of" upscale base.h5 -o new.h5 --drop 1 --layers 0:4
expect 2 1 "expected copy or link" upscale base.h5 -o new.h5 --drop 1 --mode move
expect 2 1 "expected -o NEW" upscale base.h5 --drop 1
expect 3 2 "absent.h5" upscale absent.h5 -o new.h5 --drop 1
expect 4 2 "No such file" upscale base.h5 -o absent/new.h5 --drop 1
expect 2 1 "would point to" upscale base.h5 -o base.h5 --drop 1 --mode link --force
if [ -e new.h5 ] || ls ./*.tmp-* >/dev/null 2>&1; then
    fail "something was left behind:"
    ls
fi

expect 0 1 - inspect copy.h5 --verify
has "0:3,1:4" inspect
has "base.h5 (4 layers, seal " inspect
has "[6, 64, 64]" inspect
has "every block matches" inspect
expect 0 1 - inspect copy.h5 --json
has '"layers": "0:3,1:4"' "inspect --json"
has '{"name": "/model/layers/q_proj", "dtype": "F32", "shape": [6, 64, 64], "elements": 24576, "bytes": 98304}' \
    "inspect --json"
expect 0 1 - inspect link.h5
has "linked_to" inspect
expect 0 1 - inspect "$oracle/tiny-mistral-bf16/model.safetensors"
has "model.layers.3.mlp.up_proj.weight" inspect
expect 3 1 "is this a safetensors file?" inspect "$srcdir/COPYING"
expect 3 1 "No such file" inspect absent.h5
expect 3 1 "dusk import" inspect "$oracle/tiny-mistral"

expect 1 1 - diff base.h5 rounded.h5
has "39 of 39 tensors differ" diff
expect 1 1 - diff base.h5 copy.h5 --json
has '"shape": "num_hidden_layers"' "diff --json"
has '{"name": "layers.5.q_proj", "how": "only in B", "elements": 4096' "diff --json"
expect 3 1 "absent.h5" diff base.h5 absent.h5
expect 2 1 "see dusk diff --help" diff base.h5

# A training checkpoint (a folder) against the base and itself.
expect 0 1 - tokens "$srcdir/COPYING" -o text.h5 --tokenizer base.h5
cat >run.yaml <<'Y'
run: {name: a, dir: runs, seed: 7}
model: {init: base.h5}
data: {train: [{path: text.h5}], seq_len: 32}
train: {steps: 2, global_batch: 4, micro_batch: 1}
optim: {lr: 1.0e-3}
Y
expect 0 1 - train run.yaml
expect 1 1 - diff base.h5 runs/a/checkpoints/latest
has "39 of 39 tensors differ; " diff
expect 0 1 - diff runs/a/checkpoints/step-00000002 runs/a/checkpoints/latest/state.h5
has "0 of 117 tensors differ, moments included" diff
expect 0 1 - inspect runs/a/checkpoints/latest --verify
has "adam_t                   2" inspect
has "data.seq_len             32" inspect
expect 0 1 - inspect text.h5 --verify
has "dusk token set" inspect

# A link moves with its source and knows a changed or missing one.
mkdir pair && mv base.h5 link.h5 pair/
expect 0 1 - diff pair/link.h5 copy.h5
cp rounded.h5 pair/base.h5
expect 3 1 "is not the file that was linked" inspect pair/link.h5
rm pair/base.h5
expect 3 2 "pair/base.h5: cannot open" upscale pair/link.h5 -o new.h5 --drop 1

# A flipped byte in a weight, a cut file: named, never used.
size=$(wc -c <copy.h5)
at=$((size / 2))
cp copy.h5 bad.h5
byte=$(dd if=bad.h5 bs=1 skip="$at" count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
printf "$(printf '\\%03o' $((byte ^ 16)))" |
    dd of=bad.h5 bs=1 seek="$at" conv=notrunc 2>/dev/null
expect 3 1 "1 damaged block" inspect bad.h5 --verify
has "damaged: bytes " "inspect --verify"
expect 3 2 "damaged: bytes " upscale bad.h5 -o new.h5 --layers 0:6
expect 3 1 "damaged: bytes " diff bad.h5 copy.h5
cp copy.h5 bad.h5
truncate -s $((size - 1)) bad.h5
expect 3 2 "cut: it has" upscale bad.h5 -o new.h5 --drop 1
truncate -s 100 bad.h5
expect 3 1 "cut: it has 100 bytes" inspect bad.h5
[ ! -e new.h5 ] || fail "new.h5 was left behind"

# No room, no permission.
if [ "$(id -u)" -eq 0 ] && mkdir disk && mount -t tmpfs -o size=512k none disk 2>/dev/null; then
    expect 4 2 "No space left" upscale copy.h5 -o disk/new.h5 --layers 0:6
    [ -z "$(ls disk)" ] || fail "left on the full disk: $(ls disk)"
    umount disk
fi
if [ "$(id -u)" -ne 0 ]; then
    mkdir closed && chmod 555 closed
    expect 4 1 "Permission denied" upscale copy.h5 -o closed/new.h5 --layers 0:6
    chmod 755 closed
fi
exit $failed
