/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/rmsnorm.h"

#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model/plain.h"

struct problem {
    int rows, dim;
    double eps;
    struct values x, w, dy, residual;
    double *y;
};

static double objective(void *context)
{
    struct problem *p = context;
    plain_rmsnorm(p->rows, p->dim, p->x.exact, p->w.exact, p->eps, p->y);
    double sum = 0;
    for (int i = 0; i < p->rows * p->dim; i++)
        sum += p->dy.exact[i] * p->y[i] + p->residual.exact[i] * p->x.exact[i];
    return sum;
}

static void check(int rows, int dim, double eps)
{
    int n = rows * dim;
    struct problem p = {.rows = rows,
                        .dim = dim,
                        .eps = (double)(float)eps,
                        .x = values_create(n, 1, 1),
                        .w = values_create(dim, 1, 2),
                        .dy = values_create(n, 1, 3),
                        .residual = values_create(n, 1, 4),
                        .y = calloc((size_t)n, sizeof(double))};
    struct values y = values_zero(n), again = values_zero(n), dx = values_zero(n);
    struct values dw = values_zero(dim), rstd = values_zero(rows);
    struct values sums = values_zero((int)rmsnorm_scratch_floats(dim, rows));
    struct rmsnorm norm = {
        .dim = dim, .eps = (float)eps, .w = p.w.single, .dw = dw.single};
    print_message("%d rows of %d\n", rows, dim);
    rmsnorm_forward(&norm, rows, p.x.single, rstd.single, y.single, again.single);
    objective(&p);
    expect_close("y", n, y.single, p.y, 1e-6);
    assert_memory_equal(p.x.single, again.single, (size_t)n * sizeof(float));

    rmsnorm_backward(&norm, rows, p.dy.single, p.x.single, rstd.single,
                     p.residual.single, dx.single, again.single, sums.single);
    assert_memory_equal(y.single, again.single, (size_t)n * sizeof(float));
    expect_gradient("dx", objective, &p, n, p.x.exact, dx.single, 2e-6);
    expect_gradient("dw", objective, &p, dim, p.w.exact, dw.single, 2e-6);
    rmsnorm_backward(&norm, rows, p.dy.single, p.x.single, rstd.single, NULL, dx.single,
                     NULL, sums.single);
    for (int j = 0; j < dim; j++) /* accumulates */
        dw.single[j] /= 2;
    expect_gradient("dw twice, halved", objective, &p, dim, p.w.exact, dw.single, 2e-6);

    struct values *all[] = {&p.x,   &p.w, &p.dy, &p.residual, &y,
                            &again, &dx,  &dw,   &rstd,       &sums};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        values_destroy(all[i]);
    free(p.y);
}

