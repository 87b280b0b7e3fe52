#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The schedule that splits the backward pass gives the bits of the others: pretraining in
# both precisions on every layout, in part frozen, instruction and preference tuning, and
# a run that changes its schedule on the way. Its memory is the planned one. What steps
# tell of their time adds up and changes no bit.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_inputs
file=run.yaml
zero=parallel.schedule=zb-h1

train() { # NAME RANKS SETTING...
    name=$1 ranks=$2
    shift 2
    settings=
    for s in "$@"; do settings="$settings --set $s"; done
    # shellcheck disable=SC2086
    expect 0 "$ranks" - train "$file" --set run.name="$name" $settings
    sed 's/"tokens_per_s": .*"epoch"/"epoch"/' "runs/$name/metrics.jsonl" >"$name.bits"
    [ "$(grep -c '"grad_norm"' "$name.bits")" -eq 6 ] || fail "$name: expected 6 steps"
}
same_run() { # NAME LIKE: all that the steps say but times, validation, the checkpoint
    same "$1.bits" "$2.bits" "metrics"
    on 1 diff "runs/$1/checkpoints/latest" "runs/$2/checkpoints/latest"
    [ $code -eq 0 ] || fail "weights or moments of $1 and $2 differ: $(cat out err)"
}

# ---- pretraining: micro-batches 8, 2 (fewer than stages) and 4 a replica ----
layouts() { # PREFIX SETTING...
    x=$1
    shift
    train "${x}lean" 2 parallel.pipeline=2 "$@"
    train "${x}p1" 1 $zero "$@"
    same_run "${x}p1" "${x}lean"
    train "${x}p2" 2 parallel.pipeline=2 $zero "$@"
    same_run "${x}p2" "${x}lean"
    train "${x}p3" 3 parallel.pipeline=3 'parallel.split=[1,4,1]' $zero "$@"
    same_run "${x}p3" "${x}lean"
    train "${x}p4" 4 parallel.pipeline=4 $zero "$@"
    same_run "${x}p4" "${x}lean"
    train "${x}lean4" 1 train.micro_batch=4 "$@"
    train "${x}few" 4 parallel.pipeline=4 train.micro_batch=4 $zero "$@"
    same_run "${x}few" "${x}lean4"
    train "${x}leand2" 2 "$@"
    train "${x}p2d2" 4 parallel.pipeline=2 $zero "$@"
    same_run "${x}p2d2" "${x}leand2"
}
layouts ""
layouts b train.precision=bf16 train.allow_slow_bf16=true
# Several chunks a rank, and tables of files: 6 layers on up to 6 stages.
on 1 check run.yaml --schedule --set parallel.pipeline=2 --set parallel.schedule=zb-v --csv v.csv
[ $code -eq 0 ] || fail "check --csv: $(cat err)"
on 1 check run.yaml --schedule --set parallel.pipeline=3 --set $zero --csv h1.csv
[ $code -eq 0 ] || fail "check --csv: $(cat err)"
chunks() { # PREFIX SETTING...
    x=$1
    shift
    train "${x}i2" 2 parallel.pipeline=2 parallel.schedule=interleaved "$@"
    same_run "${x}i2" "${x}lean"
    train "${x}v3" 3 parallel.pipeline=3 parallel.schedule=zb-v "$@"
    same_run "${x}v3" "${x}lean"
    train "${x}v2d2" 4 parallel.pipeline=2 parallel.schedule=zb-v "$@"
    same_run "${x}v2d2" "${x}leand2"
}
chunks ""
chunks b train.precision=bf16 train.allow_slow_bf16=true
train i1 1 parallel.schedule=interleaved parallel.chunks=3
same_run i1 lean
train v2few 2 parallel.pipeline=2 parallel.schedule=zb-v train.micro_batch=4
same_run v2few lean4
train filev 2 parallel.pipeline=2 parallel.chunks=2 parallel.schedule=v.csv
same_run filev lean
train fileh1 3 parallel.pipeline=3 parallel.schedule=h1.csv
same_run fileh1 lean
OMP_NUM_THREADS=2 train p2threads 2 parallel.pipeline=2 $zero
same_run p2threads lean

