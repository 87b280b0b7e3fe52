#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# How fast import and export are beside cp of the same bytes: convert.sh [ROUNDS [RANKS]]
#
# Makes a Mistral folder of the 7B's width (BF16, LAYERS layers, sharded) under TMPDIR,
# then alternately times cp, import and export, each synced to disk, and prints GB/s,
# the ratio to cp of the same round, and the peak resident memory of a process. The
# medians of the ratios are what counts: a disk's rate changes within minutes. Needs 4
# times the model's size free.
set -eu
rounds=${1:-3}
ranks=${2:-1}
layers=${LAYERS:-4}
: "${DUSK:=./dusk}" "${MAKE_HF:=tests/support/make_hf}" "${MPIRUN:=mpirun}"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$MAKE_HF" "$folder/model" layers="$layers" hidden=4096 ff=14336 heads=32 kv_heads=8 \
    head_dim=128 vocab=32000 shard_bytes=1e9
bytes=$(cat "$folder"/model/*.safetensors | wc -c)
sync

run_dusk() {
    if [ "$ranks" -eq 1 ]; then
        "$DUSK" "$@" 2>"$folder/err" &
    else
        "$MPIRUN" --oversubscribe -n "$ranks" "$DUSK" "$@" 2>"$folder/err" &
    fi
    wait_peak $!
}

# Waits for a process and leaves the largest resident memory of it or its children,
# in MB, in $peak.
wait_peak() {
    peak=0
    while kill -0 "$1" 2>/dev/null; do
        for p in "$1" $(cat /proc/"$1"/task/*/children 2>/dev/null || :); do
            now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' /proc/"$p"/status \
                2>/dev/null || :)
            [ "${now:-0}" -gt "$peak" ] && peak=$now
        done
        sleep 0.05
    done
    peak=$((peak / 1024))
    wait "$1" || {
        cat "$folder/err" >&2
        exit 1
    }
}

copy() {
    cp -r --reflink=never "$folder/model" "$folder/copy"
    sync "$folder"/copy/*
}

timed() {
    start=$(date +%s.%N)
    "$@"
    seconds=$(echo "$(date +%s.%N) $start" | awk '{printf "%.3f", $1 - $2}')
}

echo "round  what    seconds    GB/s   of cp  peak MB"
round=1
while [ "$round" -le "$rounds" ]; do
    peak=0
    timed copy
    cp_seconds=$seconds
    for what in cp import export; do
        case $what in
        import) timed run_dusk import "$folder/model" -o "$folder/model.h5" ;;
        export) timed run_dusk export "$folder/model.h5" -o "$folder/again" \
            --shard-bytes 1e9 ;;
        esac
        echo "$round $what $seconds $bytes $cp_seconds $peak" |
            awk '{printf "%5d  %-6s %8.2f %7.2f %7.2f %8d\n", $1, $2, $3, $4 / 1e9 / $3,
                  $5 / $3, $6}' | tee -a "$folder/table"
    done
    for f in "$folder"/model/*.safetensors; do
        cmp "$f" "$folder/again/${f##*/}"
    done
    rm -rf "$folder/copy" "$folder/again" "$folder/model.h5"
    round=$((round + 1))
done
for what in import export; do
    awk -v what=$what '$2 == what {print $5}' "$folder/table" | sort -n |
        awk -v what=$what '{r[NR] = $1} END {
            printf "%s: median of the ratios to cp %.2f (0.70 wanted)\n", what,
                NR % 2 ? r[(NR + 1) / 2] : (r[NR / 2] + r[NR / 2 + 1]) / 2}'
done
