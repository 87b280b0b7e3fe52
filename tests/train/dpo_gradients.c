/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/train/dpo_gradients.h"

#include "tests/support/need.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define GRADIENT 1e-4 /* of the tensor's largest value */
#define NORM 2e-4     /* relative */
enum { SAMPLES = 64 };

struct dpo_gradients dpo_gradients_load(void)
{
    return (struct dpo_gradients){
        .stats = facts_load("../align/dpo_grad_stats.json"),
        .sparse = arrays_load("../align/dpo_arrays.safetensors"),
        .whole = arrays_load("../align/dpo_grad_sigmoid.safetensors")};
}

void dpo_gradients_free(struct dpo_gradients *g)
{
    facts_destroy(g->stats);
    arrays_destroy(g->sparse);
    arrays_destroy(g->whole);
}

/* Sum, norm and largest entry at `place` of the stats; gives the latter. Where an
 * entry's error has the limit GRADIENT of the largest one, a sum of n has sqrt(n) times
 * it. */
static double check_figures(const struct dpo_gradients *g, const char *place, int64_t n,
                            const float *x, double *worst)
{
    char key[224];
    double sum = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i];
        largest = fmax(largest, fabs((double)x[i]));
    }
    snprintf(key, sizeof key, "%s/max_abs", place);
    double scale = facts_double(g->stats, key), limit = GRADIENT * scale;
    oracle_within(key, fabs(largest - scale), limit, worst);
    snprintf(key, sizeof key, "%s/sum", place);
    oracle_within(key, fabs(sum - facts_double(g->stats, key)), limit * sqrt((double)n),
                  worst);
    snprintf(key, sizeof key, "%s/l2", place);
    double l2 = facts_double(g->stats, key);
    oracle_within(key, fabs(oracle_l2(n, x) - l2), GRADIENT * l2, worst);
    return scale;
}

/* Entries at round(i (n - 1) / 63), half to even; all if there are no more than 64. */
static void check_entries(const struct dpo_gradients *g, const char *name, int64_t n,
                          const float *x, double limit, double *worst)
{
    const struct array *a = arrays_get(g->sparse, name);
    need(a->elements == (n < SAMPLES ? n : SAMPLES) ? a : NULL, name, "other size");
    for (int64_t i = 0; i < a->elements; i++) {
        double at = (double)i;
        if (n > SAMPLES)
            at = rint(at * (double)(n - 1) / (SAMPLES - 1));
        oracle_within(name, fabs((double)x[(int64_t)at] - (double)a->f32[i]), limit,
                      worst);
    }
}

static void check_tensor(const struct dpo_gradients *g, const struct zero_part *part,
                         const char *policy, const char *loss, double *worst)
{
    char name[96], place[192];
    const float *x = part->moment[0];
    int64_t n = part->tensor.elements;
    tensor_hf_name(&part->tensor, name, sizeof name);
    need(part->shard.end - part->shard.begin == n ? x : NULL, name, "cut over ranks");
    snprintf(place, sizeof place, "cases/%s/%s/%s", policy, loss, name);
    double limit = GRADIENT * check_figures(g, place, n, x, &worst[DPO_FIGURES]);
    snprintf(place, sizeof place, "%s.grad_sample.%s.%s", policy, loss, name);
    check_entries(g, place, n, x, limit, &worst[DPO_ENTRIES]);
    if (strcmp(policy, "policy_near") != 0 || strcmp(loss, "sigmoid") != 0)
        return;
    const struct array *a = arrays_get(g->whole, name);
    need(a->elements == n ? a : NULL, name, "other size");
    oracle_within(name, oracle_max_difference(n, x, a->f32), limit, &worst[DPO_WHOLE]);
}

/* The norm that all tensors have together. */
static double norm_of(const struct dpo_gradients *g, const char *place,
                      const struct model_shape *shape)
{
    double squares = 0;
    for (int i = 0; i < table_count(shape); i++) {
        char name[96], key[256];
        struct tensor x = table_at(shape, i);
        tensor_hf_name(&x, name, sizeof name);
        snprintf(key, sizeof key, "%s/%s/l2", place, name);
        squares += pow(facts_double(g->stats, key), 2);
    }
    return sqrt(squares);
}

bool dpo_gradients_check(const struct dpo_gradients *g, struct dpo_run *r,
                         const char *policy, const char *loss, double norm,
                         double *worst)
{
    char place[128];
    int64_t seen = 0;
    const struct model_shape *shape = engine_shape(r->engine);
    snprintf(place, sizeof place, "cases/%s/%s", policy, loss);
    if (!facts_has(g->stats, place))
        return false;
    oracle_within(place, fabs(norm / norm_of(g, place, shape) - 1), NORM,
                  &worst[DPO_FIGURES]);
    struct zero *z = engine_zero(r->engine);
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part part = zero_part_at(z, i);
        if (part.shard.begin == part.shard.end)
            continue;
        seen++;
        check_tensor(g, &part, policy, loss, worst);
    }
    comm_sum_i64(r->c, &seen, 1);
    need(seen == table_count(shape) ? r : NULL, place, "not every tensor was compared");
    return true;
}
