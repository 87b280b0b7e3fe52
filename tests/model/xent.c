/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/xent.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"

#include <cmocka.h>

#include "tests/model/plain.h"

struct problem {
    int rows, dim, vocab;
    double scale;
    float *row_scale;
    int32_t *target;
    struct values x, w;
    uint16_t *x_bits, *w_bits; /* NULL: fp32 */
    double *logits, *nll;
};

static void problem_init(struct problem *p, int rows, int dim, int vocab)
{
    *p = (struct problem){.rows = rows, .dim = dim, .vocab = vocab, .scale = 1.0 / 8};
    p->target = calloc((size_t)rows, sizeof *p->target);
    p->row_scale = calloc((size_t)rows, sizeof *p->row_scale);
    p->logits = calloc((size_t)vocab, sizeof *p->logits);
    p->nll = calloc((size_t)rows, sizeof *p->nll);
    assert_true(p->row_scale && p->target && p->logits && p->nll);
    for (int t = 0; t < rows; t++) { /* every third row is not counted */
        p->target[t] = t % 3 == 2 ? -1 : (t * 7 + 1) % vocab;
        p->row_scale[t] = (float)p->scale;
    }
    p->x = values_create(rows * dim, 1, 1);
    p->w = values_create(vocab * dim, 1, 2);
}

static void problem_round(struct problem *p)
{
    p->x_bits = values_round(&p->x);
    p->w_bits = values_round(&p->w);
}

static void problem_fini(struct problem *p)
{
    free(p->x_bits);
    free(p->w_bits);
    free(p->row_scale);
    free(p->target);
    free(p->logits);
    free(p->nll);
    values_destroy(&p->x);
    values_destroy(&p->w);
}

static double objective(void *context)
{
    struct problem *p = context;
    double sum = 0;
    for (int t = 0; t < p->rows; t++) {
        plain_linear(1, p->dim, p->vocab, p->x.exact + t * p->dim, p->w.exact,
                     p->logits);
        p->nll[t] = plain_nll(p->vocab, p->logits, p->target[t]);
        sum += p->scale * p->nll[t];
    }
    return sum;
}

struct result {
    double *nll;
    struct values dx, dw;
};

/* How the gradient is asked for. */
enum mode { LOSS, ONE_PASS, TWO_PASSES };

static struct result run(const struct problem *p, const struct gemm *g, enum mode mode)
{
    struct result r = {calloc((size_t)p->rows, sizeof *r.nll),
                       values_zero(p->rows * p->dim), values_zero(p->vocab * p->dim)};
    enum dtype t = p->x_bits ? DTYPE_BF16 : DTYPE_F32;
    struct linear head = {.in = p->dim,
                          .out = p->vocab,
                          .dtype = t,
                          .w = p->x_bits ? (const void *)p->w_bits : p->w.single,
                          .dw = r.dw.single};
    struct xent_rows rows = {p->rows, p->x_bits ? (const void *)p->x_bits : p->x.single,
                             p->target, p->row_scale};
    struct err err;
    static const enum xent_use use[] = {XENT_LOSS, XENT_AT_ONCE, XENT_WEIGHED};
    int64_t bytes = xent_scratch_bytes(&head, p->rows, use[mode]);
    void *scratch = mem_array(bytes, 1, &err);
    float *dx = calloc((size_t)r.dx.n, sizeof *dx);
    assert_true(r.nll && scratch && dx);
    memset(scratch, 0xff, (size_t)bytes); /* NaNs: it must not matter */
    memset(dx, 0xff, (size_t)r.dx.n * sizeof *dx);
    memset(r.nll, 0xff, (size_t)p->rows * sizeof *r.nll);
    if (mode == TWO_PASSES) {
        float *scale = p->row_scale,
              *unknown = calloc((size_t)p->rows, sizeof *unknown);
        assert_non_null(unknown);
        memset(unknown, 0xff, (size_t)p->rows * sizeof *unknown);
        rows.scale = unknown;
        xent_loss(g, &head, &rows, scratch, r.nll);
        rows.scale = scale;
        xent_gradient(g, &head, &rows, scratch, dx);
        free(unknown);
    } else {
        xent(g, &head, &rows, scratch, r.nll, mode == ONE_PASS ? dx : NULL);
    }
    if (mode != LOSS)
        dtype_to_f32(t, dx, r.dx.n, r.dx.single);
    mem_free(scratch);
    free(dx);
    return r;
}

