#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# import and export on bad input and bad places: exit code, one clear line, nothing left
# behind, old files whole.
. "${srcdir:-.}/tests/e2e/lib.sh"
oracle=$srcdir/tests/oracle/model

# fresh MODEL: a copy of an oracle model as m/, to be damaged.
fresh() {
    rm -rf m
    cp -r "$oracle/$1" m
    chmod -R u+w m
    rm -f m/expect.*
}

header_bytes() {
    od -An -tu8 -N8 "$1" | tr -d ' '
}

# le8 NUMBER: its 8 bytes, little-endian.
le8() {
    number=$1
    for _ in 1 2 3 4 5 6 7 8; do
        printf "\\$(printf %03o $((number & 255)))"
        number=$((number >> 8))
    done
}

# edit FILE SCRIPT: the header of a safetensors file changed by sed, its length too.
edit() {
    n=$(header_bytes "$1")
    head -c $((n + 8)) "$1" | tail -c "$n" | sed "$2" >header.new
    tail -c +$((n + 9)) "$1" >data.new
    {
        le8 "$(wc -c <header.new)"
        cat header.new data.new
    } >"$1"
}

# bad CODE RANKS TEXT ARGUMENT...: fails so, says one line, leaves nothing.
bad() {
    expect "$@"
    lines=$(grep -c '^dusk ' err)
    [ "$2" -eq 1 ] && lines=$(wc -l <err)
    [ "$lines" -eq 1 ] || {
        fail "expected one line on stderr, found $lines"
        cat err
    }
    for left in new.h5 hf *.tmp-*; do
        [ ! -e "$left" ] || {
            fail "$left was left behind"
            rm -rf "$left"
        }
    done
}

# config.json
fresh merge/a
sed -i 's/"vocab_size": 64/"vocab_size": "64"/' m/config.json
bad 3 1 'm/config.json: vocab_size: expected a whole number, found the string "64"' import m -o new.h5
fresh merge/a
sed -i 's/"rope_type": "default"/"rope_type": "yarn"/' m/config.json
bad 3 2 'm/config.json: rope_parameters: dusk computes only' import m -o new.h5
fresh merge/a
sed -i '2i"vocab_size": 64,' m/config.json
bad 3 1 'duplicate object key near' import m -o new.h5
rm m/config.json
bad 3 1 'm/config.json: No such file' import m -o new.h5
bad 3 2 'absent: No such file' import absent -o new.h5
bad 3 1 'expected a Hugging Face model folder, found a file' import "$oracle/merge/a/config.json" -o new.h5

# the header and the offsets
fresh merge/a
truncate -s -1 m/model.safetensors
bad 3 1 'is the file cut?' import m -o new.h5
bad 3 3 'is the file cut?' import m -o new.h5
truncate -s 300 m/model.safetensors
bad 3 1 'but only 292 follow in the file (is it cut?)' import m -o new.h5
truncate -s 5 m/model.safetensors
bad 3 1 'found fewer than 8 bytes' import m -o new.h5
fresh merge/a
le8 100000001 | dd of=m/model.safetensors conv=notrunc status=none
bad 3 1 'header length: expected at most 100000000 bytes, found 100000001' import m -o new.h5
fresh merge/a
le8 60000 | dd of=m/model.safetensors conv=notrunc status=none
bad 3 1 'header length: 60000 bytes, but only' import m -o new.h5
fresh merge/a
edit m/model.safetensors 's/\[4096,8192\]/[4092,8188]/'
bad 3 1 'tensors "lm_head.weight" and "model.embed_tokens.weight" overlap at data offset 4092' import m -o new.h5
fresh merge/a
edit m/model.safetensors 's/"shape":\[16\],"data_offsets":\[8192,8256\]/"shape":[15],"data_offsets":[8196,8256]/'
bad 3 1 'no tensor covers data bytes 8192 to 8196, before "model.layers.0.input_layernorm.weight"' import m -o new.h5
fresh merge/a
printf x >>m/model.safetensors
bad 3 1 'expected the file to end with its last tensor' import m -o new.h5
fresh merge/a
edit m/model.safetensors 's/model.embed_tokens.weight/lm_head.weight/'
bad 3 1 'duplicate object key near' import m -o new.h5

