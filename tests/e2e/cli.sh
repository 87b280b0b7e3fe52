#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The program's frame: help, unknown verbs and options, exit codes, output that fails.
set -u
: "${DUSK:?names the program}"
folder=$(mktemp -d) || exit 99
trap 'rm -rf "$folder"' EXIT
failed=0

# expect CODE STREAM TEXT ARGUMENT...: exit code, and TEXT in "out", "err" or nothing "-".
expect() {
    code=$1 stream=$2 text=$3
    shift 3
    "$DUSK" "$@" >"$folder/out" 2>"$folder/err" </dev/null
    found=$?
    if [ $found -ne "$code" ]; then
        echo "FAIL: dusk $*: exit code $found, expected $code"
        cat "$folder/err"
        failed=1
    elif [ "$stream" != - ] && ! grep -qF -- "$text" "$folder/$stream"; then
        echo "FAIL: dusk $*: std$stream without \"$text\":"
        cat "$folder/$stream"
        failed=1
    elif [ "$code" -ne 0 ] && [ $# -gt 0 ] && [ "$(wc -l <"$folder/err")" -ne 1 ]; then
        echo "FAIL: dusk $*: expected one line on stderr, found:"
        cat "$folder/err"
        failed=1
    else
        echo "ok: dusk $*: exit code $found, \"$text\""
    fi
}

expect 2 err "Usage: dusk VERB"
expect 0 out "Usage: dusk VERB" --help
expect 0 out "Usage: dusk VERB" -h
expect 0 out "dusk " --version
expect 0 out ".TH DUSK 1" --man
expect 2 err 'unknown option "--hepl"' --hepl
expect 2 err 'unknown verb "frobnicate" (see dusk --help)' frobnicate
expect 2 err 'unknown verb ""' ""

verbs=$("$DUSK" --help | sed -n '/^Verbs:/,/^$/s/^  \([a-z][a-z]*\) .*/\1/p')
for verb in $verbs; do
    swapped=$(echo "$verb" | sed 's/\(.*\)\(.\)\(.\)$/\1\3\2/')
    [ "$swapped" = "$verb" ] || expect 2 err "did you mean $verb?" "$swapped"
    expect 0 out "Usage: dusk $verb " "$verb" --help
    expect 0 out "Usage: dusk $verb " "$verb" something --frobnicate -h
    expect 2 err "unknown option --frobnicate (see dusk $verb --help)" "$verb" --frobnicate
    expect 2 err "dusk $verb: unknown option --hepl: did you mean --help?" "$verb" --hepl
    if ! "$DUSK" --man | grep -q "^\.SS dusk $verb "; then
        echo "FAIL: dusk --man has no section for $verb"
        failed=1
    fi
    # Help must not start MPI: a launcher's variables that lead nowhere do no harm.
    if ! OMPI_MCA_btl=absent "$DUSK" "$verb" --help >"$folder/out" 2>&1; then
        echo "FAIL: dusk $verb --help starts MPI"
        failed=1
    fi
done

if [ -w /dev/full ]; then
    "$DUSK" --help >/dev/full 2>"$folder/err"
    code=$?
    if [ $code -ne 4 ] || ! grep -q "writing to standard output" "$folder/err"; then
        echo "FAIL: dusk --help on a full disk: exit code $code, expected 4"
        failed=1
    fi
fi

# An unknown option of a verb on two ranks: one line, code 2 on all, nobody is killed.
for verb in $verbs; do
    [ "$verb" = import ] || [ "$verb" = train ] || continue
    "${MPIRUN:-mpirun}" -n 2 "$DUSK" "$verb" --frobnicate >"$folder/out" 2>"$folder/err"
    code=$?
    lines=$(grep -c "unknown option --frobnicate" "$folder/err")
    if [ $code -ne 2 ] || [ "$lines" -ne 1 ]; then
        echo "FAIL: 2 ranks, dusk $verb --frobnicate: exit code $code, $lines lines:"
        cat "$folder/err"
        failed=1
    fi
done
exit $failed
