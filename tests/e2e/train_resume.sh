#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Stopping and going on: a resumed run equals the uninterrupted one bit for bit, on any
# layout of the same data degree; signals save and exit 75; damage falls back.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_inputs
set_all="--set train.steps=8 --set checkpoint.every=2 --set eval.every=0"

# shellcheck disable=SC2086
{
    expect 0 1 - train run.yaml $set_all --set run.name=whole
    losses whole >whole.bits

    # Three jobs of one run, each on another layout.
    for jobs in "4 1 1" "6 2 2" "8 4 4"; do
        # shellcheck disable=SC2086
        set -- $jobs
        expect 0 "$2" - train run.yaml --set train.steps=8 --set checkpoint.every=2 \
            --set eval.every=0 --set run.name=chain --set parallel.pipeline="$3" \
            --set checkpoint.keep=3
        [ "$1" -eq 8 ] || {
            # Undo what lies beyond this job's end, as if it had been killed there.
            for s in runs/chain/checkpoints/step-*; do
                [ "$(basename "$s")" \> "step-0000000$1" ] && rm -r "$s"
            done
        }
    done
    losses chain >chain.bits
    same whole.bits chain.bits "chain of 3 jobs on 3 layouts"
    on 1 diff runs/whole/checkpoints/latest runs/chain/checkpoints/latest
    [ $code -eq 0 ] || fail "the chain's weights or moments differ: $(cat out err)"

    # Nothing left to do.
    expect 0 1 "nothing to do" train run.yaml $set_all --set run.name=whole
    # Another data degree loads it too.
    rm -r runs/whole/checkpoints/step-00000008
    expect 0 2 "resumed from" train run.yaml $set_all --set run.name=whole
    [ "$(losses whole | wc -l)" -eq 8 ] || fail "metrics.jsonl was not cut back"

    # What a resumed run must keep.
    rm -r runs/whole/checkpoints/step-00000008
    expect 2 1 "run.seed was 7, now it is 8" train run.yaml $set_all --set run.name=whole \
        --set run.seed=8
    expect 2 2 "data.seq_len was 32, now it is 16" train run.yaml $set_all \
        --set run.name=whole --set data.seq_len=16
    expect 0 1 "run.seed was 7, now it is 8 (allowed)" train run.yaml $set_all \
        --set run.name=whole --set run.seed=8 --set 'checkpoint.resume_allow=[run.seed]'
    expect 2 1 "checkpoint.resume is never" train run.yaml $set_all --set run.name=whole \
        --set checkpoint.resume=never

    # Retention: the newest 2, and every 4th.
    expect 0 1 - train run.yaml $set_all --set run.name=keep --set checkpoint.keep=1 \
        --set checkpoint.keep_every=4
    kept=$(cd runs/keep/checkpoints && echo *)
    [ "$kept" = "latest step-00000004 step-00000008" ] || fail "kept: $kept"
    [ "$(readlink runs/keep/checkpoints/latest)" = step-00000008 ] || fail "latest"

    # A flipped byte in a weight: found before the first step, the one before is used.
    printf '\377' | dd of=runs/keep/checkpoints/step-00000008/state.h5 bs=1 seek=300000 \
        conv=notrunc 2>/dev/null
    expect 0 2 "CHECKPOINT NOT USABLE" train run.yaml $set_all --set run.name=keep \
        --set parallel.pipeline=2
    losses keep >keep.bits
    same whole.bits keep.bits "after a damaged checkpoint"
    expect 3 1 "step-00000004" train run.yaml $set_all --set run.name=other \
        --set checkpoint.resume=runs/keep/checkpoints/step-00000004x
    # All damaged: never a silent new start.
    for s in runs/keep/checkpoints/step-*; do
        dd if=/dev/zero of="$s/state.h5" bs=1k count=4 conv=notrunc 2>/dev/null
    done
    expect 3 2 "none of its 3 checkpoints" train run.yaml $set_all --set run.name=keep
}

# bf16: the fp32 masters are what a checkpoint holds, so that a chain of jobs on other
# layouts has the bits of one, and either precision goes on where the other stopped.
bf16="--set train.precision=bf16 --set train.allow_slow_bf16=true"
# shellcheck disable=SC2086
{
    expect 0 1 - train run.yaml $set_all $bf16 --set run.name=bwhole
    losses bwhole >bwhole.bits
    expect 0 2 - train run.yaml $set_all $bf16 --set run.name=bchain --set parallel.pipeline=2 \
        --set checkpoint.keep=0
    rm -r runs/bchain/checkpoints/step-00000008 runs/bchain/checkpoints/step-00000006
    expect 0 4 "resumed from" train run.yaml $set_all $bf16 --set run.name=bchain \
        --set parallel.pipeline=4 --set checkpoint.keep=0
    losses bchain >bchain.bits
    same bwhole.bits bchain.bits "bf16, chain of 2 jobs on 2 layouts"
    on 1 diff runs/bwhole/checkpoints/latest runs/bchain/checkpoints/latest
    [ $code -eq 0 ] || fail "bf16: the chain's weights or moments differ: $(cat out err)"
    # Data 2, likewise.
    expect 0 2 - train run.yaml $set_all $bf16 --set run.name=bd2 --set checkpoint.keep=0
    losses bd2 >bd2.bits
    rm -r runs/bd2/checkpoints/step-00000008 runs/bd2/checkpoints/step-00000006
    expect 0 4 "resumed from" train run.yaml $set_all $bf16 --set run.name=bd2 \
        --set parallel.pipeline=2
    losses bd2 >bd2again.bits
    same bd2.bits bd2again.bits "bf16, data 2"

    # Masters pass through a run of the other precision in every bit.
    cross() { # RUN SETTINGS SAYS...: a run that does nothing but load and save
        expect 0 1 "$3" train run.yaml --set run.name="$1" --set train.steps=9 \
            --set checkpoint.every=9 --set eval.every=0 --set optim.schedule=constant \
            --set optim.lr=1e-300 --set optim.warmup=0 $2
    }
    cp -r runs/bwhole runs/tofp32
    cross tofp32 "--set train.precision=fp32" "train.precision was bf16, now it is fp32"
    grep -q "products were computed by " err || fail "no warning of other products"
    cp -r runs/tofp32 runs/tobf16
    rm -r runs/tobf16/checkpoints/step-00000008
    expect 0 1 "train.precision was fp32, now it is bf16" train run.yaml --set run.name=tobf16 \
        --set train.steps=10 --set checkpoint.every=10 --set eval.every=0 \
        --set optim.schedule=constant --set optim.lr=1e-300 --set optim.warmup=0 $bf16
    on 1 diff runs/bwhole/checkpoints/step-00000008 runs/tobf16/checkpoints/step-00000010 --json
    # Steps 9 and 10 changed every moment, and no weight.
    grep -o '"name": "[^"]*"' out >names
    grep -v '"exp_avg' names && fail "weights changed on their way"
    [ "$(grep -c '"exp_avg' names)" -ge 100 ] || fail "nothing was trained on the way: $(cat out err)"
}
exit $failed
