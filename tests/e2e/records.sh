#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# dusk tokens --template: record sets of every shape, --show, inspect, packs, any number
# of ranks, bad lines, killed runs.
. "${srcdir:-.}/tests/e2e/lib.sh"
model=$srcdir/tests/oracle/align/tokenizer/tokenizer.model
other=$srcdir/tests/oracle/model/tokenizer/mistral-v1/tokenizer.model

# says TEXT WHAT: TEXT is in the output of the last command.
says() {
    if grep -qF -- "$1" out; then
        echo "ok: $2: \"$1\""
    else
        fail "$2: output without \"$1\":"
        cat out
    fi
}

# told TEXT: TEXT is on stderr of the last command.
told() {
    if grep -qF -- "$1" err; then
        echo "ok: \"$1\""
    else
        fail "stderr without \"$1\":"
        cat err
    fi
}

# only NAME...: the folder `work` holds these files and no others.
only() {
    found=$(ls -A work | tr '\n' ' ')
    [ "$found" = "$*${*:+ }" ] || fail "work holds $found instead of $*"
}

# bad CODE RANKS TEXT ARGUMENT...: fails so, with one line of an error; nothing is left
# in work.
bad() {
    expect "$@"
    lines=$(grep -c -F -- "$3" err)
    [ "$lines" -eq 1 ] || {
        fail "expected one line on stderr, found $lines"
        cat err
    }
    only
}

# make ARGUMENT...: a record set work/s.h5 on one rank.
make() {
    expect 0 1 - tokens "$@" -o work/s.h5 --tokenizer "$model" --force
}

# learnt N TEXT: what is counted of record N, pieces put together.
learnt() {
    "$DUSK" tokens --show "$1" work/s.h5 --tokenizer "$model" >out 2>err
    found=$(sed -n 's/^ *[0-9]* *[0-9]*  \[\(.*\)\]$/\1/p' out | tr -d '\n')
    if [ "$found" = "$2" ]; then
        echo "ok: learnt of record $1: $found"
    else
        fail "learnt of record $1: $found instead of $2"
        cat out err
    fi
}

mkdir work
cat >messages.jsonl <<'J'

{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}, {"role": "assistant", "content": "4"}]}
   
{"messages": [{"role": "user", "content": "5"}, {"role": "assistant", "content": "6"}]}
J
echo '{"conversations": [{"from": "human", "value": "1"}, {"from": "gpt", "value": "7"}]}' >sharegpt.jsonl
echo '{"instruction": "1", "input": "2", "output": "8"}' >alpaca.jsonl
echo '{"prompt": "1", "completion": "9"}' >completion.jsonl
echo '{"system_prompt": "s", "question": "1", "response": "10"}' >openorca.jsonl
echo '{"text": "11"}' >text.jsonl
cat >pairs.jsonl <<'J'
{"prompt": "1", "chosen": "2", "rejected": "3"}
{"question": "1", "system": "s", "chosen": "4", "rejected": "4"}
{"prompt": "1", "chosen": "5", "rejected": "6"}
J
echo '{"prompt": "0", "chosen": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}], "rejected": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "3"}], "messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]}' >ultra.jsonl

# Every shape is recognised and named, and can be given.
for shape in messages sharegpt alpaca completion openorca pairs; do
    make $shape.jsonl --template zephyr
    told "$shape.jsonl: $shape"
    mv work/s.h5 work/auto.h5
    make $shape.jsonl --template zephyr --format $shape
    same work/s.h5 work/auto.h5 "--format $shape"
    rm work/auto.h5
done
make text.jsonl --template plain_text
told "text.jsonl: text"
learnt 0 '▁11</s>'
make ultra.jsonl --template zephyr
told "ultra.jsonl: pairs"
make messages.jsonl sharegpt.jsonl alpaca.jsonl completion.jsonl openorca.jsonl --template zephyr
says "work/s.h5: 6 records, " "several files"
learnt 0 '2</s>4</s>'
learnt 1 '6</s>'
learnt 2 '7</s>'
learnt 3 '8</s>'
learnt 4 '9</s>'
learnt 5 '10</s>'
says "work/s.h5: record 5 of 6: " "--show names the record"
says "---- record 5: " "--show names the document"
expect 2 1 "expected a record from 0 to 5, found 6" tokens --show 6 work/s.h5 --tokenizer "$model"
expect 3 1 "work/s.h5: made with another tokenizer" tokens --show 0 work/s.h5 --tokenizer "$other"