static void result_fini(struct result *r)
{
    free(r->nll);
    values_destroy(&r->dx);
    values_destroy(&r->dw);
}

static void equals_double_and_finite_differences(void **state)
{
    static const int rows[][3] = {{1, 3, 1}, {1, 8, 5}, {7, 5, 33}, {30, 4, 18}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct problem p;
        problem_init(&p, rows[i][0], rows[i][1], rows[i][2]);
        print_message("%d rows of %d, vocabulary %d\n", p.rows, p.dim, p.vocab);
        struct result r = run(&p, *state, ONE_PASS), loss = run(&p, *state, LOSS);
        objective(&p);
        for (int t = 0; t < p.rows; t++) {
            if (fabs(r.nll[t] - p.nll[t]) > 2e-6)
                print_message("row %d: %.9g, expected %.9g\n", t, r.nll[t], p.nll[t]);
            assert_true(fabs(r.nll[t] - p.nll[t]) <= 2e-6);
            assert_true(r.nll[t] == loss.nll[t]);
            assert_true(p.target[t] >= 0 || r.nll[t] == 0);
        }
        for (int j = 0; j < loss.dw.n; j++)
            assert_true(loss.dw.single[j] == 0);
        expect_gradient("dx", objective, &p, r.dx.n, p.x.exact, r.dx.single, 1e-5);
        expect_gradient("dw", objective, &p, r.dw.n, p.w.exact, r.dw.single, 1e-5);
        result_fini(&r);
        result_fini(&loss);
        problem_fini(&p);
    }
}

/* 600 rows are two chunks; the second must not be another sum. */
static void chunks_and_threads_do_not_show(void **state)
{
    struct problem p;
    problem_init(&p, 600, 6, 40);
    omp_set_num_threads(1);
    struct result first = run(&p, *state, ONE_PASS);
    objective(&p);
    double error = 0;
    for (int t = 0; t < p.rows; t++)
        error = fmax(error, fabs(first.nll[t] - p.nll[t]));
    print_message("600 rows: largest error %.2e\n", error);
    assert_true(error < 2e-6);
    expect_gradient("dw", objective, &p, p.w.n, p.w.exact, first.dw.single, 1e-5);
    int late = 520 * p.dim; /* rows of the second chunk */
    expect_gradient("dx, rows 520 to 529", objective, &p, 10 * p.dim, p.x.exact + late,
                    first.dx.single + late, 1e-5);
    struct linear head = {.in = 6, .out = 40, .dtype = DTYPE_F32};
    int64_t bytes = xent_scratch_bytes(&head, 600, XENT_AT_ONCE),
            gathered = 512 * 6 * 4;
    assert_true(bytes < 4 * 600 * 40 + gathered + (8 + 4) * 600);
    for (int threads = 2; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        struct result r = run(&p, *state, ONE_PASS);
        assert_memory_equal(r.nll, first.nll, (size_t)p.rows * sizeof *r.nll);
        assert_memory_equal(r.dx.single, first.dx.single,
                            (size_t)r.dx.n * sizeof(float));
        assert_memory_equal(r.dw.single, first.dw.single,
                            (size_t)r.dw.n * sizeof(float));
        result_fini(&r);
    }
    result_fini(&first);
    problem_fini(&p);
}

/* The loss comes from fp32 logits; dz and dx are rounded. 600 rows are two chunks whose
 * gradients are gathered. */
