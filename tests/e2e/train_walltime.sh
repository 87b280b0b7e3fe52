#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The end of a job: ten jobs in a row that stop at their time limit end with the bits of
# one long run; a stop during validation leaves the rest of it to the next job; Slurm is
# asked for the time that is left, and told to queue the job again.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_inputs

# A Slurm of scripts: squeue says what is in the file `left`, scontrol notes what it is
# told.
mkdir bin
cat >bin/squeue <<'S'
#!/bin/sh
[ "$*" = "-h -j 4711 -o %L" ] && cat left
S
cat >bin/scontrol <<'S'
#!/bin/sh
echo "$*" >>told
S
chmod +x bin/squeue bin/scontrol
# In front of a real Slurm's: an mpirun that is called by its path puts its own folder
# in front of PATH.
cat >with_slurm <<S
#!/bin/sh
PATH=$folder/bin:\$PATH
export PATH
exec "$DUSK" "\$@"
S
chmod +x with_slurm
DUSK=$folder/with_slurm
settings="--set eval.every=0 --set optim.schedule=constant --set log.every=100"

# Ten jobs of a second each, however many steps they make of it, on layouts in turn. One
# that is held up so long that it has no time for a step says so, and saves nothing new.
echo 0:01 >left
SLURM_JOB_ID=4711
export SLURM_JOB_ID
stops=0 tries=0
while [ $stops -lt 10 ] && [ $tries -lt 20 ]; do
    ranks=$((1 << stops % 3)) tries=$((tries + 1))
    # shellcheck disable=SC2086
    on $ranks train run.yaml $settings --set run.name=chain --set train.steps=100000 \
        --set parallel.pipeline=$ranks --set run.requeue=true
    [ $code -eq 93 ] && grep -q "leaves no time for a step" err && continue
    stops=$((stops + 1))
    saves=$(grep -c '^saved ' err)
    echo "job $stops, $ranks ranks: exit code $code, $(losses chain | wc -l) steps, $saves saves"
    if [ $code -ne 75 ] || [ "$saves" -ne 1 ] || ! grep -q "0:01 left by Slurm's limit" err ||
        ! grep -q "stopped by the time limit at step .* of 100000, all is saved" err; then
        fail "job $stops: expected exit code 75 and one save: $(cat err)"
        break
    fi
done
[ "$(sort told | uniq -c | tr -s ' ')" = " $stops requeue 4711" ] || fail "scontrol: $(cat told)"
steps=$(losses chain | wc -l)
losses chain >chain.bits
unset SLURM_JOB_ID
# shellcheck disable=SC2086
expect 0 1 - train run.yaml $settings --set run.name=whole --set train.steps="$steps"
losses whole >whole.bits
same whole.bits chain.bits "$stops jobs, $steps steps"
on 1 diff runs/whole/checkpoints/latest runs/chain/checkpoints/latest
[ $code -eq 0 ] || fail "the chain's weights or moments differ: $(cat out err)"

# The time counts from the start of the process, which here has slept before.
sh -c 'sleep 1; exec "$0" "$@"' "$DUSK" train run.yaml --set run.name=late \
    --set run.walltime=0:01 >out 2>err
code=$?
[ $code -eq 93 ] && grep -q "leaves no time for a step" err ||
    fail "walltime counts from the start: exit code $code: $(cat err)"
[ -e runs/late/lock ] && fail "late: the lock stays behind"
echo UNLIMITED >left
SLURM_JOB_ID=4711 "$DUSK" train run.yaml --set run.name=free --set train.steps=2 >out 2>err ||
    fail "no limit: $(cat err)"
grep -q "no limit that squeue says" err || fail "no limit: $(cat err)"

# Stopped during validation, which takes most of the time here: its rest is done by the
# next job, all else as in a run without a stop.
valid='data.valid=[{name: held, path: text.valid.h5}, {name: all, path: text.h5}]'
# What is in metrics.jsonl, without times.
figures() {
    losses "$1"
    grep '"eval_' "runs/$1/metrics.jsonl"
}
expect 0 1 - train run.yaml --set run.name=judged --set eval.every=1 --set "$valid" \
    --set train.steps=12 --set checkpoint.best=true
figures judged >judged.figures
rm -f told
cut=no tries=0
while [ $cut = no ] && [ $tries -lt 5 ]; do
    tries=$((tries + 1))
    rm -rf runs/cut
    SLURM_JOB_ID=4711 "$DUSK" train run.yaml --set run.name=cut --set eval.every=1 \
        --set "$valid" --set train.steps=12 --set checkpoint.best=true \
        --set run.requeue=true >out 2>err </dev/null &
    pid=$!
    for _ in $(seq 300); do
        grep -qs '"step": 3, "eval_all' runs/cut/metrics.jsonl && break
        sleep 0.02
    done
    sleep 0.0$tries
    kill -s TERM $pid
    wait $pid
    code=$?
    [ $code -eq 75 ] || fail "stopped in validation: exit code $code: $(cat err)"
    last=$(losses cut | tail -n 1 | cut -d' ' -f1)
    grep -q "\"step\": $last, \"eval_all" runs/cut/metrics.jsonl || cut=yes
done
[ $cut = yes ] || fail "no validation was met in 5 tries"
[ -e told ] && fail "TERM queued the job again: $(cat told)"
[ "$(grep -c '^saved ' err)" -eq 1 ] || fail "stopped in validation: saved more than once"
echo "ok: stopped during the validation of step $last, in try $tries"
expect 0 1 "resumed from" train run.yaml --set run.name=cut --set eval.every=1 --set "$valid" \
    --set train.steps=12 --set checkpoint.best=true
figures cut >cut.figures
same judged.figures cut.figures "stopped during validation"
[ "$(readlink runs/cut/checkpoints/best)" = "$(readlink runs/judged/checkpoints/best)" ] ||
    fail "best is $(readlink runs/cut/checkpoints/best)"
exit $failed
