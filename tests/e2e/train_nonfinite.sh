#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# NaN and Inf in training: updates are skipped and counted, too many in a row end the run
# with their place, and its checkpoints stay as they are.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_inputs
oracle="$srcdir/tests/oracle/model/tiny-mistral"

# poison FOLDER TENSOR OCTAL COUNT: the two bytes COUNT times (all: as often as they fit)
# at the start of a tensor. As halves of an F32 they make it nearly what they are as BF16.
poison() {
    file=$(sed -n "s/.*\"$2\": *\"\([^\"]*\)\".*/\1/p" "$1/model.safetensors.index.json")
    header=$(od -An -tu8 -N8 "$1/$file" | tr -d ' ')
    set -- "$1" "$2" "$3" "$4" $(dd if="$1/$file" bs=1 skip=8 count="$header" 2>/dev/null |
        sed "s/.*\"$2\":{\([^}]*\)}.*/\1/; s/.*\"data_offsets\":\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/")
    n=$4
    [ "$n" = all ] && n=$((($6 - $5) / 2))
    i=0
    while [ $i -lt "$n" ]; do
        # shellcheck disable=SC2059
        printf "$3"
        i=$((i + 1))
    done >bytes
    dd if=bytes of="$1/$file" bs=1 seek=$((8 + header + $5)) conv=notrunc 2>/dev/null
}

# A norm's weight of 3e38: scores overflow in layer 1. And a layer 2 that adds nothing
# forward, but whose gradient overflows: gate 0, up 1e30, down 1e15.
mkdir forward backward
cp "$oracle"/* forward
cp "$oracle"/* backward
poison forward model.layers.1.input_layernorm.weight '\141\177' 4
poison backward model.layers.2.mlp.gate_proj.weight '\000\000' all
poison backward model.layers.2.mlp.up_proj.weight '\112\161' all
poison backward model.layers.2.mlp.down_proj.weight '\143\130' all
for name in forward backward; do
    "$DUSK" import $name -o $name.h5 >/dev/null 2>err || fail "import: $(cat err)"
done

skips() { sed -n 's/^{"step": \([0-9]*\),.*"skipped": \([0-9]*\)}/\1:\2/p' "runs/$1/metrics.jsonl" | paste -sd ' '; }
counted() { # RUN EXPECTED
    found=$(skips "$1")
    if [ "$found" = "$2" ]; then echo "ok: $1: step:skipped $found"; else fail "$1: step:skipped $found, expected $2"; fi
}
state() { # FOLDER KEY VALUE
    found=$("$DUSK" inspect "$1" | sed -n "s/^ *$2  *//p" | head -n 1)
    if [ "$found" = "$3" ]; then echo "ok: $1: $2 $3"; else fail "$1: $2 $found, expected $3"; fi
}

for precision in fp32 bf16; do
    set_all="--set train.precision=$precision --set train.allow_slow_bf16=true --set model.layers=null"
    for layout in "1 1" "2 2" "4 2"; do
        # shellcheck disable=SC2086
        set -- $layout
        run=f-$precision-$1
        # shellcheck disable=SC2086
        expect 5 "$1" "first appears in layer 1, in micro-batch 0; the largest weight there is 2.99" \
            train run.yaml $set_all --set run.name=$run --set model.init=forward.h5 \
            --set parallel.pipeline="$2"
        grep -q "in model.layers.1.input_layernorm.weight; the weights" err || fail "no tensor: $(cat err)"
        counted $run "1:1 2:2 3:3"
        found=$(cd runs/$run/checkpoints && echo *)
        [ "$found" = step-00000003-nonfinite ] || fail "$run: checkpoints: $found"
        "$DUSK" diff runs/$run/checkpoints/step-00000003-nonfinite forward.h5 >out || fail "$run: weights: $(cat out)"
    done
    # shellcheck disable=SC2086
    expect 5 2 "first appears backward, in the gradient of model.layers.2.mlp.gate_proj.weight" \
        train run.yaml $set_all --set run.name=b-$precision --set model.init=backward.h5 \
        --set parallel.pipeline=2 --set train.max_skipped=1
    counted b-$precision 1:1

    # Below the limit a run goes on; the count in a row outlives a resume.
    # shellcheck disable=SC2086
    set_all="$set_all --set run.name=r-$precision --set model.init=forward.h5 --set train.max_skipped=6
        --set checkpoint.every=2 --set checkpoint.keep=1 --set eval.every=0"
    # shellcheck disable=SC2086
    expect 0 1 "step 4: the loss is nan, the update is skipped (4 in a row, 4 in all)" \
        train run.yaml $set_all --set train.steps=4
    state runs/r-$precision/checkpoints/latest step 4
    state runs/r-$precision/checkpoints/latest adam_t 0
    state runs/r-$precision/checkpoints/latest skipped 4
    # shellcheck disable=SC2086
    expect 5 2 "step 6: 6 updates in a row were skipped" \
        train run.yaml $set_all --set train.steps=8
    counted r-$precision "1:1 2:2 3:3 4:4 5:5 6:6"
    [ "$(readlink runs/r-$precision/checkpoints/latest)" = step-00000004 ] || fail "latest was moved"
    # Neither kept nor resumed from as a checkpoint of the run.
    # shellcheck disable=SC2086
    expect 5 1 "resumed from runs/r-$precision/checkpoints/step-00000004 at step 4" \
        train run.yaml $set_all --set train.steps=8
done
exit $failed
