/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/zero.h"

#include "mpi/exchange.h"
#include "src/base/mem.h"
#include "src/base/rng.h"
#include "src/optim/master.h"

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
 * pipeline and data degree; so the bits do not depend on the pipeline either. With bf16
 * weights the masters have the bits of fp32 ones, and the weights are those rounded. */

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
    enum dtype precision;
    void *weights; /* of precision */
    float *grads;
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
        for (int64_t i = 0; !entry->frozen && i < entry->tensor.elements; i++)
            m->grads[entry->grad_at + i] +=
                gradient_of(&entry->tensor, entry->tied_head, replica, step, i);
    }
}

/* Weight i as it should be published. */
static void set_weight(struct model *m, int64_t i, float master)
{
    if (m->precision == DTYPE_BF16)
        ((uint16_t *)m->weights)[i] = master_weight(master);
    else
        ((float *)m->weights)[i] = master;
}

static bool same_weight(const struct model *m, int64_t i, float master)
{
    if (m->precision == DTYPE_BF16)
        return ((const uint16_t *)m->weights)[i] == master_weight(master);
    return memcmp((const float *)m->weights + i, &master, sizeof master) == 0;
}

static void fill_weights(struct model *m)
{
    for (int e = 0; e < m->slab.entries; e++) {
        const struct slab_entry *entry = &m->slab.entry[e];
        for (int64_t i = 0; i < entry->tensor.elements; i++)
            set_weight(m, entry->weight_at + i, weight_of(&entry->tensor, i));
    }
}

/* Stage `stage` of `stages`, layers split as evenly as they go. */
static void model_init(struct model *m, bool tied, const struct freeze *f,
                       enum dtype precision, int stages, int stage)
{
    struct err err = {0};
    m->precision = precision;
    m->shape = shape;
    m->shape.tied = tied;
    int first = stage * shape.layers / stages;
    int end = (stage + 1) * shape.layers / stages;
    assert_int_equal(slab_init(&m->slab, &m->shape, first, end - first, stage == 0,
                               stage == stages - 1, &err),
                     0);
    slab_freeze(&m->slab, f);
    m->weights = mem_array(m->slab.weights, dtype_bytes(precision), &err);
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
        if (entry->tied_head || entry->frozen)
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
        if (!entry->tied_head && !entry->frozen)
            adamw_update(&step->adamw, step->t, step->lr, entry->tensor.decay,
                         clip_scale(step->norm, step->clip), entry->tensor.elements,
                         (float *)s->model.weights + entry->weight_at,
                         s->moment[0] + entry->weight_at,
                         s->moment[1] + entry->weight_at,
                         s->model.grads + entry->grad_at);
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
    const float *want = s->model.weights;
    for (int e = 0; e < m->slab.entries; e++) {
        const struct slab_entry *entry = &m->slab.entry[e];
        const struct slab_entry *there =
            slab_find(&s->model.slab, entry->tensor.role, entry->tensor.layer, false);
        int64_t bad = 0;
        for (int64_t i = 0; i < entry->tensor.elements; i++)
            bad += !same_weight(m, entry->weight_at + i, want[there->weight_at + i]);
        if (bad)
            fail_msg("%s of layer %d%s: %lld of %lld weights differ",
                     role_name(entry->tensor.role), entry->tensor.layer,
                     entry->tied_head ? " (head)" : "", (long long)bad,
                     (long long)entry->tensor.elements);
    }
}

/* The masters of part i, owned (mem_free). */
static float *masters_of(const struct zero *z, int i)
{
    struct zero_part p = zero_part_at(z, i);
    int64_t n = p.shard.end - p.shard.begin, half = n / 2;
    float *x = mem_array(n, sizeof *x, &(struct err){0});
    assert_non_null(x);
    zero_get(z, i, 0, half, x);
    zero_get(z, i, half, n - half, x + half);
    return x;
}

/* A frozen bf16 weight has no master: the rounded weight is all there is. */
static int64_t masters_differing(const struct zero_part *p, bool rounded,
                                 const float *found, const float *want)
{
    int64_t n = p->shard.end - p->shard.begin, bad = 0;
    if (!p->frozen || !rounded)
        return differing(found, want, n);
    for (int64_t i = 0; i < n; i++)
        bad += found[i] != master_join(master_weight(want[i]), 0);
    return bad;
}

/* Both moments and the masters of what this rank owns. */
static void compare_state(const struct zero *z, const struct model *m,
                          const struct serial *s)
{
    const float *weights = s->model.weights;
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        const struct slab_entry *want =
            slab_find(&s->model.slab, p.tensor.role, p.tensor.layer, false);
        assert_int_equal(p.frozen, want->frozen);
        assert_int_equal(p.moment[0] == NULL, p.frozen);
        for (int k = 0; k < 2 && !p.frozen; k++)
            assert_int_equal(differing(p.moment[k],
                                       s->moment[k] + want->weight_at + p.shard.begin,
                                       p.shard.end - p.shard.begin),
                             0);
        float *master = masters_of(z, i);
        int64_t bad = masters_differing(&p, m->precision == DTYPE_BF16, master,
                                        weights + want->weight_at + p.shard.begin);
        mem_free(master);
        if (bad)
            fail_msg("%s of layer %d: %lld masters differ", role_name(p.tensor.role),
                     p.tensor.layer, (long long)bad);
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
        m->grads[slab_find(&m->slab, ROLE_NORM, -1, false)->grad_at] = NAN;
    step.finite = true;
    zero_update(z, &step);
    assert_false(step.finite);
    assert_int_equal(nonzero(m->grads, m->slab.grads), 0);
    compare_weights(m, s);
    compare_state(z, m, s);
}

