#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# How fast dusk tokens is beside spm_encode on the same bytes and one core:
# tokens.sh TEXT TOKENIZER.MODEL [REPEAT [ROUNDS]]
#
# TEXT is repeated REPEAT times (20); both run in turns, pinned to one core. Wall and CPU
# seconds are printed, medians of ROUNDS (5): on a busy machine only the CPU seconds
# say something.
set -eu
: "${DUSK:=./dusk}"
text=$1 model=$2 repeat=${3:-20} rounds=${4:-5}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for _ in $(seq "$repeat"); do
    cat "$text"
done >"$folder/text.txt"
bytes=$(wc -c <"$folder/text.txt")

encode_spm() {
    spm_encode --model="$model" --output_format=id <"$folder/text.txt" >"$folder/ids"
}

encode_dusk() {
    "$DUSK" tokens "$folder/text.txt" -o "$folder/set.h5" --force \
        --tokenizer "$model" >"$folder/said" 2>&1
}

# timed NAME: wall seconds of encode_NAME to NAME.wall, CPU seconds to NAME.cpu.
timed() {
    start=$(date +%s.%N)
    (
        taskset -pc 0 "$(exec sh -c 'echo $PPID')" >/dev/null
        "encode_$1"
        times
    ) | tail -1 | tr 'ms' '  ' |
        awk '{printf "%.3f\n", 60 * $1 + $2 + 60 * $3 + $4}' >>"$folder/$1.cpu"
    echo "$start $(date +%s.%N)" | awk '{printf "%.3f\n", $2 - $1}' >>"$folder/$1.wall"
}

median() {
    sort -n "$folder/$1" | awk '{t[NR] = $1} END {print t[int((NR + 1) / 2)]}'
}

for _ in $(seq "$rounds"); do
    timed spm
    timed dusk
done
for clock in wall cpu; do
    awk -v clock=$clock -v mb="$bytes" -v spm="$(median spm.$clock)" \
        -v dusk="$(median dusk.$clock)" 'BEGIN {
        mb /= 1e6
        printf "%.1f MB, %s: spm_encode %.2f s, %.2f MB/s; dusk %.2f s, %.2f MB/s; " \
            "ratio %.2f\n", mb, clock, spm, mb / spm, dusk, mb / dusk, spm / dusk
    }'
done
