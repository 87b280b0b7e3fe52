#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# dusk tokens: sets, --show, any number of ranks, bad input and killed runs.
. "${srcdir:-.}/tests/e2e/lib.sh"
model=$srcdir/tests/oracle/model/tokenizer/tiny512/tokenizer.model
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

# only NAME...: the folder `work` holds these files and no others.
only() {
    found=$(ls -A work | tr '\n' ' ')
    if [ "$found" = "$*${*:+ }" ]; then
        echo "ok: work holds: $found"
    else
        fail "work holds $found instead of $*"
    fi
}

# bad CODE RANKS TEXT ARGUMENT...: fails so, with one line; nothing is left in work.
bad() {
    expect "$@"
    lines=$(grep -c '^dusk ' err)
    [ "$2" -eq 1 ] && lines=$(wc -l <err)
    [ "$lines" -eq 1 ] || {
        fail "expected one line on stderr, found $lines"
        cat err
    }
    only
}

mkdir work
printf 'First Citizen:\nWe are accounted poor citizens.\r\n\n\nSpeak, speak.</s>\n' >a.txt
printf '{"id": 1, "text": "caf\\u00e9\\n"}\n{"text": ""}\n{"text": "two"}' >b.jsonl

# What a set holds, and how it is shown.
expect 0 1 - tokens a.txt b.jsonl -o work/s.h5 --tokenizer "$model"
says "work/s.h5: 5 documents" "documents of text and JSON lines"
expect 0 1 - tokens --show 3 work/s.h5 --tokenizer "$model"
says "work/s.h5: document 3 of 5" "--show"
says "begin, BOS <s>" "--show marks the beginning"
says "end, EOS   </s>" "--show marks the end"
says "<0x0A>" "--show names bytes"
expect 2 1 "expected a document from 0 to 4, found 5" tokens --show 5 work/s.h5 --tokenizer "$model"
expect 3 1 "work/s.h5: made with another tokenizer" tokens --show 0 work/s.h5 --tokenizer "$other"
expect 2 1 "work/s.h5: exists; --force replaces it" tokens a.txt -o work/s.h5 --tokenizer "$model"
expect 0 1 - tokens a.txt -o work/s.h5 --tokenizer "$model" --document file --no-bos --no-eos --parse-special --force
says "work/s.h5: 1 documents" "--document file"
expect 0 1 - tokens --show 0 work/s.h5 --tokenizer "$model"
says " 2             </s>" "--parse-special"
grep -q "BOS\|EOS" out && fail "--no-bos --no-eos left an edge"
expect 0 1 - tokens a.txt -o work/s.h5 --tokenizer "$model" --document blank --force
says "work/s.h5: 2 documents" "--document blank"
expect 0 1 - tokens a.txt -o work/s.h5 --format text --tokenizer "$model" --force
says "work/s.h5: 3 documents" "--document line"
only s.h5