# ---- where the time goes ----
told() { # NAME BUBBLE...: parts add up to the step, shares are shares; the ideal bubble
    # is near BUBBLE (of equal times) where given
    awk -v name="$1" -v near="${2:--1}" '
        function of(key, text) { text = $0; sub(".*\"" key "\": ", "", text); return text + 0 }
        /"grad_norm"/ {
            steps++
            sum = of("time/forward") + of("time/backward") + of("time/weight") + \
                of("time/optimizer") + of("time/message_wait") + of("time/reduce_wait") + \
                of("time/idle")
            step = of("step_s"); bubble = of("bubble"); ideal = of("bubble_ideal")
            exposed = of("exposed"); times += of("slowest_steps") == 1
            if (sum < step * 0.999999 || sum > step * 1.000001) why = "parts " sum " of step " step
            if (of("time/forward") <= 0 || of("time/backward") <= 0) why = "no computing"
            if (of("time/idle") < 0) why = "idle " of("time/idle")
            if (bubble < -0.001 || bubble >= 1 || ideal < -0.001 || ideal >= 1) why = "bubble " bubble ", ideal " ideal
            if (near >= 0 && (ideal < near - 0.15 || ideal > near + 0.15)) why = "ideal bubble " ideal ", near " near
            if (exposed < 0 || exposed > of("time/message_wait") / step + 1e-9) why = "exposed " exposed
            if (of("imbalance") < 1) why = "imbalance " of("imbalance")
            if (why) { print "FAIL: " name ": step " steps ": " why; bad = 1; why = "" }
        }
        END {
            if (steps != 6 || !times) { print "FAIL: " name ": " steps " steps told"; bad = 1 }
            if (!bad) print "ok: " name ": six steps add up"
            exit bad
        }' "runs/$1/metrics.jsonl" || failed=1
}
told p1 0
told p4 0.15
told p2d2 0.11
train quiet 4 parallel.pipeline=4 $zero log.accounting=false
same_run quiet lean
grep -q '"bubble"\|"time/' runs/quiet/metrics.jsonl && fail "log.accounting: false tells times"
train line 4 parallel.pipeline=2 $zero log.timeline.from=3 log.timeline.steps=2 log.accounting=false
same_run line leand2
line=runs/line/timeline.json # an event a line: each operation of each rank, twice
for pid in 0 1; do
    for tid in 0 1; do
        for op in F B W; do
            for i in 0 1 2 3; do
                n=$(grep -c "\"name\": \"$op $i\",.*\"pid\": $pid, \"tid\": $tid," $line)
                [ "$n" -eq 2 ] || fail "timeline: $op $i of replica $pid, stage $tid: $n times"
            done
        done
        grep -q "\"name\": \"step 4\",.*\"pid\": $pid, \"tid\": $tid" $line || fail "timeline: no step 4"
    done
done
[ "$(grep -c '"cat": "\(forward\|backward\|weight\)"' $line)" -eq 96 ] || fail "timeline: operations beside"
awk '/"ts": -|"dur": -/ { print "FAIL: timeline: a time below 0: " $0; bad = 1 } END { exit bad }' $line || failed=1
[ "$(grep -c '<title>' runs/line/timeline.svg)" -gt 96 ] && tail -n 1 runs/line/timeline.svg | grep -qx '</svg>' ||
    fail "timeline.svg: $(grep -c '<title>' runs/line/timeline.svg) boxes"
