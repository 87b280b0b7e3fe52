#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checkpoints that cannot be written, that are damaged, that stay and that go: a failed
# save is one loud line and leaves the older ones whole, whatever call fails on whatever
# rank; what is damaged is found before the first step, and the one before is used.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_inputs
settings="--set eval.every=0 --set checkpoint.every=1"

# run NAME CODE RANKS TEXT SETTING...
run() {
    name=$1 want=$2 ranks=$3 text=$4
    shift 4
    set_all=
    for s in "$@"; do set_all="$set_all --set $s"; done
    # shellcheck disable=SC2086
    expect "$want" "$ranks" "$text" train run.yaml --set run.name="$name" $settings $set_all
}

# whole NAME: latest of the run verifies, and nothing half-written lies beside it.
whole() {
    "$DUSK" inspect "runs/$1/checkpoints/latest" --verify >seen 2>&1 ||
        fail "$1: latest is not whole: $(cat seen)"
    left=$(find "runs/$1/checkpoints" -name '*.tmp-*')
    [ -z "$left" ] || fail "$1: left behind: $left"
}

# kept NAME TEXT: what is in its checkpoints folder.
kept() {
    found=$(cd "runs/$1/checkpoints" && echo *)
    [ "$found" = "$2" ] && echo "ok: $1 keeps $2" || fail "$1 keeps $found, expected $2"
}

# ---- what stays ----
# The best loss is step 4's: the rate then is so high that the model gets worse.
rise="optim.schedule=wsd optim.decay=1 optim.warmup=4 optim.min_lr=1e-4 optim.lr=1.0"
# shellcheck disable=SC2086
run best 0 2 - $rise train.steps=8 eval.every=2 checkpoint.keep=1 checkpoint.best=true \
    checkpoint.keep_every=5
best=$(sed -n 's/.*"step": \([0-9]*\), "eval_held_loss": \([^,]*\),.*/\2 \1/p' \
    runs/best/metrics.jsonl | sort -g | sed -n '1s/.* //p')
[ "$best" -lt 8 ] || fail "best: the last step is the best one, which tests nothing"
kept best "best latest step-0000000$best step-00000005 step-00000008"
[ "$(readlink runs/best/checkpoints/best)" = "step-0000000$best" ] || fail "link best"
# A resumed run keeps it too, and a damaged newer checkpoint does not count.
printf '\377' | dd of=runs/best/checkpoints/step-00000008/state.h5 bs=1 seek=300000 \
    conv=notrunc 2>/dev/null
# shellcheck disable=SC2086
run best 0 1 "CHECKPOINT NOT USABLE" $rise train.steps=7 eval.every=2 checkpoint.keep=1 \
    checkpoint.best=true checkpoint.keep_every=5
kept best "best latest step-0000000$best step-00000005 step-00000007 step-00000008"
[ "$(readlink runs/best/checkpoints/best)" = "step-0000000$best" ] || fail "link best, resumed"
[ "$(readlink runs/best/checkpoints/latest)" = step-00000007 ] || fail "link latest, resumed"