# A checkpoint's tokenizer is the same tokenizer.
expect 0 1 - import "$srcdir/tests/oracle/model/tiny-mistral" -o base.h5
expect 0 1 - tokens a.txt -o work/c.h5 --tokenizer base.h5
same work/s.h5 work/c.h5 "tokenizer from a checkpoint"
rm work/*

# The same bytes on any number of ranks and from any folder.
i=0
while [ $i -lt 200 ]; do
    echo "Line $i of the text, with some words to be split."
    i=$((i + 1))
done >lines.txt
mkdir elsewhere
cp lines.txt b.jsonl elsewhere
for n in 1 2 3; do
    expect 0 $n - tokens lines.txt b.jsonl lines.txt -o work/on$n.h5 --tokenizer "$model" --valid 0.1 --seed 4
done
same work/on1.h5 work/on2.h5 "2 ranks"
same work/on1.h5 work/on3.h5 "3 ranks"
same work/on1.valid.h5 work/on2.valid.h5 "2 ranks, validation"
same work/on1.valid.h5 work/on3.valid.h5 "3 ranks, validation"
expect 0 1 - tokens elsewhere/lines.txt elsewhere/b.jsonl lines.txt -o work/moved.h5 --tokenizer "$model" --valid 0.1 --seed 4
same work/on1.h5 work/moved.h5 "from another folder"
expect 0 1 - tokens lines.txt b.jsonl lines.txt -o work/seed.h5 --tokenizer "$model" --valid 0.1 --seed 5
cmp -s work/on1.valid.h5 work/seed.valid.h5 && fail "--seed changes nothing"
rm work/*

# Bad input.
: >empty.txt
printf '\n\r\n\n' >blank.txt
printf '{"text": "a"}\n{"text": "b"\n' >bad.jsonl
printf '{"text": "a", "text": "b"}\n' >twice.jsonl
printf '{"text": 12}\n' >number.jsonl
printf '{"content": "a"}\n' >field.jsonl
head -c 3000 "$model" >cut.model
for n in 1 2; do
    bad 3 $n "empty.txt: empty text" tokens empty.txt -o work/x.h5 --tokenizer "$model"
    bad 3 $n "blank.txt: empty text" tokens blank.txt -o work/x.h5 --tokenizer "$model"
    bad 3 $n "bad.jsonl:2: expected one JSON object a line, found: column" tokens bad.jsonl -o work/x.h5 --tokenizer "$model"
    bad 3 $n "nowhere.txt: cannot open" tokens a.txt nowhere.txt -o work/x.h5 --tokenizer "$model"
done
bad 3 1 "twice.jsonl:1: expected one JSON object a line, found: column" tokens twice.jsonl -o work/x.h5 --tokenizer "$model"
bad 3 1 'number.jsonl:1: field "text": expected a string, found 12' tokens number.jsonl -o work/x.h5 --tokenizer "$model"
bad 3 1 'field.jsonl:1: expected a field "text", found "content"; --field' tokens field.jsonl -o work/x.h5 --tokenizer "$model"
bad 3 1 "work: expected a regular file" tokens work -o work/x.h5 --tokenizer "$model"
bad 3 1 "cut.model: not a SentencePiece model" tokens a.txt -o work/x.h5 --tokenizer cut.model
bad 3 1 "nowhere.model: cannot open" tokens a.txt -o work/x.h5 --tokenizer nowhere.model
bad 4 1 "nowhere: cannot open the output's folder" tokens a.txt -o nowhere/x.h5 --tokenizer "$model"
bad 2 1 "--format: expected auto, text, jsonl, messages, sharegpt, alpaca, completion, openorca or pairs, found" tokens a.txt -o work/x.h5 --tokenizer "$model" --format csv
bad 2 1 "--document: expected line, blank or file, found" tokens a.txt -o work/x.h5 --tokenizer "$model" --document word
bad 2 1 "--valid" tokens a.txt -o work/x.h5 --tokenizer "$model" --valid 1.5
bad 2 1 "leaves the validation set empty" tokens a.txt -o work/x.h5 --tokenizer "$model" --valid 0.000001
bad 2 1 "expected --tokenizer" tokens a.txt -o work/x.h5
bad 2 1 "expected -o SET.h5" tokens a.txt --tokenizer "$model"
bad 2 1 "--show: expected one set and no -o" tokens --show 1 a.txt b.jsonl --tokenizer "$model"

# No permission: for root a folder where nobody may create files.
mkdir closed
chmod 500 closed
if [ "$(id -u)" -eq 0 ]; then
    bad 4 1 "/proc/x.h5" tokens a.txt -o /proc/x.h5 --tokenizer "$model"
else
    bad 4 1 "closed/x.h5" tokens a.txt -o closed/x.h5 --tokenizer "$model"
    chmod 0 a.txt
    bad 3 1 "a.txt: cannot open: Permission denied" tokens a.txt -o work/x.h5 --tokenizer "$model"
    chmod 600 a.txt
fi

# A run that is killed leaves nothing under the final name; the next one cleans up.
i=0
while [ $i -lt 400 ]; do
    cat lines.txt
    i=$((i + 1))
done >long.txt
"$DUSK" tokens long.txt -o work/k.h5 --tokenizer "$model" >out 2>err </dev/null &
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
expect 0 1 - tokens lines.txt -o work/k.h5 --tokenizer "$model"
only k.h5

exit $failed