# Pairs: equal answers are dropped; the rejected part goes on from the prompt.
make pairs.jsonl --template zephyr
says "work/s.h5: 2 pairs, " "pairs"
says "1 dropped: both answers are the same" "equal answers"
learnt 0 '2</s>3</s>'
says "---- prompt: " "--show of a pair"
says ", 0 counted" "a prompt does not count"
first=$(sed -n '/^---- chosen/{n;p;}' out | awk '{print $1}')
again=$(sed -n '/^---- rejected/{n;p;}' out | awk '{print $1}')
[ -n "$first" ] && [ "$first" = "$again" ] || fail "answers begin at positions $first and $again"

# Options: what is learnt, BOS, renamed fields, a template of one's own, the default.
make completion.jsonl --template plain_completion --train-on all
learnt 0 '▁19</s>'
make completion.jsonl --template plain_completion --bos no
learnt 0 '9</s>'
grep -q '<s>' out && fail "--bos no left a BOS"
make completion.jsonl --template zephyr --bos yes
learnt 0 '9</s>'
[ "$(grep -c '<s>' out)" -eq 1 ] || fail "--bos yes: expected one BOS"
make openorca.jsonl --template zephyr --map prompt=question,completion=response
told "openorca.jsonl: completion"
make completion.jsonl --format completion
expect 0 1 - inspect work/s.h5
says "solar_eos" "the default template"
cat >own.yaml <<'Y'
name: own
user_before: "Q "
user_after: "\n"
reply_before: "A "
reply_end: "{eos}"
bos: true
Y
make completion.jsonl --template own.yaml
learnt 0 '9</s>'
expect 0 1 - inspect work/s.h5
says "own" "the set names its template"
make completion.jsonl --template solar
told "warning: template solar puts no end mark behind replies"
bad_set() {
    rm -f work/s.h5
    bad "$@"
}
bad_set 2 1 "template: expected one of solar_eos, solar" tokens completion.jsonl -o work/s.h5 --tokenizer "$model" --template nowhere
{ cat own.yaml; echo 'ueser: a'; } >bad.yaml
bad_set 2 1 'bad.yaml:7:1: unknown key "ueser"' tokens completion.jsonl -o work/s.h5 --tokenizer "$model" --template bad.yaml
bad_set 3 1 "nowhere.yaml: No such file" tokens completion.jsonl -o work/s.h5 --tokenizer "$model" --template nowhere.yaml
bad_set 2 1 "template chatml_added: expected a tokenizer with the token <|im_start|>" tokens completion.jsonl -o work/s.h5 --tokenizer "$model" --template chatml_added

# Too long, nothing learnt.
cat >long.jsonl <<'J'
{"prompt": "1", "completion": "2"}
{"prompt": "1", "completion": "22222222222222222222"}
{"prompt": "11111111111111111111", "completion": "2"}
J
make long.jsonl --template plain_completion --max-length 12
says "work/s.h5: 2 records, " "--too-long truncate"
says "1 cut to 12 tokens" "the cut are counted"
says "1 dropped: nothing of it is learnt" "the uncounted are dropped and counted"
make long.jsonl --template plain_completion --max-length 12 --too-long drop
says "work/s.h5: 1 records, " "--too-long drop"
says "2 dropped: too long" "the dropped are counted"
expect 0 1 - inspect work/s.h5 --json
says '"dropped_too_long": 2' "the counts are in the set"
bad_set 3 1 "long.jsonl:2: expected at most 12 tokens, found " tokens long.jsonl -o work/s.h5 --tokenizer "$model" --template plain_completion --max-length 12 --too-long error --skip-bad
bad_set 3 1 "long.jsonl: expected at least one record to learn from, found none: 3 too long" tokens long.jsonl -o work/s.h5 --tokenizer "$model" --template plain_completion --max-length 2 --too-long drop

