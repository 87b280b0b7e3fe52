#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Speed of tuning, beside TRL on the same cores: peer_tune.sh sft|dpo fp32|bf16 [ROUNDS]
#
# sft: packs of LENGTH tokens (512), 8 a step, of GSM8K's train.jsonl. dpo: pairs of
# PAIRS, lines of {prompt, chosen, rejected}, at most LENGTH tokens (1024), 8 a step,
# reference log-probabilities made before; without PAIRS those of twice as many problems
# of GSM8K as the steps take, the answer chosen and that of the next problem rejected.
# One process each, OMP_NUM_THREADS threads (all cores), in turns, ROUNDS times (1),
# STEPS steps (20), of which the first two are left out. dusk's figure is the median
# over steps (metrics.jsonl), TRL's what PEER says; then the median over rounds.
#
# MODEL: a Hugging Face folder with tokenizer.model. DATA: a folder with
# gsm8k/train.jsonl; not with PAIRS. PEER: a script that trains with TRL and prints one JSON object,
#     PEER sft MODEL DATA PRECISION STEPS                        tokens_s, counted_s
#     PEER dpo MODEL --train F --valid F PRECISION STEPS         pairs_s
# PYTHON: what runs it; needs torch, transformers, trl, datasets, sentencepiece.
set -eu
: "${DUSK:=./dusk}" "${PYTHON:=python3}" "${STEPS:=20}"
: "${MODEL:?names a Hugging Face folder}" "${PEER:?names the script that trains with TRL}"
usage() { echo "usage: peer_tune.sh sft|dpo fp32|bf16 [ROUNDS]" >&2 && exit 2; }
what=${1-} precision=${2-} rounds=${3:-1}
case $what in
sft) unit=tokens LENGTH=${LENGTH:-512} PAIRS= ;;
dpo) unit=pairs LENGTH=${LENGTH:-1024} PAIRS=${PAIRS-} ;;
*) usage ;;
esac
case $precision in fp32 | bf16) ;; *) usage ;; esac
if [ -z "$PAIRS" ]; then : "${DATA:?names a folder with gsm8k/train.jsonl}"; fi
OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
export OMP_NUM_THREADS OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# absolute NAME: of a file, for the runs in $folder; a command of PATH stays as it is.
absolute() {
    case $1 in
    /*) echo "$1" ;;
    */*) echo "$PWD/$1" ;;
    *) if [ -e "$1" ]; then echo "$PWD/$1"; else echo "$1"; fi ;;
    esac
}
DUSK=$(absolute "$DUSK") PYTHON=$(absolute "$PYTHON") PEER=$(absolute "$PEER")
MODEL=$(absolute "$MODEL")
if [ -z "$PAIRS" ]; then DATA=$(absolute "$DATA"); else PAIRS=$(absolute "$PAIRS"); fi
cd "$folder"

# quietly COMMAND...: what it says is shown if it fails.
quietly() {
    "$@" >said 2>err || {
        cat said err >&2
        echo "peer_tune.sh: failed: $*" >&2
        exit 1
    }
}

# make_pairs PROBLEMS N: of the first N; the answer chosen, the next one's rejected.
make_pairs() {
    "$PYTHON" - "$1" "$2" <<'P'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])][:int(sys.argv[2])]
for row, other in zip(rows, rows[1:] + rows[:1]):
    print(json.dumps({"prompt": row["question"].strip(), "chosen": row["answer"], "rejected": other["answer"]}))
P
}

make_sets() {
    quietly "$DUSK" import "$MODEL" -o base.h5
    if [ "$what" = sft ]; then
        quietly "$DUSK" tokens "$DATA/gsm8k/train.jsonl" -o set.h5 --tokenizer base.h5 \
            --template solar_eos --map prompt=question,completion=answer --pack "$LENGTH"
        return
    fi
    if [ -z "$PAIRS" ]; then
        make_pairs "$DATA/gsm8k/train.jsonl" $((16 * STEPS)) >pairs.jsonl
        PAIRS=$folder/pairs.jsonl
    fi
    head -n 64 "$PAIRS" >valid.jsonl # the peer's accuracy, which is not looked at
    quietly "$DUSK" tokens "$PAIRS" -o set.h5 --tokenizer base.h5 --template solar_eos \
        --format pairs --max-length "$LENGTH"
}

# The peer's settings: AdamW without decay, a linear schedule, 8 samples at once.
write_run() {
    lr=5.0e-4
    if [ "$what" = dpo ]; then lr=2.0e-4; fi
    cat <<Y
run: {name: run, dir: runs, seed: 1}
model: {init: base.h5}
data: {train: [{path: set.h5}], seq_len: $LENGTH$([ "$what" = dpo ] || echo ", packing: true")}
train: {objective: $what, steps: $STEPS, global_batch: 8, micro_batch: 8, precision: $precision}
optim: {lr: $lr, schedule: linear, betas: [0.9, 0.999], weight_decay: 0}
Y
    if [ "$what" = dpo ]; then echo 'dpo: {loss: sigmoid, beta: 0.1}'; fi
}

median() { sort -g "$1" | awk '{ x[NR] = $1 } END { if (NR) print NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2 }'; }

# column KEY: its values in the run's steps after the first two.
column() { sed -n "s/^{\"step\": [0-9]*,.*\"$1\": \([0-9.eE+-]*\)[,}].*/\1/p" runs/run/metrics.jsonl | tail -n +3; }

ours() {
    rm -rf runs
    quietly "$DUSK" train run.yaml
    column step_s >seconds
    column counted_tokens >counted
    [ -s seconds ] || {
        echo "peer_tune.sh: no steps to time: expected STEPS of 3 or more, found $STEPS" >&2
        exit 1
    }
    if [ "$what" = sft ]; then column tokens_per_s; else awk '{ print 8 / $1 }' seconds; fi >rates
    median rates >>dusk.rate
    paste counted seconds | awk '{ print $1 / $2 }' >rates
    median rates >>dusk.counted
}

# value NAME: a number of the peer's object, the last line that it says.
value() { tail -n 1 said | sed -n "s/.*\"$1\": *\([0-9.eE+-]*\).*/\1/p"; }

peer() {
    if [ "$what" = sft ]; then
        quietly "$PYTHON" "$PEER" sft "$MODEL" "$DATA" "$precision" "$STEPS"
    else
        quietly "$PYTHON" "$PEER" dpo "$MODEL" --train "$PAIRS" --valid valid.jsonl "$precision" "$STEPS"
    fi
    value "${unit}_s" >>trl.rate
    value counted_s | sed '/^$/d' >>trl.counted
}

# row NAME RATE COUNTED
row() {
    if [ "$what" = sft ] && [ -s "$3" ]; then
        printf '  %-12s %10.1f %s/s %10.1f counted\n' "$1" "$(median "$2")" "$unit" "$(median "$3")"
    else
        printf '  %-12s %10.2f %s/s\n' "$1" "$(median "$2")" "$unit"
    fi
}

make_sets
write_run >run.yaml
for _ in $(seq "$rounds"); do
    ours
    peer
done
[ -s trl.rate ] || {
    echo "peer_tune.sh: $PEER: expected \"${unit}_s\" in its last line, found:" >&2
    tail -n 1 said >&2
    exit 1
}
echo "$what, $precision, $OMP_NUM_THREADS threads, steps of 8, medians of $rounds rounds in turns"
row TRL trl.rate trl.counted
row dusk dusk.rate dusk.counted
echo "$(median dusk.rate) $(median trl.rate)" | awk '{ printf "  %-12s %10.2f\n", "dusk / TRL", $1 / $2 }'
