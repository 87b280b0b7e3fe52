/* SPDX-License-Identifier: Apache-2.0 */
/* stage_create has oneDNN build all that the stage's products need, with any number of
 * rows: the number of primitives stays the same from then on. */
#include "src/model/stage.h"

#include "src/base/rng.h"
#include "src/gemm/bf16.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* As for bf16 beside fp32 in parity_bf16.c: of one row's loss, and relative L2. */
#define BF16_TOKEN_CE 0.05
#define BF16_GRADIENT 0.06

enum { THREADS = 2, MAX_ROWS = 259 };

/* No size is a whole number of pieces; some are more than one. */
static const int row_counts[] = {MAX_ROWS, 1, 3, 255, 18, 128};
enum { COUNTS = sizeof row_counts / sizeof *row_counts };

static const struct model_shape joined = {.layers = 2,
                                          .hidden = 48,
                                          .ff = 280,
                                          .heads = 4,
                                          .kv_heads = 2,
                                          .head_dim = 12,
                                          .vocab = 523,
                                          .max_positions = MAX_ROWS,
                                          .rope_theta = 1e4,
                                          .norm_eps = 1e-5,
                                          .bos_id = -1,
                                          .eos_id = -1};
/* q, k and v, gate and up are products of their own. */
static const struct model_shape apart = {.layers = 2,
                                         .hidden = 21,
                                         .ff = 37,
                                         .heads = 3,
                                         .kv_heads = 1,
                                         .head_dim = 6,
                                         .vocab = 50,
                                         .max_positions = MAX_ROWS,
                                         .rope_theta = 1e6,
                                         .norm_eps = 1e-6,
                                         .tied = true,
                                         .bos_id = -1,
                                         .eos_id = -1};
/* Logits of 192 rows at a time. */
static const struct model_shape wide = {.layers = 1,
                                        .hidden = 6,
                                        .ff = 16,
                                        .heads = 1,
                                        .kv_heads = 1,
                                        .head_dim = 6,
                                        .vocab = 33000,
                                        .max_positions = MAX_ROWS,
                                        .rope_theta = 1e4,
                                        .norm_eps = 1e-5,
                                        .bos_id = -1,
                                        .eos_id = -1};

static const struct row {
    const char *name;
    const struct model_shape *shape;
    int layers;
    bool embed, head, training;
    enum stage_packing packing;
} rows[] = {
    {"trains, packs both", &joined, 2, true, true, true, STAGE_PACK_BOTH},
    {"trains, packs forward", &joined, 2, true, true, true, STAGE_PACK_FORWARD},
    {"trains, packs none", &joined, 2, true, true, true, STAGE_PACK_NONE},
    {"trains, parts", &apart, 2, true, true, true, STAGE_PACK_BOTH},
    {"trains, parts, packs none", &apart, 2, true, true, true, STAGE_PACK_NONE},
    {"trains, in the middle", &apart, 1, false, false, true, STAGE_PACK_BOTH},
    {"trains, head alone", &wide, 0, false, true, true, STAGE_PACK_NONE},
    {"forward", &joined, 2, true, true, false, STAGE_PACK_BOTH},
    {"forward, packs none", &joined, 2, true, true, false, STAGE_PACK_NONE},
    {"forward, parts", &apart, 2, true, true, false, STAGE_PACK_BOTH},
    {"forward, head alone", &wide, 0, false, true, false, STAGE_PACK_NONE},
};
enum { ROWS = sizeof rows / sizeof *rows };

static void *zeroed(int64_t n, size_t size)
{
    void *p = calloc((size_t)n, size);
    assert_non_null(p);
    return p;
}

/* A stage, its weights, and what it makes of each number of rows. */
struct part {
    struct slab slab;
    struct stage_spec spec;
    struct stage *stage;
    uint16_t *weights, *in, *dout; /* the last two [MAX_ROWS, D] */
    float *grads;
    struct {
        float nll[MAX_ROWS];
        float *grads;        /* [slab.grads] */
        uint16_t *out, *din; /* [MAX_ROWS, D] */
    } made[COUNTS];
    int64_t primitives; /* once created */
};

