#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tokens a second of a training step, beside transformers on PyTorch:
# peer_step.sh SIZE fp32|bf16 [ROUNDS]
#
# One process each, OMP_NUM_THREADS threads (all cores). bf16 is held against the fastest
# of autocast and bf16 weights, each with and without torch.compile; fp32 against fp32
# with and without. All run in turns, ROUNDS times (3); medians and their ratio, and
# the peak memory. PYTHON needs torch and transformers; PEER (peer_step.py) may be any
# script with its options and its JSON. FORMS names other forms ("bf16,--compile ..."),
# STEPS the timed steps of each (3). A form that fails is named and left out.
set -eu
: "${DUSK:=./dusk}" "${PYTHON:=python3}" "${PEER:=$(dirname "$0")/peer_step.py}"
size=$1 precision=$2 rounds=${3:-3} steps=${STEPS:-3}
OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
export OMP_NUM_THREADS OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
case $precision in
fp32) forms=${FORMS:-fp32 fp32,--compile} ;;
bf16) forms=${FORMS:-autocast autocast,--compile bf16 bf16,--compile} ;;
*) echo "peer_step.sh: precision $precision: expected fp32 or bf16" >&2 && exit 2 ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# value NAME FILE: a number of the peer's one object.
value() { sed -n "s/.*\"$1\": *\([0-9.eE+-]*\).*/\1/p" "$2"; }

# row NAME FILE: the median of a row of dusk bench.
row() { tr '{' '\n' <"$2" | sed -n "s/.*\"name\": \"$1\".*\"median\": \([0-9.eE+-]*\).*/\1/p"; }

peer() { # peer FORM: appends tokens/s to FORM.rate, GB to FORM.rss
    # shellcheck disable=SC2046
    if "$PYTHON" "$PEER" "$size" $(echo "$1" | tr ',' ' ') --threads "$OMP_NUM_THREADS" \
        --steps "$steps" >"$folder/said" 2>"$folder/err"; then
        value tokens_s "$folder/said" >>"$folder/$1.rate"
        value peak_rss_gb "$folder/said" >>"$folder/$1.rss"
    else
        echo "peer_step.sh: $1 failed: $(tail -n 1 "$folder/err")" >&2
    fi
}

ours() {
    "$DUSK" bench step --size "$size" --precision "$precision" --no-profile \
        --json "$folder/said" >/dev/null 2>"$folder/err" || {
        cat "$folder/err" >&2
        exit 1
    }
    row tokens "$folder/said" >>"$folder/dusk.rate"
    row "peak memory of a rank" "$folder/said" >>"$folder/dusk.rss"
    row arithmetic "$folder/said" >>"$folder/dusk.gflops"
    row "best product 1024x4096x4096" "$folder/said" >>"$folder/dusk.gemm"
}

median() { sort -g "$1" | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }'; }

for _ in $(seq "$rounds"); do
    ours
    for form in $forms; do
        peer "$form"
    done
done
echo "$size, $precision, $OMP_NUM_THREADS threads, medians of $rounds rounds in turns"
best=0
for form in $forms; do
    [ -s "$folder/$form.rate" ] || continue
    rate=$(median "$folder/$form.rate")
    printf '  %-28s %9.1f tokens/s  %6.2f GB\n' "PyTorch $(echo "$form" | tr ',' ' ')" "$rate" "$(median "$folder/$form.rss")"
    best=$(echo "$rate $best" | awk '{ print ($1 > $2) ? $1 : $2 }')
done
rate=$(median "$folder/dusk.rate")
printf '  %-28s %9.1f tokens/s  %6.2f GB  %.3f of its best product\n' dusk "$rate" \
    "$(median "$folder/dusk.rss")" \
    "$(echo "$(median "$folder/dusk.gflops") $(median "$folder/dusk.gemm")" | awk '{ print $1 / $2 }')"
echo "$rate $best" | awk '{ if ($2 > 0) printf "  %-28s %9.2f\n", "dusk / fastest PyTorch", $1 / $2 }'