static void equals_double_and_finite_differences(void **state)
{
    (void)state;
    static const struct {
        int rows, dim;
        double eps;
    } rows[] = {
        {1, 1, 1e-5}, {1, 16, 1e-6}, {3, 17, 1e-5}, {5, 72, 0.5}, {131, 33, 1e-5}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check(rows[i].rows, rows[i].dim, rows[i].eps);
}

static void may_work_in_place(void **state)
{
    (void)state;
    enum { ROWS = 3, DIM = 20, N = ROWS * DIM };
    struct values x = values_create(N, 1, 1), w = values_create(DIM, 1, 2);
    struct values dy = values_create(N, 1, 3), residual = values_create(N, 1, 4);
    float rstd[ROWS], y[N], apart[N], dw[DIM] = {0}, sums[DIM], zero[N] = {0}, none[N];
    struct rmsnorm norm = {.dim = DIM, .eps = 1e-5f, .w = w.single, .dw = dw};
    rmsnorm_forward(&norm, ROWS, x.single, rstd, y, NULL);
    rmsnorm_backward(&norm, ROWS, dy.single, x.single, rstd, residual.single, apart,
                     NULL, sums);
    rmsnorm_backward(&norm, ROWS, dy.single, x.single, rstd, zero, zero, NULL, sums);
    rmsnorm_backward(&norm, ROWS, dy.single, x.single, rstd, NULL, none, NULL, sums);
    assert_memory_equal(zero, none, sizeof zero);
    /* As the block does it: dx over the residual, y over dy. */
    rmsnorm_backward(&norm, ROWS, dy.single, x.single, rstd, residual.single,
                     residual.single, dy.single, sums);
    assert_memory_equal(apart, residual.single, sizeof apart);
    assert_memory_equal(y, dy.single, sizeof y);
    struct values *all[] = {&x, &w, &dy, &residual};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        values_destroy(all[i]);
}

static void has_the_same_bits_on_any_threads_and_address(void **state)
{
    (void)state;
    enum { ROWS = 201, DIM = 150, N = ROWS * DIM, BLOCKS = 4 };
    struct values x = values_create(N + 1, 1, 1), w = values_create(DIM, 1, 2);
    struct values dy = values_create(N, 1, 3), dx = values_zero(2 * N);
    struct values y = values_zero(2 * N), dw = values_zero(2 * DIM);
    float rstd[ROWS], sums[BLOCKS * DIM];
    assert_int_equal(rmsnorm_scratch_floats(DIM, ROWS), BLOCKS * DIM);
    for (int threads = 1; threads <= 3; threads++) {
        int at = threads > 1;
        omp_set_num_threads(threads);
        float *moved = x.single + (threads == 3);
        memmove(moved, x.single, N * sizeof *moved);
        struct rmsnorm norm = {
            .dim = DIM, .eps = 1e-5f, .w = w.single, .dw = dw.single + at * DIM};
        memset(norm.dw, 0, DIM * sizeof(float));
        rmsnorm_forward(&norm, ROWS, moved, rstd, y.single + at * N, NULL);
        rmsnorm_backward(&norm, ROWS, dy.single, moved, rstd, NULL, dx.single + at * N,
                         NULL, sums);
        if (!at)
            continue;
        assert_memory_equal(y.single, y.single + N, N * sizeof(float));
        assert_memory_equal(dx.single, dx.single + N, N * sizeof(float));
        assert_memory_equal(dw.single, dw.single + DIM, DIM * sizeof(float));
    }
    struct values *all[] = {&x, &w, &dy, &dx, &y, &dw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        values_destroy(all[i]);
}

static void does_the_same_in_bf16(void **state)
{
    (void)state;
    enum { ROWS = 70, DIM = 150, N = ROWS * DIM, BLOCKS = 2 };
    struct values x = values_create(N, 1, 1), w = values_create(DIM, 1, 2);
    struct values dy = values_create(N, 1, 3), residual = values_create(N, 1, 4);
    struct values y = values_zero(N), dx = values_zero(N), dw = values_zero(DIM);
    struct values dw2 = values_zero(DIM);
    uint16_t *in[] = {values_round(&x), values_round(&w), values_round(&dy),
                      values_round(&residual)};
    uint16_t *out = calloc(3 * N, sizeof *out), *dx2 = out + N, *copy = out + 2 * N;
    float rstd[ROWS], rstd2[ROWS], sums[BLOCKS * DIM];
    struct rmsnorm norm = {.dim = DIM, .eps = 1e-5f, .w = w.single, .dw = dw.single};
    struct rmsnorm norm2 = {
        .dim = DIM, .dtype = DTYPE_BF16, .eps = 1e-5f, .w = in[1], .dw = dw2.single};
    assert_non_null(out);
    rmsnorm_forward(&norm, ROWS, x.single, rstd, y.single, NULL);
    rmsnorm_forward(&norm2, ROWS, in[0], rstd2, out, copy);
    assert_memory_equal(rstd, rstd2, sizeof rstd);
    assert_memory_equal(copy, in[0], N * sizeof *copy);
    expect_rounded("y", N, out, y.single);
    rmsnorm_backward(&norm, ROWS, dy.single, x.single, rstd, residual.single, dx.single,
                     NULL, sums);
    memset(out, 0, N * sizeof *out);
    rmsnorm_backward(&norm2, ROWS, in[2], in[0], rstd, in[3], dx2, out, sums);
    expect_rounded("y again", N, out, y.single);
    expect_rounded("dx", N, dx2, dx.single);
    assert_memory_equal(dw.single, dw2.single, DIM * sizeof(float));
    struct values *all[] = {&x, &w, &dy, &residual, &y, &dx, &dw, &dw2};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        values_destroy(all[i]);
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        free(in[i]);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_double_and_finite_differences),
        cmocka_unit_test(may_work_in_place),
        cmocka_unit_test(has_the_same_bits_on_any_threads_and_address),
        cmocka_unit_test(does_the_same_in_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