expect 0 2 - train run.yaml --set run.name=cut --set parallel.pipeline=2 --set 'log.timeline={from: 6, steps: 9}'
[ "$(grep -c '"name": "F ' runs/cut/timeline.json)" -eq 16 ] || fail "timeline: a run that ends within it"

some='train.freeze=["layers.1-2","*q_proj*","*up_proj*"]'
train freeze1 1 "$some"
train freeze3 3 parallel.pipeline=3 $zero "$some"
same_run freeze3 freeze1
train freezev 2 parallel.pipeline=2 parallel.schedule=zb-v "$some"
same_run freezev freeze1
low='train.freeze=["model.embed_tokens.weight","layers.0-3"]' # stages with nothing to do
train low1 1 "$low"
train low4 4 parallel.pipeline=4 $zero "$low"
same_run low4 low1

# ---- the embedding tied to the head: on one rank (zb-v), on two, or within a replica ----
sed 's/^model: .*/model: {init: random, shape: {hidden_size: 64, intermediate_size: 96, num_hidden_layers: 6, num_attention_heads: 4, num_key_value_heads: 2, vocab_size: 512, max_position_embeddings: 64, tie_word_embeddings: true}}/' run.yaml >tied.yaml
file=tied.yaml
train tied 2
train tiedv2 4 parallel.pipeline=2 parallel.schedule=zb-v
same_run tiedv2 tied
train tiedi2 4 parallel.pipeline=2 parallel.schedule=interleaved
same_run tiedi2 tied
file=run.yaml

# ---- one run, three jobs, a schedule each ----
job() { # STEPS RANKS SETTING...: as if killed behind step STEPS
    until=$1 ranks=$2
    shift 2
    settings=
    for s in "$@"; do settings="$settings --set $s"; done
    # shellcheck disable=SC2086
    expect 0 "$ranks" - train run.yaml --set run.name=chain --set checkpoint.every=2 \
        --set checkpoint.keep=3 $settings
    for s in runs/chain/checkpoints/step-*; do
        [ "$(basename "$s")" \> "step-0000000$until" ] && rm -r "$s"
    done
}
job 2 2 parallel.pipeline=2 $zero
job 4 2 parallel.pipeline=2 parallel.schedule=zb-v
train chain 3 checkpoint.every=2 checkpoint.keep=3 parallel.pipeline=3 $zero
grep -qF "resumed from" err || fail "the third job began anew: $(cat err)"
same_run chain lean

# ---- tuning ----
align=$srcdir/tests/oracle/align
mkdir model && cp "$align"/ref/* "$align"/tokenizer/tokenizer.model model
expect 0 1 - import model -o ref.h5
sed -n 's/^{"text": "Question: \(.*\)\\nAnswer: \(.*\)\\n"}$/{"prompt": "\1", "completion": "\2"}/p' \
    "$srcdir/configs/quickstart/train.jsonl" | head -n 33 >records.jsonl
awk '{ at = index($0, ", \"completion\": "); prompt = substr($0, 1, at - 1)
       answer = substr($0, at + 16); sub(/}$/, "", answer)
       if (NR > 1) print prompt ", \"chosen\": " answer ", \"rejected\": \"I do not know. " before "}"
       before = substr(answer, 2) }' records.jsonl >pairs.jsonl
expect 0 1 - tokens records.jsonl -o records.h5 --tokenizer ref.h5 --template solar_eos --pack 384
expect 0 1 - tokens pairs.jsonl -o pairs.h5 --tokenizer ref.h5 --template solar_eos --max-length 384
cat >sft.yaml <<'Y'
run: {name: a, dir: runs, seed: 7}
model: {init: ref.h5}
data: {train: [{path: records.h5}], seq_len: 384, packing: true}
train: {objective: sft, steps: 6, global_batch: 6, micro_batch: 1}
optim: {lr: 1.0e-3}
Y
cat >dpo.yaml <<'Y'
run: {name: a, dir: runs, seed: 7}
model: {init: ref.h5}
data: {train: [{path: pairs.h5}], seq_len: 384}
train: {objective: dpo, steps: 6, global_batch: 6, micro_batch: 1}
dpo: {beta: 0.1}
optim: {lr: 2.0e-4}
Y
for kind in sft dpo; do
    file=$kind.yaml
    train $kind 1
    train ${kind}p2 2 parallel.pipeline=2 $zero
    same_run ${kind}p2 $kind
    train ${kind}p4 4 parallel.pipeline=4 $zero
    same_run ${kind}p4 $kind
    train ${kind}v2 2 parallel.pipeline=2 parallel.schedule=zb-v
    same_run ${kind}v2 $kind
done

# ---- memory ----
on 1 check run.yaml --memory --ranks 4 --set parallel.pipeline=4 --set $zero
alive=$(awk '$1 ~ /^[0-3]$/ { printf "%s/%s ", $5, $6 }' out)
[ "$alive" = "4/1 4/2 4/3 4/4 " ] || fail "check --memory: alive and waiting $alive"
cat >large.yaml <<'Y'
run: {name: large, dir: runs}
model:
  init: random
  shape: {hidden_size: 512, intermediate_size: 1536, num_hidden_layers: 8,
          num_attention_heads: 8, num_key_value_heads: 4, vocab_size: 2000,
          max_position_embeddings: 1024}
data: {train: [{path: text.h5}], seq_len: 512}
train: {steps: 1, global_batch: 4, micro_batch: 1}
optim: {lr: 1.0e-3}
eval: {every: 0}
parallel: {pipeline: 2}
Y
for schedule in 1f1b zb-h1; do
    expect 0 2 - train large.yaml --set run.name=$schedule --set parallel.schedule=$schedule
    peak=$(sed -n 's/^memory: \([0-9.]*\) GB at most on the fullest rank, \([0-9.]*\) GB planned/\1 \2/p' err)
    case $(nm "$DUSK" 2>/dev/null) in
    *__asan_init*) echo "   sanitizers have memory of their own: $peak" ;;
    *) echo "$peak" | awk '{ exit !($2 > 0.35 && $1 / $2 < 1.05 && $1 / $2 > 0.95) }' &&
        echo "ok: $schedule: peak and plan: $peak GB" ||
        fail "$schedule: peak and plan: $peak GB" ;;
    esac
done
exit $failed
