#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# dusk bench: every section measures something, alone and on ranks; the JSON holds what the
# table shows; nothing is left behind without a wish for it.
. "${srcdir:-.}/tests/e2e/lib.sh"
export HOME="$folder"
small="--size tiny --seconds 0.01 --memory-bytes 2M --disk-bytes 1M --no-profile"

# shellcheck disable=SC2086
expect 0 1 - bench gemm memory ops step disk $small --json rows.json
for section in gemm memory ops step disk; do
    grep -q "\"section\": \"$section\"" rows.json || fail "no row of $section in the JSON"
done
awk '/"median"/ && !/"median": [0-9.e+-]+/ { bad = 1 } END { exit bad }' rows.json ||
    fail "a median that is no number"
grep -q '"name": "tokens", "unit": "1/s"' rows.json || fail "no tokens/s of a step"
if "$DUSK" check --precision | grep -q bf16; then
    grep -q 'tiny, bf16, pipeline 1 x data 1' rows.json || fail "no step in bf16"
fi
# shellcheck disable=SC2086
expect 0 2 - bench net step $small --pipeline 2 --json ranks.json
grep -q '"section": "net"' ranks.json || fail "no row of net in the JSON"
[ -e .cache ] && fail "a profile was saved in spite of --no-profile"
# shellcheck disable=SC2086
expect 2 1 "frobnicate" bench frobnicate $small
expect 2 1 "--size" bench --size huge
exit $failed
