#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Depth up-scaling beside mergekit's passthrough: peer_upscale.sh [ROUNDS [RANKS]]
#
# Makes a Mistral folder of the 7B's width (BF16, LAYERS layers, sharded; random weights)
# under TMPDIR, then in turns, another first in each round, all synced to disk, caches
# dropped before each (as root; else it says so):
#   mergekit  folder -> folder, 0:3/4 and 1/4:1 of the layers, by mergekit-yaml
#   copy      dusk upscale, checkpoint -> checkpoint
#   link      the same, --mode link
#   chain     dusk import, upscale by copy, export: folder -> folder
# Prints seconds and the peak resident memory of a process. $PYTHON has mergekit (and its
# torch) installed. Needs six times the model's size free.
set -eu
rounds=${1:-3} ranks=${2:-2} layers=${LAYERS:-8}
: "${DUSK:=./dusk}" "${MAKE_HF:=tests/support/make_hf}" "${MPIRUN:=mpirun}" "${PYTHON:=python3}"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
tool=$(dirname "$(command -v "$PYTHON")")/mergekit-yaml
from=$((layers / 4)) to=$((layers * 3 / 4))
DUSK=$(realpath "$DUSK") MAKE_HF=$(realpath "$MAKE_HF")

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cold=cold
sh -c 'echo 3 >/proc/sys/vm/drop_caches' 2>/dev/null || cold=warm
"$MAKE_HF" model layers="$layers" hidden=4096 ff=14336 heads=32 kv_heads=8 head_dim=128 \
    vocab=32000 shard_bytes=5e9
cat >slices.yml <<Y
slices:
  - sources: [{model: model, layer_range: [0, $to]}]
  - sources: [{model: model, layer_range: [$from, $layers]}]
merge_method: passthrough
dtype: bfloat16
Y

dusk() {
    OMP_NUM_THREADS=1 "$MPIRUN" --oversubscribe -n "$ranks" "$DUSK" "$@" >said 2>&1 || {
        cat said >&2
        exit 1
    }
    sed -n 's/.*peak memory \([0-9]*\) MB.*/\1/p' said >>peaks
}

# The merge, its sync, and its peak memory as the kernel counts it.
mergekit() {
    "$PYTHON" - "$tool" slices.yml merged --quiet --no-write-model-card --no-copy-tokenizer \
        >said 2>&1 <<'P' || { cat said >&2 && exit 1; }
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
with open("peaks", "a") as f:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1000, file=f)
P
    sync merged/*
}

upscale() { dusk upscale base.h5 -o up.h5 --layers "0:$to,$from:$layers" --mode "$1"; }
chain() {
    dusk import model -o chain.h5
    dusk upscale chain.h5 -o up.h5 --layers "0:$to,$from:$layers"
    dusk export up.h5 -o out --shard-bytes 5e9
}

step() {
    rm -rf merged up.h5 chain.h5 out peaks
    sync
    [ $cold = warm ] || echo 3 >/proc/sys/vm/drop_caches
    sleep "${PAUSE:-1}"
    start=$(date +%s.%N)
    case $1 in
    mergekit) mergekit ;;
    chain) chain ;;
    *) upscale "$1" ;;
    esac
    echo "$(date +%s.%N) $start $(sort -n peaks | tail -1)" | awk -v what="$1" '
        {printf "%-9s %8.2f s %6d MB\n", what, $1 - $2, $3}' | tee -a table
}

dusk import model -o base.h5
echo "$layers layers to $((to + layers - from)), $ranks ranks, caches $cold"
order="mergekit copy link chain"
for _ in $(seq "$rounds"); do
    for what in $order; do
        step "$what"
        # the same weights, once: mergekit's folder and ours, as checkpoints
        if [ "$what" = mergekit ] && [ ! -e compared ]; then
            dusk import merged -o merged.h5
            upscale copy
            "$DUSK" diff merged.h5 up.h5 | tail -1
            rm -f merged.h5
            : >compared
        fi
    done
    order="${order#* } ${order%% *}"
done
median() {
    awk -v what="$1" '$1 == what {print $2}' table | sort -n |
        awk '{r[NR] = $1} END {print NR % 2 ? r[(NR + 1) / 2] : (r[NR / 2] + r[NR / 2 + 1]) / 2}'
}
peer=$(median mergekit)
for what in copy:1.5 link:10 chain:0; do
    echo "$peer $(median "${what%:*}") ${what#*:}" | awk -v what="${what%:*}" '
        {printf "%s: mergekit takes %.1f times as long%s\n", what, $1 / $2,
            ($3 > 0) ? " (" $3 " wanted)" : ""}'
done