# tensors against the config
fresh merge/a
edit m/model.safetensors 's/"F32","shape":\[64,16\],"data_offsets":\[0,/"I32","shape":[64,16],"data_offsets":[0,/'
bad 3 1 'tensor "lm_head.weight": expected dtype F32, BF16 or F16 for a weight, found I32' import m -o new.h5
fresh merge/a
edit m/model.safetensors 's/"shape":\[64,16\],"data_offsets":\[0,/"shape":[16,64],"data_offsets":[0,/'
bad 3 1 'tensor "lm_head.weight": expected shape [64, 16] by config.json, found [16, 64]' import m -o new.h5
fresh merge/a
sed -i 's/"intermediate_size": 36/"intermediate_size": 40/' m/config.json
bad 3 1 'expected shape [16, 40] by config.json, found [16, 36]' import m -o new.h5
fresh merge/a
edit m/model.safetensors 's/model.layers.2.mlp.up_proj.weight/model.layers.2.mlp.up_prok.weight/'
bad 3 1 'tensor "model.layers.2.mlp.up_prok.weight" does not belong to a MistralForCausalLM of 4 layers' import m -o new.h5
bad 3 1 'm: 1 of 39 tensors are missing, first "model.layers.2.mlp.up_proj.weight"' import m -o new.h5 --ignore-extra
fresh merge/a
sed -i 's/"num_hidden_layers": 4/"num_hidden_layers": 5/' m/config.json
bad 3 1 'm: 9 of 48 tensors are missing, first "model.layers.4.' import m -o new.h5
fresh merge/a
sed -i 's/"num_hidden_layers": 4/"num_hidden_layers": 3/' m/config.json
bad 3 1 'does not belong to a MistralForCausalLM of 3 layers' import m -o new.h5
expect 0 1 'dropped 9 tensors' import m -o new.h5 --ignore-extra
rm -f new.h5

# a tied model with lm_head.weight: fine if it is embed_tokens, else not
fresh merge/a
sed -i 's/"tie_word_embeddings": false/"tie_word_embeddings": true/' m/config.json
bad 3 1 'lm_head.weight differs from model.embed_tokens.weight' import m -o new.h5
n=$(header_bytes m/model.safetensors)
dd if=m/model.safetensors of=embed bs=1 skip=$((n + 8 + 4096)) count=4096 status=none
dd if=embed of=m/model.safetensors bs=1 seek=$((n + 8)) conv=notrunc status=none
expect 0 2 'lm_head.weight equals model.embed_tokens.weight' import m -o new.h5
rm -f new.h5

