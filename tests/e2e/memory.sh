#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Memory is planned: shown by check, held to by the run, refused where it cannot fit; and
# ranks that share cores are told.
. "${srcdir:-.}/tests/e2e/lib.sh"
make_inputs

# Every rank has its row, and the rows add up to the sum.
on 1 check run.yaml --memory --ranks 4 --set parallel.pipeline=2
[ $code -eq 0 ] || fail "check --memory: $(cat err)"
rows=$(awk 'NF > 9 && $1 ~ /^[0-3]$/ { n++; s = 0; for (i = 7; i < NF; i++) s += $i
            if (s != $NF) print "row " $1 ": " s " is not " $NF; total += $NF }
            END { print n, total }' out)
sum=$(sed -n 's/^all ranks: \([0-9.]*\) GB.*/\1/p' out)
echo "$rows $sum" | awk '{ d = $2 / 1e9 - $3; exit !($1 == 4 && d < 0.001 && d > -0.001) }' &&
    echo "ok: check --memory: 4 rows, $sum GB" || {
    fail "check --memory: rows and bytes $rows, sum $sum"
    cat out
}
expect 2 1 "expected the number of ranks, 3" check run.yaml --memory --ranks 3 \
    --set parallel.pipeline=2
OMPI_MCA_btl=absent expect 0 1 - check run.yaml --memory

# A run that cannot fit is refused before it starts, with what would fit.
expect 2 1 "it needs hosts with more memory" train run.yaml --set parallel.node_gb=0.01
expect 2 2 "expected at most the 0.02 GB that it has by parallel.node_gb" train run.yaml \
    --set parallel.node_gb=0.02
[ -e runs/a/metrics.jsonl ] && fail "a refused run left metrics"

# 1.3 GB, random: the peak is within 5 % of the plan.
cat >large.yaml <<'Y'
run: {name: large, dir: runs}
model:
  init: random
  shape: {hidden_size: 512, intermediate_size: 1536, num_hidden_layers: 12,
          num_attention_heads: 8, num_key_value_heads: 4, vocab_size: 32000,
          max_position_embeddings: 128}
data: {train: [{path: text.h5}], seq_len: 64}
train: {steps: 2, global_batch: 2, micro_batch: 1}
optim: {lr: 1.0e-3}
Y
for precision in fp32 bf16; do
    expect 0 1 - train large.yaml --set run.name=$precision \
        --set train.precision=$precision --set train.allow_slow_bf16=true
    peak=$(sed -n 's/^memory: \([0-9.]*\) GB at most on the fullest rank, \([0-9.]*\) GB planned/\1 \2/p' err)
    case $(nm "$DUSK" 2>/dev/null) in
    *__asan_init*) echo "   sanitizers have memory of their own: $peak" ;;
    *) echo "$peak" | awk '{ exit !($2 > 1.05 && $1 / $2 < 1.05 && $1 / $2 > 0.95) }' &&
        echo "ok: $precision: peak and plan: $peak GB" ||
        fail "$precision: peak and plan: $peak GB" ;;
    esac
    rm -rf runs
done

# Two ranks on the same cores.
cores=$(env -u OMP_NUM_THREADS nproc)
OMP_NUM_THREADS=$cores
export OMP_NUM_THREADS
if "$MPIRUN" --version 2>&1 | grep -qi 'open.*mpi\|open-mpi\|openrte'; then
    oversubscribe="--oversubscribe --bind-to none"
    expect 0 2 "warning: ranks share cores: $((2 * cores)) threads on the $cores cores" \
        train run.yaml --set eval.every=0
fi
rm -rf runs
expect 0 1 "binding: 1 rank on 1 host, each on $cores core" train run.yaml
grep -q "share cores" err && fail "one rank shares no cores: $(cat err)"
exit $failed