# ---- what cannot be written ----
run whole 0 1 - train.steps=8
losses whole >whole.bits
if ${DUSK_COMPILE:-cc -O2} -w -shared -fPIC "$srcdir/tests/support/fail_io.c" -o fail.so -ldl \
    2>err && FAIL_IO=probe LD_PRELOAD=./fail.so "$DUSK" --version >out 2>err &&
    ! nm "$DUSK" 2>/dev/null | grep -q __asan_init; then
    # Every call of a save in turn, a later one each step.
    fails() { # NAME CODE RANKS TEXT ERRNO SETTING...: with FAIL_IO_RANK, FAIL_IO_AT
        FAIL_IO=$folder/failed.$1 FAIL_IO_ERRNO=$5
        export FAIL_IO FAIL_IO_ERRNO
        name=$1 want=$2 ranks=$3 text=$4
        shift 5
        LD_PRELOAD=$folder/fail.so
        export LD_PRELOAD
        run "$name" "$want" "$ranks" "$text" checkpoint.keep=1 "$@"
        unset LD_PRELOAD FAIL_IO FAIL_IO_ERRNO
        said=$(grep -c 'warning: CHECKPOINT NOT SAVED' err)
        failures=$(wc -l <"failed.$name")
        echo "$name: $failures calls failed: $(cut -d' ' -f1 "failed.$name" | sort | uniq -c |
            tr -s '\n ' ' ')"
    }
    FAIL_IO_MOST=200
    export FAIL_IO_MOST
    fails sweep 0 1 "checkpoints can be written again" 5 train.steps=205 \
        checkpoint.on_error=continue
    [ "$said" -eq 200 ] && [ "$failures" -eq 200 ] ||
        fail "sweep: $failures calls failed, $said were told, expected 200"
    cut -d' ' -f1 failed.sweep | sort -u | tr '\n' ' ' >seen
    [ "$(cat seen)" = "fallocate fdatasync fsync mkdir pwrite rename symlink " ] ||
        fail "sweep: failed were $(cat seen)"
    [ "$(losses sweep | wc -l)" -eq 205 ] || fail "sweep: not all steps were done"
    whole sweep
    kept sweep "latest step-00000205"
    # On another rank than the first.
    FAIL_IO_RANK=1
    export FAIL_IO_RANK
    FAIL_IO_MOST=40
    fails second 0 2 "rank 1 (" 28 train.steps=42 checkpoint.on_error=continue \
        parallel.pipeline=2
    [ "$said" -eq 40 ] && [ "$failures" -eq 40 ] ||
        fail "second: $failures calls failed, $said were told, expected 40"
    whole second
    unset FAIL_IO_RANK FAIL_IO_MOST
    # To stop is the default.
    FAIL_IO_AT=400
    export FAIL_IO_AT
    fails stops 4 1 "CHECKPOINT NOT SAVED at step 3" 5 train.steps=8
    whole stops
    kept stops "latest step-00000002"
    # A write that goes wrong without a word: the new one is read back before old ones go.
    FAIL_IO_AT=300
    fails silent 4 1 "does not read back" 0 train.steps=8
    whole silent
    unset FAIL_IO_AT
    run stops 0 1 "resumed from" train.steps=8
    losses stops >stops.bits
    same whole.bits stops.bits "resumed after a save that failed"
else
    echo "skipped: failing calls, which cannot be preloaded here"
fi

# A limit on file sizes (in blocks of 512 bytes) below a checkpoint's 4.3 MB. Open MPI
# has files of its own: no ranks.
(
    ulimit -f 4000
    run limited 4 1 "(ulimit -f)" train.steps=3 checkpoint.on_error=continue
    exit $failed
) || failed=1
[ "$(losses limited | wc -l)" -eq 3 ] || fail "limited: not all steps were done"

if [ "$(id -u)" -eq 0 ] && mkdir -p runs/full/checkpoints &&
    mount -t tmpfs -o size=11m none runs/full/checkpoints 2>/dev/null; then
    # Room for two checkpoints, not for three.
    run full 4 2 "No space left" train.steps=4 checkpoint.on_error=continue checkpoint.keep=0
    [ "$(losses full | wc -l)" -eq 4 ] || fail "full: not all steps were done"
    whole full
    kept full "latest step-00000001 step-00000002"
    mount -o remount,ro runs/full/checkpoints
    run full 4 1 "Read-only file system" train.steps=4
    kept full "latest step-00000001 step-00000002"
    mount -o remount,rw runs/full/checkpoints
    rm -r runs/full/checkpoints/step-00000001
    run full 0 1 - train.steps=3 checkpoint.keep=1
    kept full "latest step-00000003"
    umount runs/full/checkpoints
else
    echo "skipped: a full disk, which needs root and tmpfs"
fi

