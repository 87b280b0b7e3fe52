#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The CPU level of the products is chosen once: it lies in the run's folder and its
# checkpoints, a resumed run keeps it, and says so when it cannot or need not.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_inputs
level() { sed -n 's/^  products: //p' "runs/$1/run.yaml"; }
short="--set train.steps=2 --set eval.every=0"
long="--set train.steps=4 --set eval.every=0"

# shellcheck disable=SC2086
{
    expect 0 1 - train run.yaml $short --set run.name=here
    here=$(level here)
    [ -n "$here" ] && [ "$here" != auto ] || fail "run.yaml of a run says \"$here\""
    if [ "$here" = generic ]; then
        echo "this CPU has no level below generic: the rest is left out"
        exit $failed
    fi
    expect 0 2 - train run.yaml $long --set run.name=whole --set train.products=generic \
        --set parallel.pipeline=2
    expect 0 1 - train run.yaml $short --set run.name=chain --set train.products=generic
    expect 0 1 "products stay at CPU level generic, as in the checkpoint; this job has $here" \
        train run.yaml $long --set run.name=chain
    [ "$(level chain)" = generic ] || fail "the resumed run's level: $(level chain)"
    losses whole >whole.bits
    losses chain >chain.bits
    same whole.bits chain.bits "a run at level generic, whole and resumed"
    on 1 diff runs/whole/checkpoints/latest runs/chain/checkpoints/latest
    [ $code -eq 0 ] || fail "weights or moments differ: $(cat out err)"

    expect 0 1 "bits may differ" train run.yaml $long --set run.name=chain \
        --set train.steps=5 --set "train.products=$here"
    [ "$(level chain)" = "$here" ] || fail "a level that was asked for: $(level chain)"
    if [ "$here" != amx_bf16 ]; then
        expect 2 2 "the lowest CPU of this job has $here" train run.yaml $short \
            --set run.name=more --set train.products=amx_bf16
    fi
    expect 2 1 "train.products: expected one of auto, generic" train run.yaml $short \
        --set train.products=fast
}
exit $failed
