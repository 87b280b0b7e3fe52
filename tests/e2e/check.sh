#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# dusk check: what is shipped passes, what is wrong is one line with its place, code 2.
set -u
: "${DUSK:?names the program}"
configs=$(cd "${srcdir:-.}/configs" && pwd) || exit 99
folder=$(mktemp -d) || exit 99
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 99
failed=0

fail() {
    echo "FAIL: $*"
    failed=1
}

# expect CODE TEXT ARGUMENT...: exit code, and a line of output that starts with TEXT.
expect() {
    code=$1 text=$2
    shift 2
    "$DUSK" check "$@" >out 2>err </dev/null
    found=$?
    cat out err >both
    if [ $found -ne "$code" ]; then
        fail "check $*: exit code $found, expected $code: $(cat both)"
    elif ! awk -v text="$text" 'index($0, text) == 1 { ok = 1 } END { exit !ok }' both; then
        fail "check $*: no line starts \"$text\": $(cat both)"
    elif [ "$code" -ne 0 ] && { [ -s out ] || [ "$(wc -l <err)" -ne 1 ]; }; then
        fail "check $*: expected one line on stderr: $(cat both)"
    else
        echo "ok: check $*: $found, $text"
    fi
}

# Runs in bf16 are files for machines that multiply it; this one need not.
any="--set train.allow_slow_bf16=true"
# shellcheck disable=SC2086
for file in reference solar-10.7b-pretrain solar-10.7b-sft solar-10.7b-dpo solar-10.7b-sdpo \
    quickstart/pretrain quickstart/sft quickstart/dpo; do
    expect 0 "$configs/$file.yaml: run " "$configs/$file.yaml" $any
done
"$DUSK" check --reference >made || fail "check --reference: exit code $?"
cmp made "$configs/reference.yaml" || fail "configs/reference.yaml is not the schema's"

# The run file that README shows.
awk "/^cat > .*<<'Y'\$/ { on = 1; next } /^Y\$/ { on = 0 } on" "$configs/../README.md" \
    >readme.yaml
[ -s readme.yaml ] || fail "README.md shows no run file any more"
# shellcheck disable=SC2086
expect 0 "readme.yaml: run " readme.yaml $any

# The resolved file says the same run, and itself again.
# shellcheck disable=SC2086
"$DUSK" check "$configs/solar-10.7b-pretrain.yaml" $any --set run.seed=7 --print >once ||
    fail "check --print: exit code $?"
"$DUSK" check once --print >twice || fail "check of a resolved file: exit code $?"
cmp once twice || fail "a resolved file does not resolve to itself"
grep -qx '  seed: 7' once || fail "--set run.seed=7 is not in the resolved file"

cat >run.yaml <<'END'
run: {name: first}
model: {init: base.h5}
data:
  train: [{path: a.h5}]
  seq_len: 128
train:
  steps: 100
  global_batch: 8
optim:
  lr: 1e-3
END
expect 0 "run.yaml: run first: base.h5, 100 steps of 8 x 128 = 1024 tokens" run.yaml
expect 0 "run.yaml: run first" run.yaml --set parallel.data=4 --set parallel.data=2
expect 2 "--set optim.lrr: unknown key" run.yaml --set optim.lrr=1
expect 2 "--set optim.lr: expected a number" run.yaml --set=optim.lr=x
expect 2 "run.yaml:8:17: train.global_batch: expected a multiple" run.yaml \
    --set parallel.data=3
expect 2 "dusk check: --set needs a value" run.yaml --set
expect 2 "dusk check: absent.yaml: No such file" absent.yaml
expect 2 "dusk check: .: cannot read: Is a directory" .
expect 2 "dusk check: expected RUN.yaml"
expect 2 "dusk check: one argument too many" run.yaml run.yaml
expect 2 "dusk check: --reference and --precision take no RUN.yaml" --reference run.yaml
expect 2 "dusk check: --reference and --precision take no RUN.yaml" --precision run.yaml
expect 2 "dusk check: expected one of --reference and --precision" --reference --precision
case $("$DUSK" check --precision) in
fp32 | bf16) ;;
*) fail "check --precision: neither fp32 nor bf16" ;;
esac

# The schedule of a step, drawn: every stage's row, and what it comes to.
zero="--schedule --set parallel.pipeline=3 --set parallel.schedule=zb-h1"
# shellcheck disable=SC2086
expect 0 "zb-h1, 3 stages, 4 micro-batches, F = B = W = 1: step 14 units, bubble 14.3 %" \
    run.yaml $zero --ranks 6
cat >rows <<'END'
    0  F0 F1 F2 .  .  B0 W0 F3 B1 W1 B2 W2 B3 W3
    1  .  F0 F1 .  B0 F2 B1 W0 F3 B2 W1 B3 W2 W3
    2  .  .  F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3
