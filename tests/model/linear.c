/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/linear.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/model/plain.h"

struct problem {
    int rows, in, out;
    struct values x, w, dy;
    double *y;
};

static double objective(void *context)
{
    struct problem *p = context;
    plain_linear(p->rows, p->in, p->out, p->x.exact, p->w.exact, p->y);
    double sum = 0;
    for (int i = 0; i < p->rows * p->out; i++)
        sum += p->dy.exact[i] * p->y[i];
    return sum;
}

static void check(const struct gemm *g, int rows, int in, int out)
{
    struct problem p = {.rows = rows,
                        .in = in,
                        .out = out,
                        .x = values_create(rows * in, 1, 1),
                        .w = values_create(out * in, 1, 2),
                        .dy = values_create(rows * out, 1, 3),
                        .y = calloc((size_t)(rows * out), sizeof(double))};
    struct values y = values_zero(rows * out), dx = values_zero(rows * in);
    struct values dw = values_zero(out * in);
    struct linear l = {.in = in, .out = out, .w = p.w.single, .dw = dw.single};
    print_message("%d rows, %d -> %d\n", rows, in, out);
    linear_forward(g, &l, rows, p.x.single, in, 0, DTYPE_F32, y.single, out);
    objective(&p);
    expect_close("y", y.n, y.single, p.y, 2e-6);
    linear_forward(g, &l, rows, p.x.single, in, 1, DTYPE_F32, y.single, out);
    for (int i = 0; i < y.n; i++)
        p.y[i] *= 2;
    expect_close("y added to itself", y.n, y.single, p.y, 2e-6);

    linear_backward_input(g, &l, rows, p.dy.single, out, 0, dx.single, in);
    expect_gradient("dx", objective, &p, dx.n, p.x.exact, dx.single, 2e-6);
    linear_backward_weight(g, &l, rows, p.dy.single, out, p.x.single, in);
    expect_gradient("dw", objective, &p, dw.n, p.w.exact, dw.single, 2e-6);
    linear_backward_weight(g, &l, rows, p.dy.single, out, p.x.single,
                           in); /* accumulates */
    for (int i = 0; i < dw.n; i++)
        dw.single[i] /= 2;
    expect_gradient("dw twice, halved", objective, &p, dw.n, p.w.exact, dw.single,
                    2e-6);
    struct values *all[] = {&p.x, &p.w, &p.dy, &y, &dx, &dw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        values_destroy(all[i]);
    free(p.y);
}

static void equals_double_and_finite_differences(void **state)
{
    (void)state;
    static const int rows[][3] = {{1, 1, 1}, {5, 7, 3}, {3, 24, 17}, {33, 9, 20}};
    struct err err;
    struct gemm *g = gemm_create(GEMM_REF, GEMM_LEVEL_GENERIC, &err);
    assert_non_null(g);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check(g, rows[i][0], rows[i][1], rows[i][2]);
    gemm_destroy(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_double_and_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
