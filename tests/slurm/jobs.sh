#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The job files of jobs/ run as they are under a Slurm of two virtual nodes, with the
# embedded example; the training job is stopped once by USR1, requeues itself and ends
# where one without a stop ends. Skipped where such a Slurm cannot be started.
set -u
: "${DUSK:?names the program}"
export DUSK
source=$(cd "${srcdir:-.}" && pwd)
. "$source/tests/slurm/cluster.sh"
if ! cluster_possible; then
    echo "skipped: needs root, slurmctld, slurmd, slurm-client, libpmix-dev"
    exit 77
fi
folder=$(mktemp -d) || exit 99
trap 'cluster_stop "$folder/slurm"; rm -rf "$folder"' EXIT
if ! cluster_start "$folder/slurm" 2; then
    echo "skipped: the local Slurm does not come up"
    tail -n 3 "$folder"/slurm/*.log
    exit 77
fi

# A copy of what the jobs name, so that they run from its top as from a checkout's.
mkdir -p "$folder/top/configs" "$folder/top/jobs"
cp -r "$source/configs/quickstart" "$folder/top/configs"
cp "$source"/jobs/*.sbatch "$folder/top/jobs"
chmod -R u+w "$folder/top"
cd "$folder/top" || exit 99

fail() {
    echo "FAIL: $*"
    tail -n 40 ./*.log "$folder"/slurm/*.log
    exit 1
}

# wait_for JOB STATE...: until the job is in one of the states; it is printed.
wait_for() {
    job=$1
    shift
    tries=0
    while [ $tries -lt 600 ]; do
        shown=$(scontrol -o show job "$job")
        state=$(echo "$shown" | sed -n 's/.* JobState=\([A-Z_]*\) .*/\1/p')
        # A node that had not cleaned up after a job's last start refuses the next one,
        # and Slurm holds the job until somebody lets it go.
        case $shown in
        *"launch_failed_requeued_held"* | *"Reason=JobHeld"*)
            echo "held: $(echo "$shown" | sed -n 's/.* Reason=\([^ ]*\) .*/\1/p')"
            scontrol release "$job"
            ;;
        esac
        for wanted; do
            [ "$state" = "$wanted" ] && return 0
        done
        tries=$((tries + 1))
        sleep 0.5
    done
    return 1
}

done_states="COMPLETED FAILED CANCELLED TIMEOUT NODE_FAIL"

job=$(sbatch --parsable --export=ALL,OUT=work jobs/import-upscale.sbatch) || fail "sbatch"
wait_for "$job" $done_states && [ "$state" = COMPLETED ] || fail "import-upscale: $state"
[ -e work/base.h5 ] && [ -e work/upscaled.h5 ] || fail "import-upscale made no checkpoint"
echo "ok: import-upscale.sbatch on 2 nodes"

train() { # train OUT: submits the training job
    sbatch --parsable --export=ALL,OUT="$1",STEPS=8 jobs/pretrain.sbatch
}

mkdir straight stopped
for out in straight stopped; do
    ln -s "$PWD/work/base.h5" "$PWD/work/upscaled.h5" "$out"
done

job=$(train straight) || fail "sbatch"
wait_for "$job" $done_states && [ "$state" = COMPLETED ] || fail "pretrain: $state"
[ "$(grep -c '"loss"' straight/pretrain/metrics.jsonl)" -eq 8 ] || fail "pretrain: not 8 steps"
echo "ok: pretrain.sbatch on 2 nodes"

job=$(train stopped) || fail "sbatch"
tries=0
until [ "$(grep -c '"loss"' stopped/pretrain/metrics.jsonl 2>/dev/null)" -ge 2 ] 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || fail "pretrain: no second step"
    sleep 0.2
done
# To the steps, not to the batch shell, as --signal does it.
scancel --signal=USR1 "$job"
wait_for "$job" PENDING $done_states
[ "$state" = PENDING ] || fail "pretrain: $state after USR1, expected a requeued job"
steps=$(grep -c '"loss"' stopped/pretrain/metrics.jsonl)
[ "$steps" -lt 8 ] || fail "pretrain: not stopped early"
echo "ok: stopped by USR1 after $steps steps, requeued"
# Slurm holds it back for two minutes. Not at once, though: nodes refuse a job that
# starts in the same second in which its last start was revoked.
sleep 3
scontrol update JobId="$job" StartTime=now
wait_for "$job" $done_states && [ "$state" = COMPLETED ] || fail "pretrain after requeue: $state"

"$DUSK" diff straight/pretrain/checkpoints/latest stopped/pretrain/checkpoints/latest ||
    fail "the stopped and resumed run differs from the straight one"
echo "ok: resumed to the same weights"