# ---- what is damaged ----
# The newest of three, then resumed from the one before it.
run good 0 1 - train.steps=5 checkpoint.keep=0
state=checkpoints/step-00000005/state.h5
bytes=$(wc -c <"runs/good/$state")
ranks_then=2
damage() { # NAME SAYS COMMAND...: a run whose newest checkpoint COMMAND damages
    rm -rf runs/bad
    cp -r runs/good runs/bad
    name=$1 says=$2
    shift 2
    (cd runs/bad && "$@") || fail "$name: $*"
    cmp -s "runs/good/$state" "runs/bad/$state" && fail "$name: nothing was damaged"
    run bad 0 $ranks_then "CHECKPOINT NOT USABLE, trying the one before: " train.steps=5 \
        parallel.pipeline=$ranks_then
    ranks_then=1
    grep -q "NOT USABLE.*step-00000005.*$says" err || fail "$name: not named: $(cat err)"
    grep -q "resumed from .*step-00000004" err || fail "$name: not from step 4: $(cat err)"
    on 1 diff runs/good/checkpoints/latest runs/bad/checkpoints/latest
    [ $code -eq 0 ] || fail "$name: ends elsewhere: $(cat out err)"
    echo "ok: $name"
}
flip() { # OFFSET
    byte=$(dd if=$state bs=1 skip="$1" count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
    printf "$(printf '\\%03o' $((byte ^ 8)))" | dd of=$state bs=1 seek="$1" conv=notrunc 2>/dev/null
}
swap() { # OFFSET COUNT: a part of the checkpoint before it, the same place
    dd if=checkpoints/step-00000004/state.h5 of=$state bs=4096 skip="$1" seek="$1" count="$2" \
        conv=notrunc 2>/dev/null
}
damage "a bit of a weight" "damaged: bytes .* of .*/model/" flip 300000
damage "a bit of a moment" "damaged: bytes .* of .*/optimizer/" flip $((bytes * 2 / 3))
damage "a bit of HDF5's structure" "damaged: its structure" flip 4200
damage "a bit of the seal" "damaged: the seal" flip 100
damage "its last byte cut" "cut: it has" truncate -s $((bytes - 1)) $state
damage "cut to nothing" "cut: it has 0 bytes" truncate -s 0 $state
damage "zeros" "its start is lost" dd if=/dev/zero of=$state bs="$bytes" count=1 conv=notrunc status=none
damage "a part of another checkpoint" "damaged: bytes" swap 80 40
damage "the start of another checkpoint" "damaged" swap 0 1
damage "all of another checkpoint" "is the checkpoint of step 4" \
    cp checkpoints/step-00000004/state.h5 $state
damage "its file gone" "without state.h5" rm $state
# Leftovers of a dead save are named, and go, whatever became of the lock.
mkdir runs/good/checkpoints/step-00000009.tmp-77-0
run good 0 1 "removed runs/good/checkpoints/step-00000009.tmp-77-0" train.steps=5
[ -e runs/good/checkpoints/step-00000009.tmp-77-0 ] && fail "the leftover is still there"

# ---- moments of what a run starts from ----
# inspected FILE KEY: a number of the checkpoint's state.
inspected() {
    "$DUSK" inspect "$1" | sed -n "s/^ *$2  *\([0-9]*\)\$/\1/p" | head -n 1
}
grown="model.init=runs/good/checkpoints/latest model.layers=0:4,2:6 train.steps=1 optim.warmup=0"
# shellcheck disable=SC2086
{
    run reset 0 1 - $grown
    run map 0 2 - $grown model.optimizer=map
}
[ "$(inspected runs/reset/checkpoints/latest adam_t)" = 1 ] || fail "reset: adam_t"
[ "$(inspected runs/map/checkpoints/latest adam_t)" = 6 ] || fail "map: adam_t"
[ "$(inspected runs/map/checkpoints/latest step)" = 1 ] || fail "map: step"
run none 3 2 "has no optimizer state for model.optimizer: map" model.optimizer=map
run map 2 1 "model.optimizer was map, now it is reset" train.steps=2 optim.warmup=0 \
    model.init=runs/good/checkpoints/latest model.layers=0:4,2:6
exit $failed