static void rounds_the_gradient_in_bf16(void **state)
{
    static const int rows[][3] = {{1, 8, 5}, {30, 4, 18}, {600, 6, 40}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct problem p;
        problem_init(&p, rows[i][0], rows[i][1], rows[i][2]);
        problem_round(&p);
        struct result first = {0};
        print_message("%d rows of %d, vocabulary %d\n", p.rows, p.dim, p.vocab);
        for (int threads = 1; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            struct result r = run(&p, *state, ONE_PASS), loss = run(&p, *state, LOSS);
            assert_memory_equal(r.nll, loss.nll, (size_t)p.rows * sizeof *r.nll);
            result_fini(&loss);
            if (threads == 1) {
                first = r;
                continue;
            }
            assert_memory_equal(r.nll, first.nll, (size_t)p.rows * sizeof *r.nll);
            assert_memory_equal(r.dx.single, first.dx.single,
                                (size_t)r.dx.n * sizeof(float));
            assert_memory_equal(r.dw.single, first.dw.single,
                                (size_t)r.dw.n * sizeof(float));
            result_fini(&r);
        }
        objective(&p);
        double error = 0;
        for (int t = 0; t < p.rows; t++)
            error = fmax(error, fabs(first.nll[t] - p.nll[t]));
        print_message("largest error of the loss %.2e\n", error);
        assert_true(error < 2e-6);
        int late = (p.rows > 1 ? p.rows - 2 : 0) * p.dim; /* a counted row */
        expect_gradient("dx, a late row", objective, &p, p.dim, p.x.exact + late,
                        first.dx.single + late, 8e-3);
        expect_gradient("dw", objective, &p, p.w.n, p.w.exact, first.dw.single, 8e-3);
        result_fini(&first);
        problem_fini(&p);
    }
}

static void expect_same(const struct problem *p, const struct result *a,
                        const struct result *b)
{
    assert_memory_equal(a->nll, b->nll, (size_t)p->rows * sizeof *a->nll);
    assert_memory_equal(a->dx.single, b->dx.single, (size_t)a->dx.n * sizeof(float));
    assert_memory_equal(a->dw.single, b->dw.single, (size_t)a->dw.n * sizeof(float));
}

/* One chunk (512 rows of so small a vocabulary) and several, one group of chunks and
 * several; fp32 and bf16; targets with holes and without. */
static const int row_counts[] = {1, 30, 512, 513, 1100, 3200};
enum { KINDS = 2 * 2 * sizeof row_counts / sizeof *row_counts };

static void kind_init(struct problem *p, int kind)
{
    problem_init(p, row_counts[kind / 4], 6, 40);
    if (kind % 2)
        problem_round(p);
    if (kind / 2 % 2)
        for (int t = 0; t < p->rows; t++)
            p->target[t] = (t * 7 + 1) % p->vocab;
}

static void two_passes_give_the_same_bits(void **state)
{
    for (int kind = 0; kind < (int)KINDS; kind++) {
        struct problem p;
        kind_init(&p, kind);
        for (int t = 0; t < p.rows; t++)
            p.row_scale[t] = (float)(t % 5 - 2) / 16;
        for (int threads = 1; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            struct result one = run(&p, *state, ONE_PASS);
            struct result two = run(&p, *state, TWO_PASSES);
            assert_true(one.nll[0] > 0 && isfinite(one.dx.single[0]));
            expect_same(&p, &one, &two);
            result_fini(&one);
            result_fini(&two);
        }
        problem_fini(&p);
    }
}

/* Of a larger vocabulary some rows keep their logits and the rest is computed again;
 * the bytes for it are bounded. */
static void kept_logits_are_bounded(void **state)
{
    enum { ROWS = 1500, DIM = 2, VOCAB = 8192, KEPT_BYTES = 32 << 20 };
    for (int kind = 0; kind < 4; kind++) {
        struct problem p;
        problem_init(&p, ROWS, DIM, VOCAB);
        if (kind % 2)
            problem_round(&p);
        if (kind / 2) /* 1,500 counted rows, else 1,000 */
            for (int t = 0; t < p.rows; t++)
                p.target[t] = t;
        struct result one = run(&p, *state, ONE_PASS);
        struct result two = run(&p, *state, TWO_PASSES);
        expect_same(&p, &one, &two);
        result_fini(&one);
        result_fini(&two);
        problem_fini(&p);
    }
    for (int vocab = 1; vocab <= 1 << 20; vocab *= 4) {
        struct linear head = {.in = 8, .out = vocab, .dtype = DTYPE_F32};
        int64_t one = xent_scratch_bytes(&head, 1 << 14, XENT_AT_ONCE);
        int64_t two = xent_scratch_bytes(&head, 1 << 14, XENT_WEIGHED);
        int64_t sums = two - one > 0 ? 8 << 14 : 0;
        assert_true(two >= one && two - one <= KEPT_BYTES + sums);
    }
}

