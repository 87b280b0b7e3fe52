#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# import, upscale, merge and export killed (-9) at times spread over their run, alone and
# one rank of two: what lies under the final name is nothing, the old one or the whole new
# one; what the kill left is named by the next run, which makes the same bytes as ever.
# DUSK_KILLS: of each command alone (3); of two ranks a third of them.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_hf=$(dirname "$DUSK")/tests/support/make_hf
kills=${DUSK_KILLS:-3} killed=0 late=0 left=0

# 100 MB
"$make_hf" model hidden=512 ff=2048 layers=4 heads=8 kv_heads=8 head_dim=64 vocab=32768 \
    shard_bytes=4e7 >/dev/null || fail "make_hf"

# start RANKS ARGUMENT...: dusk in the background; $pid of what is started, $victim of a rank.
start() {
    ranks=$1
    shift
    if [ "$ranks" -eq 1 ]; then
        "$DUSK" "$@" >out 2>err </dev/null &
        pid=$! victim=$!
        return
    fi
    rm -f rank
    # the program of a rank tells its number before it becomes dusk
    "$MPIRUN" $oversubscribe -n "$ranks" sh -c 'echo $$ >>rank; exec "$@"' sh "$DUSK" "$@" \
        >out 2>err </dev/null &
    pid=$! i=0
    while ! [ -s rank ] && [ $i -lt 500 ]; do
        sleep 0.01
        i=$((i + 1))
    done
    victim=$(tail -n 1 rank)
}

# whole A B: are they the same, byte for byte?
whole() { diff -rq "$1" "$2" >/dev/null 2>&1; }

# kill_at SECONDS RANKS OUTPUT OLD ARGUMENT...: OLD is what lay there, or "-".
kill_at() {
    seconds=$1 ranks=$2 output=$3 old=$4
    shift 4
    start "$ranks" "$@"
    sleep "$seconds"
    if kill -9 "$victim" 2>/dev/null; then killed=$((killed + 1)); else late=$((late + 1)); fi
    wait $pid 2>/dev/null
    if [ -e "$output" ] && whole "$output" "good-$output"; then
        :
    elif [ "$old" = - ] && [ ! -e "$output" ]; then
        :
    elif [ "$old" != - ] && whole "$output" "$old"; then
        :
    else
        fail "dusk $* on $ranks ranks, killed after $seconds s: $output is neither whole nor as it was"
    fi
    for file in "$output".tmp-*; do
        [ -e "$file" ] && left=$((left + 1))
    done
}

# try OUTPUT ARGUMENT...: the whole round of one command.
try() {
    output=$1
    shift
    begin=$(date +%s.%N)
    expect 0 1 - "$@" -o "$output"
    end=$(date +%s.%N)
    mv "$output" "good-$output"
    for ranks in 1 2; do
        n=$kills
        [ "$ranks" -eq 1 ] || n=$(((kills + 2) / 3))
        for k in $(seq "$n"); do
            at=$(echo "$begin $end $k $n $ranks" |
                awk '{printf "%.3f", ($2 - $1) * ($3 - 0.3) / $4 + ($5 - 1) * 0.1}')
            kill_at "$at" "$ranks" "$output" - "$@" -o "$output"
            rm -rf "$output"
        done
    done
    cp -r "old-${output#*.}" "$output"
    kill_at "$at" 1 "$output" "old-${output#*.}" "$@" -o "$output" --force
    expect 0 2 - "$@" -o "$output" --force
    if whole "$output" "good-$output"; then
        echo "ok: $1 after the kills: the same bytes"
    else
        fail "$1 after the kills: other bytes"
    fi
    for file in "$output".tmp-*; do
        if [ -e "$file" ] && ! grep -qF "$file is there (" err; then
            fail "$1: $file is left and not named:"
            cat err
        fi
        rm -rf "$file"
    done
}

# Old results: a checkpoint and a folder.
expect 0 1 - import "$srcdir/tests/oracle/model/tiny-mistral" -o old-h5
expect 0 1 - export old-h5 -o old-hf
try base.h5 import model
mv base.h5 b.h5
try up.h5 upscale b.h5 --layers 0:3,1:4
try merged.h5 merge b.h5 b.h5 --method linear
try out.hf export b.h5 --shard-bytes 4e7
for shard in model/*.safetensors; do
    same "$shard" "out.hf/${shard#*/}" "import and export"
done
echo "$killed killed, $late too late, $left files left of them"
[ "$killed" -gt "$late" ] || fail "the kills came too late"
[ "$left" -gt 0 ] || fail "no kill left anything: all too early"
exit $failed