static void part_init(struct part *p, const struct row *row, struct gemm *g,
                      const struct stage *lender)
{
    struct err err;
    int64_t residual = (int64_t)MAX_ROWS * row->shape->hidden;
    *p = (struct part){.spec = {.shape = row->shape,
                                .layers = row->layers,
                                .embed = row->embed,
                                .head = row->head,
                                .max_rows = MAX_ROWS,
                                .max_length = MAX_ROWS,
                                .slots = 1,
                                .training = row->training,
                                .dtype = DTYPE_BF16,
                                .packing = row->packing,
                                .lender = lender}};
    assert_int_equal(
        slab_init(&p->slab, row->shape, 0, row->layers, row->embed, row->head, &err),
        0);
    p->weights = zeroed(p->slab.weights, sizeof *p->weights);
    p->grads = zeroed(p->slab.grads, sizeof *p->grads);
    for (int i = 0; i < p->slab.entries; i++) {
        const struct slab_entry *e = &p->slab.entry[i];
        for (int64_t k = 0; k < e->tensor.elements; k++) {
            double x = rng_normal(3, (uint64_t)e->tensor.index, (uint64_t)k);
            p->weights[e->weight_at + k] =
                bf16_from_f32((float)(e->tensor.ndim == 1 ? 1 + 0.2 * x : 0.1 * x));
        }
    }
    p->in = zeroed(residual, sizeof *p->in);
    p->dout = zeroed(residual, sizeof *p->dout);
    for (int64_t i = 0; i < residual; i++) {
        p->in[i] = bf16_from_f32((float)rng_normal(4, 1, (uint64_t)i));
        p->dout[i] = bf16_from_f32((float)rng_normal(4, 2, (uint64_t)i));
    }
    p->stage = stage_create(&p->spec, &p->slab, p->weights,
                            row->training ? p->grads : NULL, g, &err);
    if (!p->stage)
        fail_msg("%s", err.text);
    p->primitives = gemm_bf16_primitives(g);
}

static void part_fini(struct part *p)
{
    stage_destroy(p->stage);
    slab_fini(&p->slab);
    for (int i = 0; i < COUNTS; i++) {
        free(p->made[i].grads);
        free(p->made[i].out);
        free(p->made[i].din);
    }
    free(p->weights);
    free(p->grads);
    free(p->in);
    free(p->dout);
}

/* Forward and, when training, backward with row_counts[index] rows in two segments. */
static void run_rows(struct part *p, int index)
{
    int n = row_counts[index], begin[] = {0, n / 3, n}, vocab = p->spec.shape->vocab;
    static int position[MAX_ROWS];
    static int32_t ids[MAX_ROWS], target[MAX_ROWS];
    double nll[2];
    for (int t = 0; t < n; t++) {
        position[t] = t < n / 3 ? t : t - n / 3;
        ids[t] = (int32_t)(rng_u64(1, 1, (uint64_t)t) % (uint64_t)vocab);
        target[t] =
            t % 5 == 3 ? -100 : (int32_t)(rng_u64(1, 2, (uint64_t)t) % (uint64_t)vocab);
    }
    struct rows batch = {
        .rows = n, .segments = 2, .segment_begin = begin, .position = position};
    if (n < 3)
        batch.segments = 1, begin[1] = n;
    struct stage_loss loss = {.target = target,
                              .grad_scale = 0.01f,
                              .nll = nll,
                              .row_nll = p->made[index].nll};
    int64_t residual = (int64_t)MAX_ROWS * p->spec.shape->hidden;
    p->made[index].out = zeroed(residual, sizeof(uint16_t));
    p->made[index].din = zeroed(residual, sizeof(uint16_t));
    p->made[index].grads = zeroed(p->slab.grads, sizeof(float));
    stage_forward(
        p->stage, 0, &batch, p->spec.embed ? ids : NULL, p->spec.embed ? NULL : p->in,
        p->spec.head ? NULL : p->made[index].out, p->spec.head ? &loss : NULL);
    if (!p->spec.training)
        return;
    memset(p->grads, 0, (size_t)p->slab.grads * sizeof *p->grads);
    stage_backward(p->stage, 0, p->spec.head ? NULL : p->dout,
                   p->spec.embed ? NULL : p->made[index].din);
    memcpy(p->made[index].grads, p->grads, (size_t)p->slab.grads * sizeof *p->grads);
}

static void run_all(struct part *p, const struct gemm *g)
{
    if (!p->spec.lender)
        stage_weights_changed(p->stage);
    assert_int_equal(gemm_bf16_primitives(g), p->primitives);
    for (int i = 0; i < COUNTS; i++) {
        run_rows(p, i);
        if (gemm_bf16_primitives(g) != p->primitives)
            fail_msg("%d rows: %lld primitives, %lld after creation", row_counts[i],
                     (long long)gemm_bf16_primitives(g), (long long)p->primitives);
    }
    if (!p->spec.head)
        return;
    float *logits = zeroed((int64_t)MAX_ROWS * p->spec.shape->vocab, sizeof *logits);
    stage_logits(p->stage, 0, 0, MAX_ROWS, logits);
    stage_logits(p->stage, 0, 7, 5, logits);
    free(logits);
    assert_int_equal(gemm_bf16_primitives(g), p->primitives);
}

/* Squared L2 norm of a - b, or of a. */
static double squares_f32(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (b ? (double)b[i] : 0);
        sum += d * d;
    }
    return sum;
}

static double squares_bf16(const uint16_t *a, const uint16_t *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)bf16_to_f32(a[i]) - (b ? (double)bf16_to_f32(b[i]) : 0);
        sum += d * d;
    }
    return sum;
}

/* 0 where both are 0; NaN stays. */
static double relative(double distance, double norm)
{
    return distance == 0 ? 0 : sqrt(distance / norm);
}

