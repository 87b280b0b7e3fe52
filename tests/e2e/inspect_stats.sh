#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# inspect --stats against the numbers of the safetensors file, and diff --summary.
. "${srcdir:-.}/tests/e2e/lib.sh"
oracle=$srcdir/tests/oracle/model

# has TEXT: the last output holds TEXT.
has() {
    if grep -qF -- "$1" out; then
        echo "ok: \"$1\""
    else
        fail "no \"$1\" in"
        cat out
    fi
}

# place FILE NAME: first and last byte of a tensor's data, in bytes of the file.
place() {
    head=$(dd if="$1" bs=1 count=8 2>/dev/null | od -An -tu8 | tr -d ' ')
    dd if="$1" bs=1 skip=8 count="$head" 2>/dev/null | tr -d ' ' |
        sed 's/.*"'"$2"'":{[^}]*"data_offsets":\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/' |
        awk -v at=$((8 + head)) '{ print at + $1, at + $2 }'
}

# figure NAME KEY: of a tensor in the JSON of the last output.
figure() {
    sed -n 's/.*{"name": "'"$1"'",[^}]*"'"$2"'": \([^,}]*\).*/\1/p' out
}

# ---- a copy of a model with a NaN and two Inf ----
expect 0 1 - import "$oracle/tiny-mistral" -o base.h5
expect 0 1 - export base.h5 -o model
cp model/model.safetensors whole.safetensors
at=$(place model/model.safetensors model.layers.2.mlp.up_proj.weight)
printf '\000\000\300\177\000\000\200\177\000\000\200\377' |
    dd of=model/model.safetensors bs=1 seek=$((${at% *} + 40)) conv=notrunc 2>/dev/null
expect 0 1 "are NaN or Inf" import model -o odd.h5

expect 0 1 - inspect base.h5 --stats
awk 'length > 120 { print; bad = 1 } END { exit bad }' out || fail "wider than 120"
has "layers.3.post_attention_layernorm     F32              64"
has "in all 39 tensors"
expect 0 1 - inspect base.h5 --stats --json
cp out one.json
for tensor in "model.norm norm" "model.layers.1.self_attn.k_proj layers.1.k_proj" "lm_head lm_head"; do
    ours=${tensor#* }
    at=$(place whole.safetensors "${tensor% *}.weight")
    dd if=whole.safetensors bs=4 iflag=skip_bytes,count_bytes \
        skip="${at% *}" count=$((${at#* } - ${at% *})) 2>/dev/null | od -An -v -w4 -tf4 >values
    awk -v name="$ours" -v mean="$(figure "$ours" mean)" -v rms="$(figure "$ours" rms)" \
        -v most="$(figure "$ours" max_abs)" -v elements="$(figure "$ours" elements)" '
        { n++; s += $1; q += $1 * $1; a = $1 < 0 ? -$1 : $1; if (a > m) m = a }
        function off(x, y) { return x > y ? x - y : y - x }
        END {
            printf "%s: %d values, mean %.9g and %.9g, rms %.9g and %.9g, max %.9g and %.9g\n", \
                name, n, mean, s / n, rms, sqrt(q / n), most, m
            exit !(n == elements && off(mean, s / n) < 1e-7 && off(rms, sqrt(q / n)) < 1e-7 &&
                off(most, m) < 1e-6)
        }' values || fail "$ours: not the numbers of the file"
done
expect 0 3 - inspect base.h5 --stats --json
same out one.json "stats of 3 ranks and 1"

expect 0 2 - inspect odd.h5 --stats
has "layers.2.up_proj                      F32          11,264"
[ "$(awk '$1 == "layers.2.up_proj" { print $7, $8 }' out)" = "1 2" ] || fail "NaN and Inf: $(grep layers.2.up out)"
[ "$(awk '$1 == "layers.1.up_proj" { print $7, $8 }' out)" = "0 0" ] || fail "NaN and Inf of another"
has "mean, rms and max are those of the finite values"
expect 0 1 - upscale base.h5 -o link.h5 --drop 1 --mode link
expect 0 1 - inspect link.h5 --stats --json
for key in mean rms max_abs; do
    [ "$(figure layers.3.q_proj $key)" = "$(cp out o && cp one.json out && figure layers.1.q_proj $key && cp o out)" ] ||
        fail "$key of a link's layer 3 is not that of layer 1"
done

expect 3 1 "not a file that dusk wrote" inspect whole.safetensors --stats
expect 3 2 "No such file" inspect absent.h5 --stats
expect 2 2 "expected one at a time" inspect base.h5 --stats --verify
size=$(wc -c <base.h5)
cp base.h5 bad.h5
byte=$(dd if=bad.h5 bs=1 skip=$((size / 2)) count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
printf "$(printf '\\%03o' $((byte ^ 16)))" |
    dd of=bad.h5 bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
expect 3 2 "damaged: bytes " inspect bad.h5 --stats
expect 3 1 "damaged: bytes " inspect bad.h5 --stats

# ---- diff --summary ----
expect 0 1 - import "$oracle/tiny-mistral-bf16" -o rounded.h5
expect 1 1 - diff base.h5 rounded.h5
cp out rows
expect 1 1 - diff base.h5 rounded.h5 --summary
awk 'length > 120 { print; bad = 1 } END { exit bad }' out || fail "wider than 120"
has "norm                                      1 of      1"
[ "$(wc -l <out)" -eq 14 ] || fail "expected a head, 12 roles and a total: $(cat out)"
# The largest difference and the elements that differ, of each role: from the rows.
awk '/^layers|^embed|^norm|^lm_head/ {
        role = $1; sub(/.*\./, "", role); gsub(/,/, "", $3)
        n[role]++; d[role] += $3; if ($4 > m[role]) m[role] = $4 }
    END { for (r in n) printf "%s %d %d %s\n", r, n[r], d[r], m[r] }' rows | sort >want
awk 'NR > 1 && $1 != "in" { gsub(/,/, "", $6); print $1, $4, $6, $7 }' out | sort >found
same found want "sums of the rows"
expect 0 1 - diff base.h5 base.h5 --summary
has "in all                                    0 of     39"
expect 1 1 - diff base.h5 rounded.h5 --summary --json
has '"roles": [{"role": "embed_tokens", "tensors": 1, "different": 1, "elements": 32768,'
has '"total": {"tensors": 39, "different": 39,'
expect 1 1 - diff base.h5 link.h5 --summary
has "the models' shapes differ, first in num_hidden_layers"
has "in all                                   27 of     57"

expect 0 1 - tokens "$srcdir/COPYING" -o text.h5 --tokenizer base.h5
expect 3 2 "expected a dusk checkpoint" inspect text.h5 --stats
cat >run.yaml <<'Y'
run: {name: a, dir: runs, seed: 7}
model: {init: base.h5}
data: {train: [{path: text.h5}], seq_len: 32}
train: {steps: 2, global_batch: 4, micro_batch: 1}
optim: {lr: 1.0e-3}
checkpoint: {every: 1, keep: 2}
Y
expect 0 1 - train run.yaml
expect 1 1 - diff runs/a/checkpoints/step-00000001 runs/a/checkpoints/step-00000002 --summary
has "exp_avg_sq q_proj                         4 of      4"
expect 0 2 - inspect runs/a/checkpoints/latest --stats
has "in all 39 tensors"
exit $failed