# shards and the index
fresh tiny-mistral
rm m/model-00003-of-00004.safetensors
bad 3 2 'weight_map names model-00003-of-00004.safetensors, which is not there' import m -o new.h5
fresh tiny-mistral
sed -i 's/"model.norm.weight": "model-00004/"model.norm.weight": "model-00009/' m/model.safetensors.index.json
bad 3 1 'weight_map names model-00009-of-00004.safetensors, which is not there' import m -o new.h5
fresh tiny-mistral
sed -i 's/"model.norm.weight": "model-00004/"model.norm.weight": "model-00001/' m/model.safetensors.index.json
bad 3 1 'tensor "model.norm.weight" is in model-00004-of-00004.safetensors, but the index says model-00001' import m -o new.h5
fresh tiny-mistral
sed -i 's/"model.norm.weight"/"model.noun.weight"/' m/model.safetensors.index.json
bad 3 1 'model.norm.weight' import m -o new.h5
fresh tiny-mistral
sed -i 's/"weight_map": {/&"model.ghost.weight": "model-00001-of-00004.safetensors",/' m/model.safetensors.index.json
bad 3 1 'tensor "model.ghost.weight" is not in model-00001-of-00004.safetensors, where the index says' import m -o new.h5
fresh tiny-mistral
sed -i 's/"weight_map": {/&"x": "..\/x",/' m/model.safetensors.index.json
bad 3 1 'weight_map: "x": expected a file name, found the string "../x"' import m -o new.h5
fresh tiny-mistral
sed -i 's/"weight_map": {/&"model.norm.weight": "model-00004-of-00004.safetensors",/' m/model.safetensors.index.json
bad 3 1 'duplicate object key near' import m -o new.h5
fresh tiny-mistral
cp m/model-00001-of-00004.safetensors m/model-00005-of-00004.safetensors
sed -i 's/"weight_map": {/&"x": "model-00005-of-00004.safetensors",/' m/model.safetensors.index.json
bad 3 1 'is in two shards, m/model-00001-of-00004.safetensors and m/model-00005-of-00004.safetensors' import m -o new.h5
fresh tiny-mistral
rm m/*.index.json
bad 3 1 'm: expected model.safetensors or model.safetensors.index.json, found neither' import m -o new.h5
touch m/pytorch_model.bin
bad 3 1 'found pytorch_model.bin' import m -o new.h5

# the tokenizer
fresh merge/a
cp "$oracle/tiny-mistral/tokenizer.model" m
bad 3 1 "m/tokenizer.model: 512 pieces, more than config.json's vocab_size 64" import m -o new.h5
echo nonsense >m/tokenizer.model
bad 3 2 m/tokenizer.model import m -o new.h5

# NaN and Inf are named, and come back
fresh merge/a
n=$(header_bytes m/model.safetensors)
printf '\000\000\300\177\000\000\200\377' |
    dd of=m/model.safetensors bs=1 seek=$((n + 8 + 4096)) conv=notrunc status=none
expect 0 2 'warning: import: model.embed_tokens.weight: 2 of 1024 values are NaN or Inf' import m -o new.h5
expect 0 1 'warning: export: model.embed_tokens.weight: 2 of 1024 values are NaN or Inf' export new.h5 -o hf
same m/model.safetensors hf/model.safetensors "NaN travels"
rm -rf new.h5 hf

# the command line
fresh merge/a
bad 2 1 '-o CKPT is required' import m
bad 2 1 '--dtype: expected keep|f32|bf16, found "f64"' import m -o new.h5 --dtype f64
expect 0 1 - import m -o base.h5
cp base.h5 before.h5
bad 2 1 'base.h5: exists; --force replaces it' import m -o base.h5
bad 2 1 '--shard-bytes' export base.h5 -o hf --shard-bytes 0
bad 2 1 '-o HFDIR is required' export base.h5
bad 3 2 'absent.h5' export absent.h5 -o hf
truncate -s -4 m/model.safetensors
bad 3 1 'is the file cut?' import m -o base.h5 --force
same base.h5 before.h5 "a failed import leaves the old checkpoint"

# the same bytes on any ranks
fresh hostile-llama
expect 0 1 'dropped 3 tensors' import m -o one.h5
expect 0 3 'dropped 3 tensors' import m -o three.h5
same one.h5 three.h5 "1 and 3 ranks"

# places where nothing can be written, or not enough
fresh tiny-mistral
bad 4 1 'absent/new.h5' import m -o absent/new.h5
bad 4 2 'absent/hf' export base.h5 -o absent/hf
if [ "$(id -u)" -eq 0 ]; then
    closed=/proc
else
    mkdir closed && chmod 555 closed
    closed=closed
fi
bad 4 1 "$closed/" import m -o "$closed/new.h5"
bad 4 2 "$closed/" export base.h5 -o "$closed/hf"
program=$DUSK
cat >limited <<S
#!/bin/sh
ulimit -f 64
exec "$program" "\$@"
S
chmod +x limited
DUSK=./limited
bad 4 2 'ulimit -f' import m -o new.h5
"$program" import m -o big.h5 2>err || fail "import of tiny-mistral"
bad 4 2 'File too large' export big.h5 -o hf
DUSK=$program

# one rank alone cannot write
"$MPIRUN" $oversubscribe --mca btl self,tcp -n 1 "$program" import m -o new.h5 : \
    -n 1 ./limited import m -o new.h5 >out.text 2>err </dev/null
code=$?
if [ $code -ne 4 ] || ! grep -q '^dusk import: rank 1 .*File too large' err; then
    fail "one rank cannot write: exit code $code, expected 4"
    cat err
else
    echo "ok: one rank cannot write: $code, $(grep '^dusk ' err)"
fi
[ ! -e new.h5 ] && ! ls ./*.tmp-* >/dev/null 2>&1 || fail "one rank cannot write: files are left"

# a full disk, where this process may mount one
if unshare -rm true 2>/dev/null; then
    cat >full <<S
#!/bin/sh
exec unshare -rm sh -c 'mount -t tmpfs -o size=200k none small && "\$@"; code=\$?
    ls -A small >left; exit \$code' sh "$program" "\$@"
S
    chmod +x full
    mkdir small
    DUSK=./full
    bad 4 1 'No space left' import m -o small/new.h5
    [ ! -s left ] || fail "a full disk: $(cat left) is left"
    bad 4 1 'no space:' export big.h5 -o small/hf
    [ ! -s left ] || fail "a full disk: $(cat left) is left"
    DUSK=$program
fi

# what may be replaced
expect 0 1 - export base.h5 -o made
expect 2 1 'made exists; --force replaces it' export base.h5 -o made
expect 0 2 - export base.h5 -o made --force
same made/model.safetensors "$oracle/merge/a/model.safetensors" "replaced"
mkdir made/sub
expect 2 1 'there is a folder in it' export base.h5 -o made --force
rmdir made/sub
rm made/config.json
expect 2 1 'is no model folder (no config.json)' export base.h5 -o made --force
mkdir empty
expect 0 1 - export base.h5 -o empty/
same empty/model.safetensors "$oracle/merge/a/model.safetensors" "an empty folder"
expect 2 1 'found a file' export base.h5 -o base.h5 --force
same base.h5 before.h5 "a checkpoint is no folder"

# a damaged checkpoint is found out, the old folder stays
bytes=$(wc -c <base.h5)
printf '\377' | dd of=base.h5 bs=1 seek=$((bytes / 2)) conv=notrunc status=none
on 2 export base.h5 -o empty --force
if [ $code -ne 3 ]; then
    fail "a damaged checkpoint: exit code $code, expected 3"
else
    echo "ok: a damaged checkpoint: $code, $(grep '^dusk ' err)"
fi
same empty/model.safetensors "$oracle/merge/a/model.safetensors" "old folder"
! ls -d ./*.tmp-* >/dev/null 2>&1 || fail "a damaged checkpoint: files are left"
exit $failed
