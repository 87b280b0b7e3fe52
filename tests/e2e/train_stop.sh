#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Signals: USR1 to mpirun, TERM or USR1 to a process alone: saved, exit 75, and the same
# command goes on to the same bits. A killed job leaves a lock that the next one takes.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_inputs
steps=400
settings="--set train.steps=$steps --set eval.every=0 --set checkpoint.keep=2"

# wait_for_step RUN: until the run has done a few steps.
wait_for_step() {
    for _ in $(seq 300); do
        [ -s "runs/$1/metrics.jsonl" ] && [ "$(wc -l <"runs/$1/metrics.jsonl")" -ge 3 ] && return
        sleep 0.1
    done
    fail "$1: no steps within 30 s"
}

# shellcheck disable=SC2086
stop() { # NAME SIGNAL RANKS SETTING
    if [ "$3" -eq 1 ]; then
        "$DUSK" train run.yaml $settings --set run.name="$1" >out 2>err </dev/null &
    else
        "$MPIRUN" $oversubscribe -n "$3" "$DUSK" train run.yaml $settings \
            --set run.name="$1" --set "$4" >out 2>err </dev/null &
    fi
    pid=$!
    wait_for_step "$1"
    kill -s "$2" $pid
    wait $pid
    code=$?
    done_steps=$(losses "$1" | wc -l)
    if [ $code -ne 75 ] || ! grep -q "stopped by signal" err; then
        fail "$1: SIG$2: exit code $code after $done_steps steps, expected 75"
        cat err
    elif [ "$done_steps" -ge $steps ]; then
        fail "$1: it ran to its end"
    else
        echo "ok: SIG$2 on $3 ranks: exit code 75 after $done_steps steps"
    fi
    [ -e "runs/$1/lock" ] && fail "$1: the lock stays behind"
    expect 0 "$3" "resumed from" train run.yaml $settings --set run.name="$1" \
        --set "${4:-log.every=1}"
    losses "$1" >"$1.bits"
}

# shellcheck disable=SC2086
expect 0 1 - train run.yaml $settings --set run.name=whole
losses whole >whole.bits
stop term TERM 1 ''
same whole.bits term.bits "stopped by TERM"
stop usr1 USR1 2 parallel.pipeline=2
same whole.bits usr1.bits "stopped by USR1"

# Killed: the next job takes the lock over, removes what a dead save left, goes on.
# shellcheck disable=SC2086
"$DUSK" train run.yaml $settings --set checkpoint.every=2 --set run.name=killed >out 2>err </dev/null &
pid=$!
wait_for_step killed
# shellcheck disable=SC2086
expect 2 1 "the run is held by process $pid" train run.yaml $settings --set run.name=killed
kill -s KILL $pid
wait $pid 2>/dev/null
mkdir -p runs/killed/checkpoints/step-00009999.tmp-1
# shellcheck disable=SC2086
expect 0 1 "taking over from process $pid" train run.yaml $settings --set run.name=killed
grep -q "removed .*step-00009999.tmp-1" err || fail "the leftover was not named"
[ -e runs/killed/checkpoints/step-00009999.tmp-1 ] && fail "the leftover is still there"
losses killed >killed.bits
same whole.bits killed.bits "killed"
exit $failed
