/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/zero.h"

#include "src/base/mem.h"
#include "src/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Gradients of every tensor, replica and step are drawn from their coordinates, so that
 * each rank can also compute the whole step alone: the sum over replicas by the tree of
 * zero.h, embedding + head, norm, AdamW. The two must agree in every bit, at every
 * pipeline and data degree; so the bits do not depend on the pipeline either. */

/* embed_tokens has more than one message piece for each of two owners. */
static const struct model_shape shape = {.arch = ARCH_LLAMA,
                                         .layers = 5,
                                         .hidden = 64,
                                         .ff = 600,
                                         .heads = 4,
                                         .kv_heads = 2,
                                         .head_dim = 16,
                                         .vocab = 8300,
                                         .max_positions = 64,
                                         .rope_theta = 10000,
                                         .norm_eps = 1e-5};

enum { STEPS = 3, HEAD_STREAM = 1000 };

/* A stage of a model: its slab and arrays. */
struct model {
    struct model_shape shape;
    struct slab slab;
    float *weights, *grads;
};

static float weight_of(const struct tensor *t, int64_t i)
{
    return (float)rng_uniform(7, (uint64_t)t->index, (uint64_t)i) - 0.5f;
}

/* Magnitudes differ a lot, so that another order of sums gives other bits. */
static float gradient_of(const struct tensor *t, bool head, int replica, int step,
                         int64_t i)
{
    uint64_t bits =
        rng_u64(11 + (uint64_t)step, (uint64_t)(t->index + (head ? HEAD_STREAM : 0)),
                (uint64_t)(i * 16 + replica));
    float unit = (float)(bits >> 40) / 0x1p24f - 0.5f;
    return ldexpf(unit, (int)(bits % 12) - 12);
}

static float tree(const struct tensor *t, bool head, int step, int64_t i, int lo,
                  int hi)
{
    if (hi - lo == 1)
        return gradient_of(t, head, lo, step, i);
    int mid = lo + (hi - lo + 1) / 2;
    return tree(t, head, step, i, lo, mid) + tree(t, head, step, i, mid, hi);
}

static void fill_gradients(struct model *m, int replica, int step)
{
    for (int e = 0; e < m->slab.entries; e++) {
        const struct slab_entry *entry = &m->slab.entry[e];
        for (int64_t i = 0; i < entry->tensor.elements; i++)
            m->grads[entry->grad_at + i] +=
                gradient_of(&entry->tensor, entry->tied_head, replica, step, i);
    }
}

static void fill_weights(struct model *m)
{
    for (int e = 0; e < m->slab.entries; e++) {
        const struct slab_entry *entry = &m->slab.entry[e];
        for (int64_t i = 0; i < entry->tensor.elements; i++)
            m->weights[entry->weight_at + i] = weight_of(&entry->tensor, i);
    }
}

/* Stage `stage` of `stages`, layers split as evenly as they go. */
static void model_init(struct model *m, bool tied, int stages, int stage)
{
    struct err err = {0};
    m->shape = shape;
    m->shape.tied = tied;
    int first = stage * shape.layers / stages;
    int end = (stage + 1) * shape.layers / stages;
    assert_int_equal(slab_init(&m->slab, &m->shape, first, end - first, stage == 0,
                               stage == stages - 1, &err),
                     0);
    m->weights = mem_array(m->slab.weights, sizeof(float), &err);
    m->grads = mem_array(m->slab.grads, sizeof(float), &err);
    assert_non_null(m->weights);
    assert_non_null(m->grads);
    fill_weights(m);
}

static void model_fini(struct model *m)
{
    mem_free(m->weights);
    mem_free(m->grads);
    slab_fini(&m->slab);
}

/* The whole model, trained without any exchange. */
struct serial {
    struct model model;
    float *moment[2];
};

static void serial_step(struct serial *s, int data, int step_no, struct zero_step *step)
{
    struct slab *slab = &s->model.slab;
    double total = 0;
    for (int e = 0; e < slab->entries; e++) {
        const struct slab_entry *entry = &slab->entry[e];
        float *g = s->model.grads + entry->grad_at;
        if (entry->tied_head)
            continue;
        for (int64_t i = 0; i < entry->tensor.elements; i++) {
            g[i] = tree(&entry->tensor, false, step_no, i, 0, data);
            if (s->model.shape.tied && entry->tensor.role == ROLE_EMBED_TOKENS)
                g[i] += tree(&entry->tensor, true, step_no, i, 0, data);
        }
        double squares = 0;
        for (int r = 0; r < data; r++) {
            struct shard part = shard_of(&entry->tensor, data, r);
            squares += sum_of_squares(part.end - part.begin, g + part.begin);
        }
        total += squares;
    }
    step->norm = sqrt(total);
    for (int e = 0; e < slab->entries; e++) {
        const struct slab_entry *entry = &slab->entry[e];
        if (!entry->tied_head)
            adamw_update(
                &step->adamw, step->t, step->lr, entry->tensor.decay,
                clip_scale(step->norm, step->clip), entry->tensor.elements,
                s->model.weights + entry->weight_at, s->moment[0] + entry->weight_at,
                s->moment[1] + entry->weight_at, s->model.grads + entry->grad_at);
    }
}

static int64_t differing(const float *a, const float *b, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += memcmp(&a[i], &b[i], sizeof *a) != 0;
    return count;
}

static void compare_weights(const struct model *m, const struct serial *s)
{
    for (int e = 0; e < m->slab.entries; e++) {
        const struct slab_entry *entry = &m->slab.entry[e];
        const struct slab_entry *want =
            slab_find(&s->model.slab, entry->tensor.role, entry->tensor.layer, false);
        int64_t bad =
            differing(m->weights + entry->weight_at, s->model.weights + want->weight_at,
                      entry->tensor.elements);
        if (bad)
            fail_msg("%s of layer %d%s: %lld of %lld weights differ",
                     role_name(entry->tensor.role), entry->tensor.layer,
                     entry->tied_head ? " (head)" : "", (long long)bad,
                     (long long)entry->tensor.elements);
    }
}