# Packs: --show prints one with its documents; the same bytes on any number of ranks.
i=0
while [ $i -lt 300 ]; do
    echo "{\"instruction\": \"Line $i\", \"output\": \"$(printf "%$((i % 40))s" '' | tr ' ' 7)\"}"
    i=$((i + 1))
done >many.jsonl
for n in 1 2 3; do
    expect 0 $n - tokens many.jsonl messages.jsonl -o work/p$n.h5 --tokenizer "$model" --template chatml --pack 200
    expect 0 $n - tokens pairs.jsonl ultra.jsonl -o work/q$n.h5 --tokenizer "$model" --template chatml
done
says "work/q3.h5: 3 pairs, " "pairs on 3 ranks"
for n in 2 3; do
    same work/p1.h5 work/p$n.h5 "$n ranks, packed"
    same work/q1.h5 work/q$n.h5 "$n ranks, pairs"
done
expect 0 1 - inspect work/p1.h5 --json
says '"kind": "dusk record set"' "inspect"
says '"holds": "records"' "inspect"
says '"records": 302' "inspect"
says '"pack_length": 200' "inspect"
says '"template": "chatml"' "inspect"
says '"shape": "messages, alpaca"' "inspect"
says '"source": "many.jsonl, messages.jsonl"' "inspect"
expect 0 1 - inspect work/p1.h5 --verify
says "every block matches its checksum" "inspect --verify"
packs=$("$DUSK" inspect work/p1.h5 | sed -n 's/^  packs *\([0-9]*\)$/\1/p' | head -1)
expect 0 1 - tokens --show $((packs - 1)) work/p1.h5 --tokenizer "$model"
says "pack $((packs - 1)) of $packs: " "--show of a pack"
[ "$(grep -c '^---- record' out)" -ge 2 ] || fail "the last pack has one document"
expect 0 1 - tokens many.jsonl -o work/s.h5 --tokenizer "$model" --template chatml --pack 200 --force
says "of their tokens are in use" "the share of useful tokens"
expect 2 1 "--show: expected a pack from 0 to" tokens --show "$packs" work/p1.h5 --tokenizer "$model"
rm work/*

# Each kind of bad line: file and line, on any number of ranks; skipped if asked for.
good='{"messages": [{"role": "user", "content": "5"}, {"role": "assistant", "content": "6"}]}'
# line NAME TEXT LINE: NAME.jsonl has a bad line 2 between two good ones.
line() {
    { echo "$good"; printf '%s\n' "$3"; echo "$good"; } >"$1.jsonl"
    bad 3 1 "$1.jsonl:2: " tokens "$1.jsonl" -o work/s.h5 --tokenizer "$model" --template zephyr
    told "$2"
    make "$1.jsonl" --template zephyr --skip-bad
    says "1 bad line skipped" "--skip-bad"
    says "$1.jsonl:2: " "--skip-bad lists it"
    says ": 2 records, " "--skip-bad keeps the others"
    rm work/s.h5
}
line json "bad JSON" '{"messages": ['
line twice "a key that is there twice" '{"messages": [], "messages": []}'
line nul "a NUL" '{"messages": [{"role": "user", "content": "\u0000"}, {"role": "assistant", "content": "6"}]}'
line deep "too deep a nesting" "$(awk 'BEGIN {for (i = 0; i < 5000; i++) printf "["}')"
line utf8 "invalid UTF-8" "$(printf '{"messages": "\377"}')"
line role 'found the string "robot"' '{"messages": [{"role": "robot", "content": "5"}]}'
line norole "role" '{"messages": [{"role": "", "content": "5"}]}'
line systems "system" '{"messages": [{"role": "system", "content": "5"}, {"role": "system", "content": "5"}, {"role": "assistant", "content": "6"}]}'
line noreply "assistant" '{"messages": [{"role": "user", "content": "5"}]}'
line empty "expected" '{"messages": []}'
line noshape 'expected a field "messages"' '{"prose": "a"}'
{
    echo "$good"
    awk 'BEGIN {printf "{\"messages\": \""; for (i = 0; i < 17; i++) printf "%1048576s", ""; print "\"}"}'
    echo "$good"
} >huge.jsonl
bad 3 1 "huge.jsonl:2: expected a line of at most 16 MiB" tokens huge.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr
# Longer than the largest document of text: not kept in memory, skipped on request.
{
    echo "$good"
    awk 'BEGIN {printf "{\"messages\": \""; for (i = 0; i < 70; i++) printf "%1048576s", ""; print "\"}"}'
    echo "$good"
} >giant.jsonl
for n in 1 2; do
    bad 3 $n "giant.jsonl:2: expected a line of at most 16 MiB, found 734003" tokens giant.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr
    rm -f giant.h5
    on $n tokens giant.jsonl -o giant.h5 --tokenizer "$model" --template zephyr --skip-bad
    if [ $code -eq 0 ] && grep -q "giant.jsonl:2: expected a line of at most 16 MiB" err out; then
        echo "ok: giant line skipped on $n ranks"
    else
        fail "giant.jsonl --skip-bad on $n ranks: exit code $code: $(tail -n 3 err)"
    fi
done
for n in 1 2 3; do
    bad 3 $n "role.jsonl:2: " tokens many.jsonl role.jsonl json.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr
done
echo '{"prose": "a"}' >prose.jsonl
bad 3 1 "prose.jsonl:1: expected the fields of a known shape" tokens prose.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr
bad 3 1 "1 bad lines, the first prose.jsonl:1: " tokens prose.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr --skip-bad
: >none.jsonl
bad 3 2 "none.jsonl: expected at least one record" tokens none.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr
bad 3 1 "template alpaca: expected one user message, found 2" tokens messages.jsonl -o work/s.h5 --tokenizer "$model" --template alpaca

# Usage.
bad 2 1 "found pairs in pairs.jsonl and records (alpaca) in alpaca.jsonl" tokens alpaca.jsonl pairs.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr
bad 2 2 "pairs.jsonl: --pack: expected records, found pairs" tokens pairs.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr --pack 100
bad 2 1 "--train-on all: expected records, found pairs" tokens pairs.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr --train-on all
bad 2 1 "--max-length: expected at most --pack 100, found 200" tokens alpaca.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr --pack 100 --max-length 200
bad 2 1 "--pack: is for record sets: --template NAME" tokens alpaca.jsonl -o work/s.h5 --tokenizer "$model" --pack 100
bad 2 1 "--no-bos: is for token sets" tokens alpaca.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr --no-bos
bad 2 1 "--bos: expected template, yes or no, found" tokens alpaca.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr --bos maybe
bad 2 1 'found "promt"; did you mean prompt?' tokens alpaca.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr --map promt=question
bad 2 1 "--pack" tokens alpaca.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr --pack 1
bad 3 1 "nowhere.jsonl: cannot open" tokens nowhere.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr

# An old set is kept, whole, unless --force is given and the new one is.
make messages.jsonl --template zephyr
cp work/s.h5 old.h5
expect 2 1 "work/s.h5: exists; --force replaces it" tokens alpaca.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr
expect 3 2 "role.jsonl:2: " tokens role.jsonl -o work/s.h5 --tokenizer "$model" --template zephyr --force
same work/s.h5 old.h5 "after a failure"
only s.h5
rm work/s.h5

# A run that is killed leaves nothing under the final name; the next one cleans up.
i=0
while [ $i -lt 800 ]; do
    cat many.jsonl
    i=$((i + 1))
done >killed.jsonl
"$DUSK" tokens killed.jsonl -o work/k.h5 --tokenizer "$model" --template chatml --pack 200 >out 2>err </dev/null &
killed=$!
i=0
while ! ls work/k.h5.tmp-* >/dev/null 2>&1 && [ $i -lt 100 ]; do
    i=$((i + 1))
    sleep 0.05
done
kill -9 $killed
wait $killed 2>/dev/null
[ -e work/k.h5 ] && fail "a killed run left work/k.h5"
ls work/k.h5.tmp-* >/dev/null 2>&1 || fail "the run was not killed in time"
expect 0 1 - tokens many.jsonl -o work/k.h5 --tokenizer "$model" --template chatml
only k.h5

exit $failed