END
sed -n '2,4p' out | cmp - rows || fail "check --schedule: drew $(cat out)"
grep -qx "micro-batches alive at once, by stage: 3 3 3" out || fail "alive: $(cat out)"
grep -qx "of these waiting for W, at most, by stage: 1 2 3" out || fail "waiting: $(cat out)"
expect 0 "1f1b, 2 stages, 2 micro-batches, F = B = W = 1: step 9 units, bubble 33.3 %" \
    run.yaml --schedule --set parallel.pipeline=2 --set train.global_batch=2
sed -n '2,3p' out >drawn
printf '    0  F0 F1 .  .  B0 W0 .  B1 W1\n    1  .  F0 B0 W0 F1 B1 W1 .  .\n' |
    cmp - drawn || fail "check --schedule: drew $(cat out)"
grep -qx "micro-batches alive at once, by stage: 2 1" out || fail "alive: $(cat out)"
# shellcheck disable=SC2086
expect 0 "drawn to zero.svg" run.yaml $zero --ranks 6 --svg zero.svg
boxes=$(grep -c '<rect.*<text' zero.svg) # 3 stages x 4 micro-batches x 3, 3 of the legend
{ [ "$boxes" -eq 39 ] && head -n 1 zero.svg | grep -q '^<svg xmlns="http://www.w3.org/2000/svg"' &&
    tail -n 1 zero.svg | grep -qx '</svg>'; } || fail "zero.svg: $boxes boxes"
# shellcheck disable=SC2086
{
    expect 2 "dusk check: parallel.pipeline x parallel.data is 3 x 1, expected the number of ranks, 4" \
        run.yaml $zero --ranks 4
    expect 2 "dusk check: train.global_batch is 8, expected a multiple of data x micro_batch = 3 x 1" \
        run.yaml $zero --ranks 9
    expect 4 "dusk check: absent/zero.svg" run.yaml $zero --svg absent/zero.svg
    expect 2 "dusk check: expected one of --print, --memory and --schedule" run.yaml $zero --print
}
expect 2 "dusk check: --svg goes with --schedule" run.yaml --svg zero.svg
# Several stages a rank, and a table written and drawn again.
v="--schedule --set parallel.pipeline=2 --set train.global_batch=2"
# shellcheck disable=SC2086
{
    expect 0 "zb-v, 4 stages on 2 ranks, 2 micro-batches, F = B = W = 1: step 13 units" run.yaml $v --set parallel.schedule=zb-v
    expect 0 "written to v.csv" run.yaml $v --set parallel.schedule=zb-v --csv v.csv
    [ "$(grep -o '[0-3][FIW][01]' v.csv | sort -u | wc -l)" -eq 24 ] || fail "v.csv: $(cat v.csv)"
    expect 0 "file, 4 stages on 2 ranks, 2 micro-batches, F = B = W = 1: step 13 units" run.yaml $v --set parallel.chunks=2 --set parallel.schedule=v.csv
    expect 2 "dusk check: parallel.schedule: absent.csv: No such file" run.yaml $v --set parallel.schedule=absent.csv
    echo 0F0,0F0 >bad.csv
    expect 2 "dusk check: bad.csv: row 1, cell 2: expected 0F0 once, found it in cell 1 too" run.yaml $v \
        --set parallel.schedule=bad.csv
}
expect 2 "--set parallel.chunks: expected 1 with parallel.schedule: 1f1b, found 2" run.yaml --set parallel.chunks=2
expect 2 "--set parallel.chunks: expected 2 with parallel.schedule: zb-v, found 3" run.yaml \
    --set parallel.schedule=zb-v --set parallel.chunks=3
expect 2 "--set parallel.schedule: interleaved: expected micro-batches of a step" run.yaml \
    --set parallel.schedule=interleaved --set parallel.pipeline=3 --set parallel.data=1
expect 2 "dusk check: --schedule: 65536 stages x 65536 micro-batches" run.yaml --schedule \
    --set parallel.pipeline=65536 --set train.global_batch=65536
expect 2 "--set parallel.schedule: expected one of gpipe, 1f1b, interleaved, zb-h1, zb-v or FILE.csv, found zb-h2" run.yaml \
    --set parallel.schedule=zb-h2

# bad LINE TEXT ERROR: run.yaml with a line replaced.
bad() {
    awk -v line="$1" -v text="$2" 'NR == line { $0 = text } { print }' run.yaml >bad.yaml
    expect 2 "bad.yaml:$3" bad.yaml
}
bad 5 "  seqlen: 128" '5:3: unknown key "data.seqlen": did you mean data.seq_len?'
bad 7 "  steps: many" "7:10: train.steps: expected a whole number"
bad 7 "  global_batch: 4" '8:3: key "global_batch" is given twice, first at bad.yaml:7:3'
bad 10 "  lr: *rate" "10:7: anchors and aliases are not read here"
bad 10 "	lr: 1" "10:1: not YAML"
bad 9 "optim: [" "11:1: not YAML"

# Nothing that launches MPI is touched.
if ! OMPI_MCA_btl=absent "$DUSK" check run.yaml >out 2>&1; then
    fail "check starts MPI: $(cat out)"
fi
exit $failed
