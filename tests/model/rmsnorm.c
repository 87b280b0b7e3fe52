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
    print_message("%d rows of %d\n", rows, dim);
    rmsnorm_forward(rows, dim, p.x.single, p.w.single, (float)eps, rstd.single,
                    y.single);
    objective(&p);
    expect_close("y", n, y.single, p.y, 1e-6);
    rmsnorm_again(rows, dim, p.x.single, p.w.single, rstd.single, again.single);
    assert_memory_equal(y.single, again.single, (size_t)n * sizeof(float));

    rmsnorm_backward_input(rows, dim, p.dy.single, p.x.single, p.w.single, rstd.single,
                           p.residual.single, dx.single);
    expect_gradient("dx", objective, &p, n, p.x.exact, dx.single, 2e-6);
    rmsnorm_backward_weight(rows, dim, p.dy.single, p.x.single, rstd.single, dw.single);
    expect_gradient("dw", objective, &p, dim, p.w.exact, dw.single, 2e-6);
    rmsnorm_backward_weight(rows, dim, p.dy.single, p.x.single, rstd.single, dw.single);
    for (int j = 0; j < dim; j++) /* accumulates */
        p.w.single[j] = dw.single[j] / 2;
    expect_gradient("dw twice, halved", objective, &p, dim, p.w.exact, p.w.single,
                    2e-6);

    struct values *all[] = {&p.x,   &p.w, &p.dy, &p.residual, &y,
                            &again, &dx,  &dw,   &rstd};
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

static void adds_nothing_without_a_residual(void **state)
{
    (void)state;
    enum { ROWS = 3, DIM = 20, N = ROWS * DIM };
    struct values x = values_create(N, 1, 1), w = values_create(DIM, 1, 2);
    struct values dy = values_create(N, 1, 3), zero = values_zero(N);
    float rstd[ROWS], with[N], without[N];
    rmsnorm_forward(ROWS, DIM, x.single, w.single, 1e-5f, rstd, NULL);
    rmsnorm_backward_input(ROWS, DIM, dy.single, x.single, w.single, rstd, zero.single,
                           with);
    rmsnorm_backward_input(ROWS, DIM, dy.single, x.single, w.single, rstd, NULL,
                           without);
    assert_memory_equal(with, without, sizeof with);
    /* In place over the residual, as the block does it. */
    rmsnorm_backward_input(ROWS, DIM, dy.single, x.single, w.single, rstd, zero.single,
                           zero.single);
    assert_memory_equal(with, zero.single, sizeof with);
    struct values *all[] = {&x, &w, &dy, &zero};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        values_destroy(all[i]);
}

static void has_the_same_bits_on_any_threads_and_address(void **state)
{
    (void)state;
    enum { ROWS = 201, DIM = 150, N = ROWS * DIM };
    struct values x = values_create(N + 1, 1, 1), w = values_create(DIM, 1, 2);
    struct values dy = values_create(N, 1, 3), dx = values_zero(2 * N);
    struct values y = values_zero(2 * N), dw = values_zero(2 * DIM);
    float rstd[ROWS];
    for (int threads = 1; threads <= 3; threads++) {
        int at = threads > 1;
        omp_set_num_threads(threads);
        float *moved = x.single + (threads == 3);
        memmove(moved, x.single, N * sizeof *moved);
        memset(dw.single + at * DIM, 0, DIM * sizeof(float));
        rmsnorm_forward(ROWS, DIM, moved, w.single, 1e-5f, rstd, y.single + at * N);
        rmsnorm_backward_input(ROWS, DIM, dy.single, moved, w.single, rstd, NULL,
                               dx.single + at * N);
        rmsnorm_backward_weight(ROWS, DIM, dy.single, moved, rstd,
                                dw.single + at * DIM);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_double_and_finite_differences),
        cmocka_unit_test(adds_nothing_without_a_residual),
        cmocka_unit_test(has_the_same_bits_on_any_threads_and_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