/* Owned weights spread over whatever the others hold. */
static void check_publish(struct zero *z, struct model *m, const struct serial *s)
{
    const float *weights = s->model.weights;
    for (int64_t i = 0; i < m->slab.weights; i++)
        set_weight(m, i, NAN);
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        const struct slab_entry *there =
            slab_find(&s->model.slab, p.tensor.role, p.tensor.layer, false);
        const float *from = weights + there->weight_at + p.shard.begin;
        int64_t n = p.shard.end - p.shard.begin, half = n / 2;
        zero_put(z, i, 0, half, from);
        zero_put(z, i, half, n - half, from + half);
    }
    zero_publish(z);
    compare_weights(m, s);
}

/* 16 bytes a parameter on one rank, 6 + 10/d on d replicas, but for what each stage may
 * have beside: message buffers, a tied head, lists, and the rounding of shards. */
static void check_bytes(const struct zero *z, const struct grid *g,
                        const struct model *m)
{
    int64_t owned = 0, parameters = 0, wider = m->precision == DTYPE_BF16 ? 2 : 0;
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        owned += p.frozen ? 0 : p.shard.end - p.shard.begin;
        parameters += p.frozen ? 0 : p.tensor.elements;
    }
    int64_t bytes = zero_bytes(&m->slab, &m->shape, m->precision, g->data, g->replica);
    int64_t state = (8 + wider) * owned, buffers = g->data > 1 ? 16 << 20 : 0;
    const struct slab_entry *embed = slab_find(&m->slab, ROLE_EMBED_TOKENS, -1, false);
    bool adds = m->shape.tied && g->pipeline > 1 && embed && !embed->frozen;
    int64_t head = adds ? 2 << 20 : 0;
    int64_t lists = 1 << 16;
    if (bytes < state + head || bytes > state + buffers + head + lists)
        fail_msg("%lld bytes, expected %lld to %lld", (long long)bytes,
                 (long long)(state + head),
                 (long long)(state + buffers + head + lists));
    if (m->precision != DTYPE_BF16 || m->shape.tied)
        return;
    int64_t all =
        bytes - exchange_bytes(g->data, true) +
        ((int64_t)dtype_bytes(m->precision) + (int64_t)sizeof(float)) * m->slab.grads;
    double want = (6 + 10.0 / g->data) * (double)parameters;
    double rounding = 10.0 * m->slab.entries * SHARD_PIECE;
    if (g->data == 1)
        assert_in_range(all, 16 * parameters, 16 * parameters + lists);
    else if ((double)all > want + rounding + (double)lists)
        fail_msg("%lld bytes of state, expected at most %.0f + %.0f", (long long)all,
                 want, rounding);
}

static void check_layout(struct comm *world, int pipeline, bool tied,
                         const struct freeze *f, enum dtype precision)
{
    struct err err = {0};
    struct grid g;
    struct model m;
    struct serial s;
    assert_int_equal(grid_init(&g, world, pipeline, 0, &err), 0);
    model_init(&m, tied, f, precision, pipeline, g.stage);
    model_init(&s.model, tied, f, DTYPE_F32, 1, 0);
    for (int k = 0; k < 2; k++) {
        s.moment[k] = mem_array(s.model.slab.weights, sizeof(float), &err);
        assert_non_null(s.moment[k]);
    }
    struct zero *z =
        zero_create(&g, &m.slab, &m.shape, precision, m.weights, m.grads, &err);
    assert_non_null(z);
    check_bytes(z, &g, &m);
    check_publish(z, &m, &s); /* masters, exactly */
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
        compare_state(z, &m, &s);
    }
    assert_true(spent_s >= 0);
    check_nan(z, &g, &m, &s, step);
    fill_gradients(&m, g.replica, 0);
    zero_discard(z);
    assert_int_equal(nonzero(m.grads, m.slab.grads), 0);
    check_publish(z, &m, &s);
    zero_destroy(z);

    /* For evaluation: weights only. */
    z = zero_create(&g, &m.slab, &m.shape, precision, m.weights, NULL, &err);
    assert_non_null(z);
    check_publish(z, &m, &s);
    zero_destroy(z);

    if (comm_root(world))
        printf("# %s, pipeline %d x data %d%s%s%s: norm %.17g\n", dtype_name(precision),
               pipeline, g.data, tied ? ", tied" : "", f->patterns ? ", frozen " : "",
               f->patterns ? f->pattern[0] : "", step.norm);
    for (int k = 0; k < 2; k++)
        mem_free(s.moment[k]);
    model_fini(&s.model);
    model_fini(&m);
    grid_fini(&g);
}

/* Nothing frozen; parts of every stage; all but the last layer, norm and an untied
 * head, so that most stages have nothing to train. */
static void equals_the_serial_step(void **state)
{
    static char *some[] = {"*q_proj*", "layers.1-2"};
    static char *most[] = {"layers.0-3", "model.embed_tokens.weight"};
    static const struct freeze freezes[] = {{0, NULL}, {2, some}, {2, most}};
    struct comm *world = *state;
    int size = comm_size(world);
    for (int pipeline = 1; pipeline <= size; pipeline++)
        for (int tied = 0; tied < 2 && size % pipeline == 0; tied++)
            for (int i = 0; i < 6; i++)
                check_layout(world, pipeline, tied, &freezes[i / 2],
                             i % 2 ? DTYPE_BF16 : DTYPE_F32);
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
