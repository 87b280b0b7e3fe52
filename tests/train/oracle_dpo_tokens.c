/* SPDX-License-Identifier: Apache-2.0 */
/* The log-probability of every token of the oracle's answers, with prompts apart and
 * shared, as TRL has it; and what goes in: ids and masks. */
#include "tests/train/dpo_run.h"

#include "tests/support/need.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN 1e-5
enum { ROWS = 2 * DPO_SEQ_LEN, LENGTH = DPO_SEQ_LEN, TARGETS = LENGTH - 1 };

/* The whole model as one stage that runs a pair at a time. */
struct model {
    struct slab slab;
    float *weights;
    struct stage *stage;
};

static struct model model_of(const struct oracle_model *m, struct gemm *gemm)
{
    struct err err = {0};
    struct model x = {0};
    int layers = m->shape.layers;
    int failed = slab_init(&x.slab, &m->shape, 0, layers, true, true, &err);
    need(failed ? NULL : m, m->name, err.text);
    x.weights = need(calloc((size_t)x.slab.weights, sizeof *x.weights), "w", "none");
    for (int i = 0; i < x.slab.entries; i++) {
        char name[96];
        const struct slab_entry *e = &x.slab.entry[i];
        tensor_hf_name(&e->tensor, name, sizeof name);
        const struct array *a = arrays_get(m->weights, name);
        need(a->elements == e->tensor.elements ? a : NULL, name, "other size");
        memcpy(x.weights + e->weight_at, a->f32, (size_t)a->elements * sizeof(float));
    }
    struct stage_spec spec = {.shape = &m->shape,
                              .layers = layers,
                              .embed = true,
                              .head = true,
                              .max_rows = ROWS,
                              .max_length = LENGTH,
                              .slots = 1,
                              .dtype = DTYPE_F32};
    x.stage = need(stage_create(&spec, &x.slab, x.weights, NULL, gemm, &err), m->name,
                   err.text);
    stage_weights_changed(x.stage);
    return x;
}

static void model_free(struct model *x)
{
    stage_destroy(x->stage);
    slab_fini(&x->slab);
    free(x->weights);
}

/* The oracle's arrays, rows of chosen answers before those of rejected ones. */
struct expected {
    const float *ids, *completion; /* [2 pairs, LENGTH] */
    const float *logps;            /* [2 pairs, TARGETS], t predicts token t + 1 */
};

/* Of pair i: found [2 pairs, TARGETS]. Returns the counted tokens. */
static int run_pair(const struct model *m, const int32_t *slots, int i, bool sharing,
                    struct batch *b, const struct expected *x, float *found)
{
    float row_nll[ROWS];
    double nll[2];
    int counted = 0;
    const int32_t *slot = slots + i * pairs_slot_words(DPO_SEQ_LEN);
    pairs_fill(b, 1, DPO_SEQ_LEN, slot, sharing);
    struct stage_loss loss = {.target = b->target, .nll = nll, .row_nll = row_nll};
    stage_forward(m->stage, 0, &b->rows, b->ids, NULL, NULL, &loss);
    need(b->rows.segments == 2 ? b : NULL, "pair", "not two answers");
    for (int side = 0; side < 2; side++) {
        int at = side * DPO_PAIRS + i;
        const float *ids = x->ids + at * LENGTH, *mask = x->completion + at * LENGTH;
        for (int r = b->segment_begin[side]; r < b->segment_begin[side + 1]; r++) {
            int t = b->position[r];
            bool counts = b->target[r] >= 0;
            need(t < TARGETS && (float)b->ids[r] == ids[t] ? b : NULL, "ids", "differ");
            need(counts == (mask[t + 1] > 0) ? b : NULL, "mask", "differs");
            need(!counts || (float)b->target[r] == ids[t + 1] ? b : NULL, "target",
                 "differs");
            if (counts)
                found[at * TARGETS + t] = -row_nll[r];
            counted += counts;
        }
    }
    return counted;
}

/* Zero outside of the answers, as the oracle's. */
static float *run(const struct model *m, const int32_t *slots, bool sharing,
                  const struct expected *x)
{
    struct err err = {0};
    struct batch b;
    int counted = 0, expected = 0;
    float *found =
        need(calloc(2 * DPO_PAIRS * TARGETS, sizeof *found), "tokens", "no memory");
    int failed = batch_init(&b, ROWS, 2, &err);
    need(failed ? NULL : found, "batch", err.text);
    for (int i = 0; i < DPO_PAIRS; i++)
        counted += run_pair(m, slots, i, sharing, &b, x, found);
    for (int i = 0; i < 2 * DPO_PAIRS * LENGTH; i++)
        expected += x->completion[i] > 0;
    need(counted == expected ? found : NULL, "tokens", "not all were compared");
    batch_fini(&b);
    return found;
}

static void check_policy(const struct dpo_oracle *o, const char *name,
                         const struct arrays *arrays, const int32_t *slots,
                         struct gemm *gemm)
{
    char path[128];
    snprintf(path, sizeof path, "../align/%s", name);
    struct oracle_model policy = oracle_load(path);
    struct model m = model_of(&policy, gemm);
    snprintf(path, sizeof path, "%s.token_logps", name);
    const struct array *a = arrays_get(arrays, path);
    struct expected x = {arrays_get(arrays, "input_ids")->f32,
                         arrays_get(arrays, "completion_mask")->f32, a->f32};
    int64_t n = 2 * DPO_PAIRS * TARGETS;
    need(a->elements == n ? o : NULL, path, "other size");
    float *found[] = {run(&m, slots, false, &x), run(&m, slots, true, &x)};
    double worst[3] = {0};
    for (int i = 0; i < 2; i++)
        oracle_within(i ? "shared" : "apart",
                      oracle_max_difference(n, found[i], x.logps), TOKEN, &worst[i]);
    oracle_within("shared - apart", oracle_max_difference(n, found[0], found[1]), TOKEN,
                  &worst[2]);
    printf("%s; of their limits: apart %.2g, shared %.2g, their difference %.2g\n",
           name, worst[0], worst[1], worst[2]);
    free(found[0]);
    free(found[1]);
    model_free(&m);
    oracle_free(&policy);
}

int main(void)
{
    struct err err = {0};
    struct gemm *gemm = gemm_create(GEMM_BLIS, gemm_level_here(), &err);
    need(gemm, "gemm", err.text);
    struct dpo_oracle o = dpo_oracle_load();
    struct arrays *arrays = arrays_load("../align/dpo_arrays.safetensors");
    struct pair_sums none[DPO_PAIRS] = {{0}};
    int32_t *slots = dpo_slots(&o, none);
    for (int i = 0; i < ORACLE_CASES; i++)
        check_policy(&o, oracle_cases[i], arrays, slots, gemm);
    printf("PASS\n");
    free(slots);
    arrays_destroy(arrays);
    dpo_oracle_free(&o);
    gemm_destroy(gemm);
    return 0;
}
