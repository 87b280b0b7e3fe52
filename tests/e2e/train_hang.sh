#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The watchdog: a rank that is stopped, and one that waits for a file system for ever.
# The job ends with 6 within 10 s of the timeout and says where each rank is, on stderr
# and in status.json; the next start takes that away.
. "${srcdir:-.}/tests/e2e/lib.sh"
[ -n "$oversubscribe" ] || { echo "skipped: needs Open MPI's mpirun" && exit 77; }
make_inputs
limit=2

# begin RUN SETTING...: 4 ranks in the background; $pid is mpirun's.
begin() {
    run=$1
    shift
    "$MPIRUN" $oversubscribe -n 4 "$DUSK" train run.yaml --set run.name="$run" \
        --set train.steps=100000 --set eval.every=0 --set parallel.pipeline=2 "$@" >out 2>err </dev/null &
    pid=$!
}

# ended RUN WHAT: exit code and time of the job that should hang from $began on.
ended() {
    wait $pid
    code=$?
    seconds=$(($(date +%s) - began))
    [ $code -eq 6 ] || fail "$2: exit code $code, expected 6"
    [ $seconds -le $((limit + 10)) ] || fail "$2: $seconds s, expected at most $((limit + 10)) s"
    echo "ok: $2: exit code $code after $seconds s"
    grep -q '"state": "hung"' "runs/$1/status.json" || fail "$2: no report in status.json"
}

says() { # says FILE TEXT
    if grep -q -- "$2" "$1"; then echo "ok: $1: $2"; else fail "$1 without $2:" && cat "$1"; fi
}

begin stopped --set log.timeout=$limit
for _ in $(seq 300); do
    [ -s runs/stopped/metrics.jsonl ] && [ "$(wc -l <runs/stopped/metrics.jsonl)" -ge 3 ] && break
    sleep 0.1
done
victim=
for child in $(pgrep -P $pid); do
    tr '\0' '\n' <"/proc/$child/environ" | grep -qx OMPI_COMM_WORLD_RANK=2 && victim=$child
done
[ -n "$victim" ] || fail "rank 2 not found among the children of mpirun"
began=$(date +%s)
kill -STOP "$victim"
ended stopped "rank 2 stopped"
cat err
says err 'rank 2 ([^)]*): no answer'
says err 'rank 3 ([^)]*), stage 1, replica 1, training, step [0-9]*: waits for [0-9]* s for '
says err 'of 4 ranks 1 do not answer'
says runs/stopped/status.json '"silent": \[{"rank": *2, *"host"'
[ "$(grep -c '"quiet_s"' runs/stopped/status.json)" -eq 3 ] || fail "not 3 answers: $(cat runs/stopped/status.json)"

# Rank 0 opens a pipe that nobody reads: as an I/O server that does not answer.
mkdir -p runs/pipe
mkfifo runs/pipe/metrics.jsonl
began=$(date +%s)
begin pipe --set log.io_timeout=$limit
ended pipe "rank 0 in a file system that hangs"
says err 'rank 0 ([^)]*), stage 0, replica 0, starting, step 0: has waited for no rank for'
says err 'rank 1 ([^)]*), stage 1, replica 0, starting, step 0: waits for '
says err 'of 4 ranks 0 do not answer'

expect 0 4 - train run.yaml --set run.name=stopped --set train.steps=4 --set eval.every=0 \
    --set parallel.pipeline=2 --set checkpoint.resume=never --set log.timeout=60
[ ! -e runs/stopped/status.json ] || fail "status.json of the hang is still there"
[ ! -e runs/stopped/hang ] || fail "the ranks' answers are still there"
exit $failed
