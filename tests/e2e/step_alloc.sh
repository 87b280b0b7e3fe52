#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A training step takes no memory, of windows, records or packs: runs of 3 and of 13
# steps, counted and subtracted.
# dusk itself neither allocates nor frees in the ten steps between, nobody maps memory
# or starts a thread, and page faults stay flat. Libraries' own allocations are shown.
. "${srcdir:-.}/tests/e2e/lib.sh"
nm "$DUSK" 2>/dev/null | grep -q __asan_init && {
    echo "SKIP: a sanitizer has its own allocator"
    exit 77
}
${DUSK_COMPILE:-cc -O2} -w -shared -fPIC "$srcdir/tests/support/count_alloc.c" -o count.so \
    -ldl 2>err || {
    echo "SKIP: cannot build the counting library:"
    cat err
    exit 77
}
# A system without glibc has nothing to count with.
LD_PRELOAD=./count.so COUNT_ALLOC=probe "$DUSK" --version >out 2>err && [ -s probe ] || {
    echo "SKIP: cannot preload the counting library:"
    cat err
    exit 77
}
make_inputs
OMP_NUM_THREADS=2
export OMP_NUM_THREADS

# counted STEPS RANKS ARGUMENT...: counts of dusk's processes (a launcher has some too)
# in count.STEPS.
counted() {
    steps=$1 ranks=$2
    shift 2
    rm -rf runs counts
    COUNT_ALLOC=$folder/counts
    export COUNT_ALLOC
    if [ "$ranks" -eq 1 ]; then
        LD_PRELOAD=$folder/count.so timeout 300 "$DUSK" "$@" --set train.steps="$steps" \
            >out 2>err
    else
        timeout 300 "$MPIRUN" $oversubscribe -n "$ranks" env LD_PRELOAD="$folder/count.so" \
            "$DUSK" "$@" --set train.steps="$steps" >out 2>err
    fi || {
        fail "dusk $* with $steps steps: $(cat err)"
        exit 1
    }
    unset COUNT_ALLOC
    grep '^dusk ' counts >"count.$steps"
}

# faults STEPS: page faults of all processes.
faults() {
    awk '{ for (i = 2; i < NF; i += 2) if ($2 == "own_alloc" && $i == "fault")
               sum += $(i + 1) }
         END { print sum + 0 }' "count.$1"
}

# between NAME: how much more of NAME, over all processes, in ten steps.
between() {
    awk -v name="$1" '
        $2 == "own_alloc" { for (i = 2; i < NF; i += 2) if ($i == name)
                           sum[FILENAME] += $(i + 1) }
        END { print sum["count.13"] - sum["count.3"] }' count.3 count.13
}

# at_most LIMIT NAME WHAT
at_most() {
    n=$(between "$2")
    if [ "$n" -le "$1" ]; then
        echo "ok: $what: $2 in ten steps: $n"
    else
        fail "$what: $2 in ten steps: $n, expected at most $1"
        awk '$2 == "at" { sum[$3] += FILENAME == "count.13" ? $4 : -$4 }
             END { for (p in sum) if (sum[p]) print "  addr2line -e dusk " p ": " sum[p] }' \
            count.3 count.13
    fi
}

measure() {
    what=$1 ranks=$2
    shift 2
    counted 3 "$ranks" "$@"
    counted 13 "$ranks" "$@"
    at_most 0 own_alloc
    at_most 0 own_free
    at_most 0 mmap
    at_most 0 thread
    # Two processes differ by some faults of the kernel's own making, on a busy machine
    # now and then by many: each length of run counts by its least of several tries. The
    # MPI library's own buffers grow a little with the messages, up to ten pages a step.
    rm -f faults.3 faults.13
    for try in 1 2 3 4 5 6 7 8; do
        faults 3 >>faults.3
        faults 13 >>faults.13
        more=$(($(sort -n faults.13 | head -n 1) - $(sort -n faults.3 | head -n 1)))
        [ "$more" -le $((100 * ranks)) ] && break
        echo "   try $try: $more page faults in ten steps; once more"
        counted 3 "$ranks" "$@"
        counted 13 "$ranks" "$@"
    done
    if [ "$more" -le $((100 * ranks)) ]; then
        echo "ok: $what: fault in ten steps: $more"
    else
        fail "$what: fault in ten steps: $more, expected at most $((100 * ranks))"
        echo "  with 3 steps: $(tr '\n' ' ' <faults.3), with 13: $(tr '\n' ' ' <faults.13)"
    fi
    echo "   libraries: $(between lib_alloc) allocations, $(between lib_free) frees"
}

common="train run.yaml --set eval.every=0 --set checkpoint.every=0"
# shellcheck disable=SC2086
{
    measure "one rank" 1 $common
    measure "pipeline 2" 2 $common --set parallel.pipeline=2
    measure "pipeline 2, zb-h1" 2 $common --set parallel.pipeline=2 \
        --set parallel.schedule=zb-h1
    measure "data 2" 2 $common
}

# Records, ordered anew in every step, and packs.
head -n 60 "$srcdir/configs/quickstart/train.jsonl" |
    sed 's/^{"text": "Question: \(.*\)\\nAnswer: \(.*\)\\n"}/{"prompt": "\1", "completion": "\2"}/' >math.jsonl
"$DUSK" tokens math.jsonl -o records.h5 --tokenizer base.h5 --template solar_eos --pack 128 >out 2>err ||
    fail "tokens: $(cat err)"
sed 's/text.h5/records.h5/; s/valid: .*seq_len: 32/seq_len: 128/; s/{steps/{objective: sft, steps/' run.yaml >sft.yaml
sft="train sft.yaml --set eval.every=0 --set checkpoint.every=0"
# shellcheck disable=SC2086
{
    measure "records, data 2" 2 $sft
    measure "packs" 1 $sft --set data.packing=true
}

# The system calls of malloc itself.
if strace -f -o trace true 2>/dev/null; then
    # On a busy machine malloc's arenas and the libraries differ by some calls from run to
    # run: each length counts by its least of several tries.
    few=1000000 many=1000000
    for try in 1 2 3 4 5; do
        for steps in 3 13; do
            rm -rf runs
            # shellcheck disable=SC2086
            strace -f -o "trace.$steps" -e trace=mmap,munmap,brk,clone,clone3,mremap \
                "$DUSK" $common --set train.steps=$steps >out 2>err
        done
        n=$(grep -c '(' trace.3)
        [ "$n" -lt $few ] && few=$n
        n=$(grep -c '(' trace.13)
        [ "$n" -lt $many ] && many=$n
        [ $((many - few)) -le 2 ] && break
        echo "   try $try: $((many - few)) more calls in ten steps; once more"
    done
    if [ $((many - few)) -le 2 ]; then
        echo "ok: mmap, munmap, brk, clone in ten steps: $((many - few)) ($few before)"
    else
        fail "mmap, munmap, brk, clone in ten steps: $((many - few))"
        tail -5 trace.13
    fi
fi
exit $failed
