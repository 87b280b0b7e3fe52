# SPDX-License-Identifier: Apache-2.0
# Sourced by the end-to-end tests of training: a scratch folder, dusk on N ranks, and
# checks that say what they compared. $failed is the exit code in the end.
set -u
: "${DUSK:?names the program}"
MPIRUN=${MPIRUN:-mpirun}
srcdir=$(cd "${srcdir:-.}" && pwd)
failed=0
folder=$(mktemp -d) || exit 99
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 99
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0"
oversubscribe=
if "$MPIRUN" --version 2>&1 | grep -qi 'open.*mpi\|open-mpi\|openrte'; then
    oversubscribe=--oversubscribe
fi

fail() {
    echo "FAIL: $*"
    failed=1
}

# on N ARGUMENT...: dusk on N ranks; output in out, errors in err, code in $code.
on() {
    ranks=$1
    shift
    if [ "$ranks" -eq 1 ]; then
        timeout "${DUSK_TIMEOUT:-300}" "$DUSK" "$@" >out 2>err </dev/null
    else
        timeout "${DUSK_TIMEOUT:-300}" "$MPIRUN" $oversubscribe -n "$ranks" "$DUSK" "$@" >out 2>err </dev/null
    fi
    code=$?
}

# expect CODE RANKS TEXT ARGUMENT...: exit code, and TEXT on stderr ("-": any).
expect() {
    want=$1 ranks=$2 text=$3
    shift 3
    on "$ranks" "$@"
    if [ $code -ne "$want" ]; then
        fail "dusk $* on $ranks ranks: exit code $code, expected $want"
        cat err
    elif [ "$text" != - ] && ! grep -qF -- "$text" err; then
        fail "dusk $* on $ranks ranks: stderr without \"$text\":"
        cat err
    else
        echo "ok: dusk $* on $ranks ranks: $code${text:+, \"$text\"}"
    fi
}

# same A B WHAT: two files are equal byte for byte.
same() {
    if cmp -s "$1" "$2"; then
        echo "ok: $3: $1 and $2 are the same"
    else
        fail "$3: $1 and $2 differ"
        diff "$1" "$2" | head -4
    fi
}

# losses RUN: the bits of a run: step, loss, rate and gradient norm of every step.
losses() {
    sed -n 's/^{"step": \([0-9]*\), "loss": \([^,]*\), "lr": \([^,]*\), "grad_norm": \([^,]*\),.*/\1 \2 \3 \4/p' \
        "runs/$1/metrics.jsonl"
}

# The tiny model, its up-scaling and text, as checkpoint and token set.
make_inputs() {
    "$DUSK" import "$srcdir/tests/oracle/model/tiny-mistral" -o base.h5 >/dev/null 2>err &&
        "$DUSK" tokens "$srcdir/COPYING" -o text.h5 --tokenizer base.h5 --valid 0.1 >/dev/null 2>err || {
        echo "FAIL: cannot make the inputs"
        cat err
        exit 1
    }
    cat >run.yaml <<'Y'
run: {name: a, dir: runs, seed: 7}
model: {init: base.h5, layers: "0:3,1:4"}
data: {train: [{path: text.h5}], valid: [{name: held, path: text.valid.h5}], seq_len: 32}
train: {steps: 6, global_batch: 8, micro_batch: 1}
optim: {lr: 1.0e-3, schedule: cosine, warmup: 2}
eval: {every: 3}
Y
}
