/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/xent.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model/plain.h"

struct problem {
    int rows, dim, vocab;
    double scale;
    int32_t *target;
    struct values x, w;
    uint16_t *x_bits, *w_bits; /* NULL: fp32 */
    double *logits, *nll;
};

static void problem_init(struct problem *p, int rows, int dim, int vocab)
{
    *p = (struct problem){.rows = rows, .dim = dim, .vocab = vocab, .scale = 1.0 / 8};
    p->target = calloc((size_t)rows, sizeof *p->target);
    p->logits = calloc((size_t)vocab, sizeof *p->logits);
    p->nll = calloc((size_t)rows, sizeof *p->nll);
    assert_true(p->target && p->logits && p->nll);
    for (int t = 0; t < rows; t++) /* every third row is not counted */
        p->target[t] = t % 3 == 2 ? -1 : (t * 7 + 1) % vocab;
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

static struct result run(const struct problem *p, const struct gemm *g, bool gradient)
{
    struct result r = {calloc((size_t)p->rows, sizeof *r.nll),
                       values_zero(p->rows * p->dim), values_zero(p->vocab * p->dim)};
    struct linear head = {
        .in = p->dim, .out = p->vocab, .w = p->w.single, .dw = r.dw.single};
    enum dtype t = p->x_bits ? DTYPE_BF16 : DTYPE_F32;
    int64_t bytes = xent_scratch_bytes(t, p->vocab, p->rows, gradient);
    void *scratch = malloc((size_t)bytes);
    uint16_t *dx = calloc((size_t)r.dx.n, sizeof *dx);
    if (p->x_bits) {
        head.dtype = DTYPE_BF16;
        head.w = p->w_bits;
        assert_true(r.nll && scratch && dx);
        xent(g, &head, p->rows, p->x_bits, p->target, (float)p->scale, scratch, r.nll,
             gradient ? dx : NULL);
        dtype_to_f32(DTYPE_BF16, dx, r.dx.n, r.dx.single);
        free(scratch);
        free(dx);
        return r;
    }
    free(dx);
    assert_true(r.nll && scratch);
    xent(g, &head, p->rows, p->x.single, p->target, (float)p->scale, scratch, r.nll,
         gradient ? r.dx.single : NULL);
    free(scratch);
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
        struct result r = run(&p, *state, true), loss = run(&p, *state, false);
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
    struct result first = run(&p, *state, true);
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
    assert_true(xent_scratch_bytes(DTYPE_F32, 40, 600, true) < 4 * 600 * 40);
    for (int threads = 2; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        struct result r = run(&p, *state, true);
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
            struct result r = run(&p, *state, true), loss = run(&p, *state, false);
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

static void passes_bad_values_on(void **state)
{
    struct problem p;
    problem_init(&p, 3, 4, 5);
    p.w.single[4] = NAN;
    struct result r = run(&p, *state, true);
    assert_true(isnan(r.nll[0]) && isnan(r.nll[1]) && r.nll[2] == 0);
    assert_true(isnan(r.dx.single[0]));
    result_fini(&r);
    p.w.single[4] = 1e30f;
    r = run(&p, *state, true);
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
        cmocka_unit_test(passes_bad_values_on),
    };
    return cmocka_run_group_tests(tests, create_gemm, destroy_gemm);
}