static void compare_moments(const struct zero *z, const struct serial *s)
{
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        const struct slab_entry *want =
            slab_find(&s->model.slab, p.tensor.role, p.tensor.layer, false);
        for (int k = 0; k < 2; k++)
            assert_int_equal(differing(p.moment[k],
                                       s->moment[k] + want->weight_at + p.shard.begin,
                                       p.shard.end - p.shard.begin),
                             0);
    }
}

static int64_t nonzero(const float *x, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += x[i] != 0;
    return count;
}

/* One replica has one NaN: nobody updates, everybody knows. */
static void check_nan(struct zero *z, const struct grid *g, struct model *m,
                      const struct serial *s, struct zero_step step)
{
    fill_gradients(m, g->replica, 0);
    if (g->stage == g->pipeline - 1 && g->replica == g->data - 1)
        m->grads[m->slab.entry[0].grad_at] = NAN;
    step.finite = true;
    zero_update(z, &step);
    assert_false(step.finite);
    assert_int_equal(nonzero(m->grads, m->slab.grads), 0);
    compare_weights(m, s);
    compare_moments(z, s);
}

/* Owned weights spread over whatever the others hold. */
static void check_publish(struct zero *z, struct model *m, const struct serial *s)
{
    float *whole = mem_array(m->slab.weights, sizeof *whole, &(struct err){0});
    assert_non_null(whole);
    memcpy(whole, m->weights, sizeof *whole * (size_t)m->slab.weights);
    for (int64_t i = 0; i < m->slab.weights; i++)
        m->weights[i] = NAN;
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        memcpy(p.weight, whole + (p.weight - m->weights),
               sizeof *whole * (size_t)(p.shard.end - p.shard.begin));
    }
    mem_free(whole);
    zero_publish(z);
    compare_weights(m, s);
}

/* Two moments of what it owns, and buffers that have a bound of their own. */
static void check_bytes(const struct zero *z, const struct grid *g,
                        const struct model *m)
{
    int64_t owned = 0;
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        owned += p.shard.end - p.shard.begin;
    }
    int64_t bytes = zero_bytes(&m->slab, &m->shape, g->data, g->replica);
    int64_t moments = 2 * 4 * owned, buffers = g->data > 1 ? 16 << 20 : 0;
    int64_t head = m->shape.tied && g->pipeline > 1 && g->stage == 0 ? 2 << 20 : 0;
    int64_t lists = 1 << 16;
    if (bytes < moments + head || bytes > moments + buffers + head + lists)
        fail_msg("%lld bytes, expected %lld to %lld", (long long)bytes,
                 (long long)(moments + head),
                 (long long)(moments + buffers + head + lists));
}

static void check_layout(struct comm *world, int pipeline, bool tied)
{
    struct err err = {0};
    struct grid g;
    struct model m;
    struct serial s;
    assert_int_equal(grid_init(&g, world, pipeline, 0, &err), 0);
    model_init(&m, tied, pipeline, g.stage);
    model_init(&s.model, tied, 1, 0);
    for (int k = 0; k < 2; k++) {
        s.moment[k] = mem_array(s.model.slab.weights, sizeof(float), &err);
        assert_non_null(s.moment[k]);
    }
    struct zero *z = zero_create(&g, &m.slab, &m.shape, m.weights, m.grads, &err);
    assert_non_null(z);
    check_bytes(z, &g, &m);
    struct zero_step step = {
        .adamw = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1},
        .lr = 1e-3,
        .clip = 1};
    double spent_s = 0;
    for (int k = 0; k < STEPS; k++) {
        step.t = k + 1;
        step.clip = k == 1 ? 0 : 1;
        fill_gradients(&m, g.replica, k);
        zero_update(z, &step);
        spent_s += step.wait_s;
        double norm = step.norm;
        assert_true(step.finite && norm > 1);
        assert_int_equal(nonzero(m.grads, m.slab.grads), 0);
        serial_step(&s, g.data, k, &step);
        if (norm != step.norm)
            fail_msg("step %d: norm %.17g, expected %.17g", k, norm, step.norm);
        compare_weights(&m, &s);
        compare_moments(z, &s);
    }
    assert_true(spent_s >= 0);
    check_nan(z, &g, &m, &s, step);
    check_publish(z, &m, &s);
    zero_destroy(z);

    /* For evaluation: weights only. */
    z = zero_create(&g, &m.slab, &m.shape, m.weights, NULL, &err);
    assert_non_null(z);
    check_publish(z, &m, &s);
    zero_destroy(z);

    if (comm_root(world))
        printf("# pipeline %d x data %d%s: norm %.17g\n", pipeline, g.data,
               tied ? ", tied" : "", step.norm);
    for (int k = 0; k < 2; k++)
        mem_free(s.moment[k]);
    model_fini(&s.model);
    model_fini(&m);
    grid_fini(&g);
}

static void equals_the_serial_step(void **state)
{
    struct comm *world = *state;
    int size = comm_size(world);
    for (int pipeline = 1; pipeline <= size; pipeline++)
        for (int tied = 0; tied < 2 && size % pipeline == 0; tied++)
            check_layout(world, pipeline, tied);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct comm *world = comm_start(&argc, &argv, &err);
    if (!world) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(equals_the_serial_step,
                                  comm_size(world) == 1 ? comm_self() : world),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    comm_finish(world);
    return failures ? 1 : 0;
}
