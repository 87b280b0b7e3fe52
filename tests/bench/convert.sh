#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# How fast import and export are beside cp of the same bytes: convert.sh [ROUNDS [RANKS]]
#
# Makes a Mistral folder of the 7B's width (BF16, LAYERS layers, sharded) under TMPDIR,
# then times cp, import and export in turn (another first in each round), each synced
# to disk, and prints GB/s, the ratio to cp of the same round, and the peak resident
# memory of a process. The medians of the ratios are what counts: a disk's rate changes
# within minutes. Needs 3 times the model's size free.
set -eu
rounds=${1:-3}
ranks=${2:-1}
layers=${LAYERS:-4}
failed=0
: "${DUSK:=./dusk}" "${MAKE_HF:=tests/support/make_hf}" "${MPIRUN:=mpirun}"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$MAKE_HF" "$folder/model" layers="$layers" hidden=4096 ff=14336 heads=32 kv_heads=8 \
    head_dim=128 vocab=32000 shard_bytes=1e9
bytes=$(cat "$folder"/model/*.safetensors | wc -c)
sync

# Leaves the peak resident memory that dusk says, in MB, in $peak.
run_dusk() {
    if [ "$ranks" -eq 1 ]; then
        "$DUSK" "$@" 2>"$folder/err" || failed=1
    else
        "$MPIRUN" --oversubscribe -n "$ranks" "$DUSK" "$@" 2>"$folder/err" || failed=1
    fi
    [ "$failed" -eq 0 ] || {
        cat "$folder/err" >&2
        exit 1
    }
    peak=$(sed -n 's/.*peak memory \([0-9]*\) MB.*/\1/p' "$folder/err")
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

# Each step starts with its output gone and the disk quiet, and finds the memory that
# the last one gave back: first touches of memory cost a virtual machine more than disks.
step() {
    peak=0
    sync
    sleep "${PAUSE:-5}"
    case $1 in
    cp) timed copy ;;
    import) timed run_dusk import "$folder/model" -o "$folder/new.h5" ;;
    export) timed run_dusk export "$folder/model.h5" -o "$folder/again" \
        --shard-bytes 1e9 ;;
    esac
    echo "$1 $seconds $peak" >>"$folder/round"
    if [ "$1" = export ]; then
        for f in "$folder"/model/*.safetensors; do
            cmp "$f" "$folder/again/${f##*/}"
        done
    fi
    rm -rf "$folder/copy" "$folder/again" "$folder/new.h5"
}

"$DUSK" import "$folder/model" -o "$folder/model.h5"
step cp # not counted
echo "round  what    seconds    GB/s   of cp  peak MB"
round=1
order="cp import export"
while [ "$round" -le "$rounds" ]; do
    : >"$folder/round"
    for what in $order; do
        step "$what"
    done
    awk -v round="$round" -v bytes="$bytes" '
        {seconds[$1] = $2; peak[$1] = $3}
        END {
            split("cp import export", name, " ")
            for (i = 1; i <= 3; i++)
                printf "%5d  %-6s %8.2f %7.2f %7.2f %8d\n", round, name[i],
                    seconds[name[i]], bytes / 1e9 / seconds[name[i]],
                    seconds["cp"] / seconds[name[i]], peak[name[i]]
        }' "$folder/round" | tee -a "$folder/table"
    order="${order#* } ${order%% *}" # the first becomes the last
    round=$((round + 1))
done
for what in import export; do
    awk -v what=$what '$2 == what {print $5}' "$folder/table" | sort -n |
        awk -v what=$what '{r[NR] = $1} END {
            printf "%s: median of the ratios to cp %.2f (0.70 wanted)\n", what,
                NR % 2 ? r[(NR + 1) / 2] : (r[NR / 2] + r[NR / 2 + 1]) / 2}'
done
