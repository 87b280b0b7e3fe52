#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The chain of a full-size up-scaling beside cp of the bytes that each step must read and
# write: chain.sh [ROUNDS [RANKS]]
#
# Makes a Mistral 7B (BF16, LAYERS layers, sharded; random weights) under TMPDIR, then in
# turns with cp: import, upscale by copy and by link (SOLAR's 3/4 + 3/4 of the layers),
# merge of the two up-scaled models, export; all synced to disk, caches dropped before
# each (as root; else it says so). Prints seconds, GB/s of what is read and written, the
# part of cp's time, and the peak resident memory of a process. Needs four times the
# model's size free: 58 GB for 32 layers.
set -eu
rounds=${1:-1} ranks=${2:-2} layers=${LAYERS:-32}
: "${DUSK:=./dusk}" "${MAKE_HF:=tests/support/make_hf}" "${MPIRUN:=mpirun}"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
ranges=0:$((layers * 3 / 4)),$((layers / 4)):$layers

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cold=cold
sh -c 'echo 3 >/proc/sys/vm/drop_caches' 2>/dev/null || cold=warm
drop() {
    sync
    [ $cold = warm ] || echo 3 >/proc/sys/vm/drop_caches
}

bytes_of() { cat "$@" | wc -c; }

# run COMMAND...: $seconds.
run() {
    drop
    start=$(date +%s.%N)
    "$@"
    seconds=$(echo "$(date +%s.%N) $start" | awk '{ printf "%.2f", $1 - $2 }')
}

# Leaves the peak resident memory that dusk says, in MB, in $peak.
dusk() {
    "$MPIRUN" --oversubscribe -n "$ranks" "$DUSK" "$@" >"$folder/said" 2>&1 || {
        cat "$folder/said" >&2
        exit 1
    }
    peak=$(sed -n 's/.*peak memory \([0-9]*\) MB.*/\1/p' "$folder/said")
}

# row WHAT READ WRITTEN CP_SECONDS
row() {
    echo "$1 $2 $3 $seconds $4 ${peak:-0}" | awk '{
        printf "%-14s %7.2f %8.2f %8.2f %8.2f %7.2f %7.2f %8d\n", $1, $2 / 1e9, $3 / 1e9,
            $4, $5, ($2 + $3) / 1e9 / $4, $4 / $5, $6 }' | tee -a "$folder/table"
}

copy_folder() { cp -r --reflink=never "$1" "$folder/copy" && sync "$folder"/copy/*; }
copy_file() { cp --reflink=never "$1" "$folder/copy" && sync "$folder/copy"; }
# One file, and so many bytes of it twice.
copy_more() {
    cp --reflink=never "$1" "$folder/copy" && head -c "$2" "$1" >"$folder/copy.more" &&
        sync "$folder/copy" "$folder/copy.more"
}
copy_read() { cat "$2" >/dev/null && copy_file "$1"; }
no_copy() { rm -rf "$folder/copy" "$folder/copy.more"; }

cd "$folder"
DUSK=$(cd "$OLDPWD" && realpath "$DUSK") MAKE_HF=$(cd "$OLDPWD" && realpath "$MAKE_HF")
echo "$layers layers, $ranks ranks, caches $cold"
echo "step           read GB  written  dusk s     cp s    GB/s    x cp  peak MB"
for _ in $(seq "$rounds"); do
    "$MAKE_HF" model layers="$layers" hidden=4096 ff=14336 heads=32 kv_heads=8 \
        head_dim=128 vocab=32000 shard_bytes=5e9 >said
    hf=$(bytes_of model/*.safetensors)
    run copy_folder model
    cp_s=$seconds && no_copy
    run dusk import model -o base.h5
    base=$(bytes_of base.h5)
    row import "$hf" "$base" "$cp_s"
    rm -rf model
    run dusk upscale base.h5 -o up.h5 --layers "$ranges"
    up=$(bytes_of up.h5)
    copied_s=$seconds copied_peak=$peak
    run copy_more base.h5 $((up - base))
    cp_s=$seconds && no_copy
    seconds=$copied_s peak=$copied_peak
    row upscale "$base" "$up" "$cp_s"
    run dusk upscale base.h5 -o link.h5 --layers "$ranges" --mode link
    row upscale-link 0 "$(bytes_of link.h5)" "$cp_s"
    run copy_read up.h5 base.h5
    cp_s=$seconds && no_copy
    run dusk merge up.h5 link.h5 -o merged.h5 --method linear --weight 0.5,0.5
    row merge $((up + base)) "$(bytes_of merged.h5)" "$cp_s"
    "$DUSK" diff up.h5 merged.h5 >/dev/null || echo "merge of a model with itself differs"
    rm -f merged.h5 base.h5 link.h5
    run copy_file up.h5
    cp_s=$seconds && no_copy
    run dusk export up.h5 -o again --shard-bytes 5e9
    row export "$up" "$(bytes_of again/*.safetensors)" "$cp_s"
    rm -rf again up.h5
done
for what in import upscale upscale-link merge export; do
    awk -v what=$what '$1 == what { print $7 }' table | sort -n |
        awk -v what=$what '{ r[NR] = $1 } END {
            printf "%s: median of the times over those of cp %.2f (at most 1.15 wanted)\n", what,
                NR % 2 ? r[(NR + 1) / 2] : (r[NR / 2] + r[NR / 2 + 1]) / 2 }'
done