/* Rows that are not counted, against all rows computed, those with factor 0. */
static void gathering_leaves_out_nothing_else(void **state)
{
    for (int kind = 0; kind < (int)KINDS; kind++) {
        struct problem p;
        kind_init(&p, kind);
        if (kind / 2 % 2) {
            problem_fini(&p);
            continue;
        }
        struct result some = run(&p, *state, ONE_PASS);
        for (int t = 0; t < p.rows; t++)
            if (p.target[t] < 0) {
                assert_true(some.nll[t] == 0);
                for (int e = 0; e < p.dim; e++)
                    assert_true(some.dx.single[t * p.dim + e] == 0);
                p.row_scale[t] = t % 2 ? 0.0f : -0.0f;
                p.target[t] = 3;
            }
        struct result all = run(&p, *state, ONE_PASS);
        double error = 0;
        for (int t = 0; t < p.rows; t++)
            if (p.row_scale[t] != 0)
                error = fmax(error, fabs(some.nll[t] - all.nll[t]));
            else
                for (int e = 0; e < p.dim; e++)
                    assert_true(all.dx.single[t * p.dim + e] == 0);
        for (int i = 0; i < all.dx.n; i++)
            all.dx.exact[i] = (double)all.dx.single[i];
        for (int i = 0; i < all.dw.n; i++)
            all.dw.exact[i] = (double)all.dw.single[i];
        print_message("%d rows, %s: losses differ by %.1e\n", p.rows,
                      p.x_bits ? "bf16" : "fp32", error);
        assert_true(error <= 1e-6);
        expect_close("dx", all.dx.n, some.dx.single, all.dx.exact,
                     p.x_bits ? 4e-3 : 1e-6);
        expect_close("dw", all.dw.n, some.dw.single, all.dw.exact, 1e-5);
        result_fini(&some);
        result_fini(&all);
        problem_fini(&p);
    }
}

static void nothing_counted_is_nothing_done(void **state)
{
    for (int kind = 0; kind < (int)KINDS; kind++) {
        struct problem p;
        kind_init(&p, kind);
        for (int t = 0; t < p.rows; t++)
            p.target[t] = -100;
        p.w.single[0] = NAN; /* shows in any product */
        if (p.w_bits)
            p.w_bits[0] = 0x7fc0;
        for (enum mode mode = ONE_PASS; mode <= TWO_PASSES; mode++) {
            struct result r = run(&p, *state, mode);
            for (int t = 0; t < p.rows; t++)
                assert_true(r.nll[t] == 0);
            for (int i = 0; i < r.dx.n; i++)
                assert_true(r.dx.single[i] == 0);
            for (int i = 0; i < r.dw.n; i++)
                assert_true(r.dw.single[i] == 0);
            result_fini(&r);
        }
        problem_fini(&p);
    }
}

static void passes_bad_values_on(void **state)
{
    struct problem p;
    problem_init(&p, 3, 4, 5);
    p.w.single[4] = NAN;
    struct result r = run(&p, *state, ONE_PASS);
    assert_true(isnan(r.nll[0]) && isnan(r.nll[1]) && r.nll[2] == 0);
    assert_true(isnan(r.dx.single[0]));
    result_fini(&r);
    p.w.single[4] = 1e30f;
    r = run(&p, *state, ONE_PASS);
    print_message("logit 1e30: %g\n", r.nll[0]);
    assert_true(!isnan(r.nll[0]));
    result_fini(&r);
    problem_fini(&p);
}

static int create_gemm(void **state)
{
    struct err err;
    *state = gemm_create(GEMM_REF, GEMM_LEVEL_GENERIC, &err);
    return *state ? 0 : -1;
}

static int destroy_gemm(void **state)
{
    gemm_destroy(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_double_and_finite_differences),
        cmocka_unit_test(chunks_and_threads_do_not_show),
        cmocka_unit_test(rounds_the_gradient_in_bf16),
        cmocka_unit_test(two_passes_give_the_same_bits),
        cmocka_unit_test(kept_logits_are_bounded),
        cmocka_unit_test(gathering_leaves_out_nothing_else),
        cmocka_unit_test(nothing_counted_is_nothing_done),
        cmocka_unit_test(passes_bad_values_on),
    };
    return cmocka_run_group_tests(tests, create_gemm, destroy_gemm);
}
