#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What training and evaluation refuse: one line, the right code on every rank, before the
# first step.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_inputs

# refuse CODE RANKS TEXT ARGUMENT...: as expect, and dusk says just one line.
refuse() {
    expect "$@"
    lines=$(grep -c '^dusk \|^--set \|^[^ ]*:[0-9]*:[0-9]*: ' err)
    [ "$lines" -eq 1 ] || fail "expected one line from dusk, found $lines: $(cat err)"
}

refuse 2 2 "run.yaml: " train absent/run.yaml
refuse 2 2 "parallel.pipeline x parallel.data is 2 x 2, expected the number of ranks, 2" \
    train run.yaml --set parallel.pipeline=2 --set parallel.data=2
refuse 2 3 "expected the number of ranks, 3" train run.yaml --set parallel.pipeline=2
refuse 2 3 "train.global_batch is 8, expected a multiple of data x micro_batch = 3 x 1" \
    train run.yaml
refuse 2 4 "layers" train run.yaml --set parallel.pipeline=4 --set 'parallel.split=[1,1,1,1]'
refuse 2 1 "--set optim.lr: expected" train run.yaml --set optim.lr=fast
refuse 2 1 "--set optim.lrr: unknown key" train run.yaml --set optim.lrr=1
refuse 2 2 "data.seq_len is 512, but the model has at most 256 positions" \
    train run.yaml --set data.seq_len=512
refuse 2 2 "model.layers" train run.yaml --set 'model.layers=0:3,1:9'
refuse 3 2 "absent.h5" train run.yaml --set model.init=absent.h5
refuse 3 2 "absent.h5" train run.yaml --set 'data.train=[{path: absent.h5}]'
refuse 3 2 "base.h5" train run.yaml --set 'data.train=[{path: base.h5}]'
refuse 3 2 "text.h5" train run.yaml --set model.init=text.h5
refuse 3 1 "text.h5" eval text.h5 --tokens text.h5
refuse 2 1 "--seq-len is 300" eval base.h5 --tokens text.h5 --seq-len 300
refuse 2 1 "--tokens SET.h5 is required" eval base.h5
refuse 2 3 "pipeline" eval base.h5 --tokens text.h5 --pipeline 2

# Another tokenizer.
"$DUSK" tokens "$srcdir/COPYING" -o other.h5 \
    --tokenizer "$srcdir/tests/oracle/model/tokenizer/mistral-v1/tokenizer.model" >/dev/null 2>&1
refuse 3 2 "other.h5: made with tokenizer" train run.yaml --set 'data.train=[{path: other.h5}]'

# Token ids beyond the vocabulary of a model that names no tokenizer.
"$DUSK" import "$srcdir/tests/oracle/model/tiny-llama-ropetheta" -o small.h5 >/dev/null 2>&1
refuse 3 2 "text.h5: token ids go up to 511, but the model's vocabulary has 128" \
    train run.yaml --set model.init=small.h5 --set model.layers=null

# NaN in a weight: import warns and names it, training and evaluation refuse.
cp -r "$srcdir/tests/oracle/model/tiny-mistral-bf16" nan
chmod -R u+w nan
printf '\377\377' | dd of=nan/model.safetensors bs=1 conv=notrunc \
    seek="$(($(stat -c %s nan/model.safetensors) - 2))" 2>/dev/null
expect 0 1 "NaN" import nan -o nan.h5
refuse 3 2 "has 1 values that are NaN or Inf" train run.yaml --set model.init=nan.h5
refuse 3 4 "has 1 values that are NaN or Inf" eval nan.h5 --tokens text.h5 --pipeline 2

# BLIS told to use another kernel family on one rank only.
cat >one.sh <<'S'
[ "${OMPI_COMM_WORLD_RANK:-0}" = 1 ] && export BLIS_ARCH_TYPE=6
exec "$DUSK" eval base.h5 --tokens text.h5 --pipeline 2
S
if [ -n "$oversubscribe" ]; then
    DUSK=$DUSK timeout 300 "$MPIRUN" --oversubscribe -n 2 sh one.sh >out 2>err </dev/null
    code=$?
    if [ $code -ne 2 ] || ! grep -q "set BLIS_ARCH_TYPE on all ranks or on none" err; then
        fail "two kernel families: exit code $code"
        cat err
    else
        echo "ok: two kernel families: 2"
    fi
fi

# Damage: a byte of a weight, of a token, a cut file.
flip() { printf '\252' | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null; }
cp base.h5 flipped.h5
flip flipped.h5 200000
refuse 3 2 "flipped.h5" train run.yaml --set model.init=flipped.h5
refuse 3 2 "flipped.h5" eval flipped.h5 --tokens text.h5 --pipeline 2
head -c 200000 base.h5 >cut.h5
refuse 3 2 "cut.h5" train run.yaml --set model.init=cut.h5
cp text.h5 flipped-text.h5
flip flipped-text.h5 "$(($(stat -c %s text.h5) / 2))"
refuse 3 2 "flipped-text.h5" train run.yaml --set 'data.train=[{path: flipped-text.h5}]'

# A folder that cannot be written, and a full disk.
mkdir -p full
if mount -t tmpfs -o size=64k none full 2>/dev/null; then
    expect 4 2 "full/" train run.yaml --set run.dir=full --set parallel.pipeline=2
    umount full
fi
: >file
refuse 4 2 "file" train run.yaml --set run.dir=file

[ -d runs/a/checkpoints ] && [ -n "$(ls runs/a/checkpoints)" ] && fail "a checkpoint was left"
[ -e runs/a/lock ] && fail "a lock was left"
exit $failed
