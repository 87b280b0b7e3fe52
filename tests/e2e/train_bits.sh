#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The same run on every layout: losses, gradient norms and weights have the same bits for
# every pipeline, split, schedule and thread count, and from run to run.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_inputs

train() { # NAME RANKS SETTING...
    name=$1 ranks=$2
    shift 2
    settings=
    for s in "$@"; do settings="$settings --set $s"; done
    # shellcheck disable=SC2086
    expect 0 "$ranks" - train run.yaml --set run.name="$name" $settings
    losses "$name" >"$name.bits"
    [ "$(wc -l <"$name.bits")" -eq 6 ] || fail "$name: expected 6 steps in metrics.jsonl"
}
same_run() { # NAME LIKE: losses, validation and the whole checkpoint but its settings
    same "$1.bits" "$2.bits" "losses"
    for run in "$1" "$2"; do
        grep -o '"eval_held_nll_sum.*' "runs/$run/metrics.jsonl" >"$run.valid"
    done
    same "$1.valid" "$2.valid" "validation"
    on 1 diff "runs/$1/checkpoints/latest" "runs/$2/checkpoints/latest"
    [ $code -eq 0 ] || fail "weights of $1 and $2 differ: $(cat out err)"
}

layouts() { # PREFIX SETTING...: the same bits for every way to spread the work
    x=$1
    shift
    train "${x}p1" 1 "$@"
    train "${x}p1again" 1 "$@"
    same_run "${x}p1again" "${x}p1"
    train "${x}p2" 2 parallel.pipeline=2 "$@"
    same_run "${x}p2" "${x}p1"
    train "${x}p4" 4 parallel.pipeline=4 "$@"
    same_run "${x}p4" "${x}p1"
    train "${x}p2gpipe" 2 parallel.pipeline=2 parallel.schedule=gpipe "$@"
    same_run "${x}p2gpipe" "${x}p1"
    train "${x}p3uneven" 3 parallel.pipeline=3 'parallel.split=[1,4,1]' "$@"
    same_run "${x}p3uneven" "${x}p1"
    OMP_NUM_THREADS=2 train "${x}p1threads" 1 "$@"
    same_run "${x}p1threads" "${x}p1"

    train "${x}d2" 2 "$@"
    train "${x}d2again" 2 "$@"
    same_run "${x}d2again" "${x}d2"
    train "${x}p2d2" 4 parallel.pipeline=2 "$@"
    same_run "${x}p2d2" "${x}d2"
    train "${x}p3d2" 6 parallel.pipeline=3 parallel.schedule=gpipe "$@"
    same_run "${x}p3d2" "${x}d2"
}
layouts ""
bf16="train.precision=bf16 train.allow_slow_bf16=true"
# shellcheck disable=SC2086
layouts b $bf16
# shellcheck disable=SC2086
OMP_NUM_THREADS=2 train bp2threads 2 parallel.pipeline=2 $bf16
same_run bp2threads bp1
# shellcheck disable=SC2086
train bm2 1 train.micro_batch=2 $bf16
# shellcheck disable=SC2086
OMP_NUM_THREADS=2 train bm2p2 2 parallel.pipeline=2 train.micro_batch=2 $bf16
same_run bm2p2 bm2

# Another data degree changes the order of sums only.
paste p1.bits d2.bits | awk '
    function off(a, b) { return a > b ? (a - b) / a : (b - a) / a }
    { l = off($2, $6); g = off($4, $8); if (l > L) L = l; if (g > G) G = g }
    END { printf "data 1 and 2: losses %.2g (5e-6 allowed), gradient norms %.2g (2e-4)\n", L, G
          exit !(L <= 5e-6 && G <= 2e-4) }' || fail "data degrees differ"

# bf16 stays near fp32, and is not fp32.
paste p1.bits bp1.bits | awk '
    { l = ($2 - $6) / $2; if (l < 0) l = -l; if (l > L) L = l }
    END { printf "fp32 and bf16: losses %.2g (1e-3 allowed, not 0)\n", L; exit !(L > 0 && L <= 1e-3) }' ||
    fail "precisions differ"

# It does learn, and the rate is the schedule's.
awk 'NR == 1 && $3 != 0 { exit 1 } NR == 3 && $3 != 0.001 { exit 1 }' p1.bits ||
    fail "learning rates"
awk 'NR == 1 { first = $2 } END { exit !($2 < first) }' p1.bits || fail "the loss did not fall"
exit $failed