static void expect_close(const struct part *a, const struct part *b)
{
    double loss = 0, gradient = 0, residual = 0;
    int64_t n = (int64_t)MAX_ROWS * a->spec.shape->hidden;
    for (int i = 0; i < COUNTS; i++) {
        double r[3];
        for (int t = 0; t < row_counts[i]; t++)
            loss =
                fmax(loss, fabs((double)a->made[i].nll[t] - (double)b->made[i].nll[t]));
        r[0] = relative(squares_f32(a->made[i].grads, b->made[i].grads, a->slab.grads),
                        squares_f32(b->made[i].grads, NULL, b->slab.grads));
        r[1] = relative(squares_bf16(a->made[i].out, b->made[i].out, n),
                        squares_bf16(b->made[i].out, NULL, n));
        r[2] = relative(squares_bf16(a->made[i].din, b->made[i].din, n),
                        squares_bf16(b->made[i].din, NULL, n));
        for (int k = 0; k < 3; k++)
            assert_true(r[k] <= BF16_GRADIENT);
        gradient = fmax(gradient, r[0]);
        residual = fmax(residual, fmax(r[1], r[2]));
    }
    print_message("  to ref: loss of a row %.2g, gradients %.2g, residuals %.2g\n",
                  loss, gradient, residual);
    assert_true(loss <= BF16_TOKEN_CE);
}

static void expect_same(const struct part *a, const struct part *b)
{
    size_t residual = (size_t)(MAX_ROWS * a->spec.shape->hidden) * sizeof(uint16_t);
    for (int i = 0; i < COUNTS; i++) {
        assert_memory_equal(a->made[i].nll, b->made[i].nll,
                            (size_t)row_counts[i] * sizeof(float));
        assert_memory_equal(a->made[i].grads, b->made[i].grads,
                            (size_t)a->slab.grads * sizeof(float));
        assert_memory_equal(a->made[i].out, b->made[i].out, residual);
        assert_memory_equal(a->made[i].din, b->made[i].din, residual);
    }
}

static struct gemm *context(enum gemm_backend backend)
{
    struct err err;
    omp_set_num_threads(THREADS);
    struct gemm *g = gemm_create(backend, gemm_level_here(), &err);
    if (!g)
        print_message("%s\n", err.text);
    return g;
}

/* Each stage in a context of its own, where no other has built. */
static void nothing_is_built_once_a_stage_is_there(void **state)
{
    (void)state;
    for (int i = 0; i < ROWS; i++) {
        struct gemm *ref = context(GEMM_REF), *g = context(GEMM_ONEDNN);
        assert_true(ref && g);
        struct part one, two, plain, again;
        omp_set_num_threads(1);
        part_init(&one, &rows[i], g, NULL);
        print_message("%s: %lld primitives\n", rows[i].name, (long long)one.primitives);
        assert_true(one.primitives > 0);
        run_all(&one, g);
        omp_set_num_threads(THREADS);
        part_init(&two, &rows[i], g, NULL);
        run_all(&two, g);
        assert_int_equal(one.primitives, two.primitives);
        expect_same(&one, &two);
        part_init(&plain, &rows[i], ref, NULL);
        assert_int_equal(plain.primitives, 0);
        run_all(&plain, ref);
        expect_close(&one, &plain);
        part_init(&again, &rows[i], g, one.stage); /* borrows the packed copies */
        run_all(&again, g);
        expect_same(&one, &again);
        part_fini(&again);
        part_fini(&plain);
        part_fini(&two);
        part_fini(&one);
        gemm_destroy(g);
        gemm_destroy(ref);
    }
}

/* A stage that only runs forward, and is rehearsed as such, beside its lender. */
static void a_borrower_is_rehearsed_too(void **state)
{
    (void)state;
    struct gemm *g = context(GEMM_ONEDNN);
    assert_non_null(g);
    struct row forward = rows[0];
    forward.training = false;
    struct part a, b;
    part_init(&a, &rows[0], g, NULL);
    part_init(&b, &forward, g, a.stage);
    stage_weights_changed(a.stage);
    run_all(&b, g);
    part_fini(&b);
    part_fini(&a);
    gemm_destroy(g);
}

static void own_kernels_take_no_room_for_it(void **state)
{
    (void)state;
    struct gemm *g = context(GEMM_OWN);
    assert_non_null(g);
    int64_t bytes = gemm_bf16_workspace_bytes(g);
    struct part p;
    part_init(&p, &rows[0], g, NULL);
    assert_int_equal(gemm_bf16_workspace_bytes(g), bytes);
    run_all(&p, g);
    part_fini(&p);
    gemm_destroy(g);
}

int main(void)
{
    const struct CMUnitTest own[] = {
        cmocka_unit_test(own_kernels_take_no_room_for_it),
    };
    const struct CMUnitTest onednn[] = {
        cmocka_unit_test(nothing_is_built_once_a_stage_is_there),
        cmocka_unit_test(a_borrower_is_rehearsed_too),
    };
    int failed = cmocka_run_group_tests(own, NULL, NULL);
    struct gemm *g = context(GEMM_ONEDNN);
    if (!g)
        return failed ? failed : 77;
    gemm_destroy(g);
    return failed + cmocka_run_group_tests(onednn, NULL, NULL);
}
