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

/* Each form of a bf16 product, with and without packed copies: within bf16's rounding
 * of the exact one, and as two layers or one. */
static void check_bf16(struct gemm *g, int rows, int in, int half)
{
    int out = 2 * half, n = rows * out;
    struct problem p = {.rows = rows,
                        .in = in,
                        .out = out,
                        .x = values_create(rows * in, 1, 1),
                        .w = values_create(out * in, 1, 2),
                        .dy = values_create(n, 1, 3),
                        .y = calloc((size_t)n, sizeof(double))};
    struct values y = values_zero(n), dx = values_zero(rows * in);
    struct values dw[2] = {values_zero(out * in), values_zero(out * in)};
    uint16_t *x_bits = values_round(&p.x), *w_bits = values_round(&p.w);
    uint16_t *dy_bits = values_round(&p.dy);
    uint16_t *y_bits[2] = {calloc((size_t)n, 2), calloc((size_t)n, 2)};
    uint16_t *dx_bits[2] = {calloc((size_t)dx.n, 2), calloc((size_t)dx.n, 2)};
    struct err err;
    print_message("bf16: %d rows, %d -> 2 x %d\n", rows, in, half);
    for (int packed = 0; packed < 2; packed++) {
        struct linear_group l = linear_group_of(DTYPE_BF16, in, (int[]){half, half}, 2);
        assert_int_equal(l.parts, half * in % 16 == 0 ? 1 : 2);
        struct arena a = {0};
        for (int pass = 0; pass < 2; pass++) {
            for (int i = 0; i < l.parts && packed; i++)
                linear_pack_lay_out(&l.part[i], &a, g, true, LINEAR_PACK_OWN, NULL);
            if (pass == 0)
                a = (struct arena){.base = aligned_alloc(64, (size_t)a.used + 64)};
        }
        for (int i = 0; i < l.parts; i++) {
            l.part[i].w = w_bits + i * half * in;
            linear_group_add_sum(&l, i * half, l.part[i].out,
                                 dw[packed].single + i * half * in);
            assert_int_equal(linear_pack_create(&l.part[i], g, &err), 0);
            assert_true((l.part[i].forward != NULL) == packed);
            linear_pack_fill(&l.part[i]);
        }
        linear_group_forward(g, &l, rows, x_bits, y_bits[packed]);
        linear_group_backward_input(g, &l, rows, dy_bits, dx_bits[packed]);
        linear_group_backward_weight(g, &l, rows, dy_bits, x_bits);
        for (int i = 0; i < l.parts; i++)
            linear_pack_destroy(&l.part[i]);
        free(a.base);
    }
    assert_memory_equal(y_bits[0], y_bits[1], (size_t)n * 2);
    assert_memory_equal(dx_bits[0], dx_bits[1], (size_t)dx.n * 2);
    assert_memory_equal(dw[0].single, dw[1].single, (size_t)dw[0].n * sizeof(float));
    dtype_to_f32(DTYPE_BF16, y_bits[0], n, y.single);
    dtype_to_f32(DTYPE_BF16, dx_bits[0], dx.n, dx.single);
    objective(&p);
    expect_close("y", n, y.single, p.y, 4e-3);
    expect_gradient("dx", objective, &p, dx.n, p.x.exact, dx.single, 8e-3);
    expect_gradient("dw", objective, &p, dw[0].n, p.w.exact, dw[0].single, 2e-6);
    struct values *all[] = {&p.x, &p.w, &p.dy, &y, &dx, &dw[0], &dw[1]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        values_destroy(all[i]);
    void *bits[] = {x_bits,    w_bits,     dy_bits,    y_bits[0],
                    y_bits[1], dx_bits[0], dx_bits[1], p.y};
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
        free(bits[i]);
}

/* Two of three layers are trained: the gradients have the bits of those that all three
 * give in one product, the third has none. */
static void trains_some_of_a_group(void **state)
{
    (void)state;
    enum { ROWS = 37, IN = 32, OUT = 24, ALL = 3 * OUT, SIZE = OUT * IN };
    static const enum gemm_backend backends[] = {GEMM_REF, GEMM_OWN};
    struct values x = values_create(ROWS * IN, 1, 1);
    struct values dy = values_create(ROWS * ALL, 1, 2);
    uint16_t *x_bits = values_round(&x), *dy_bits = values_round(&dy);
    for (int i = 0; i < 4; i++) {
        enum dtype t = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        const void *from = i % 2 ? (void *)x_bits : (void *)x.single;
        const void *by = i % 2 ? (void *)dy_bits : (void *)dy.single;
        struct err err;
        struct gemm *g = gemm_create(backends[i / 2], gemm_level_here(), &err);
        assert_non_null(g);
        struct values whole = values_zero(ALL * IN);
        struct linear_group all = linear_group_of(t, IN, (int[]){OUT, OUT, OUT}, 3);
        for (int k = 0; k < 3; k++)
            linear_group_add_sum(&all, k * OUT, OUT, whole.single + k * SIZE);
        assert_int_equal(all.sums, 1);
        linear_group_backward_weight(g, &all, ROWS, by, from);
        for (int frozen = 0; frozen < 3; frozen++) {
            struct values dw = values_zero(ALL * IN);
            struct linear_group some =
                linear_group_of(t, IN, (int[]){OUT, OUT, OUT}, 3);
            for (int k = 0, at = 0; k < 3; k++)
                if (k != frozen)
                    linear_group_add_sum(&some, k * OUT, OUT, dw.single + SIZE * at++);
            assert_int_equal(some.sums, frozen == 1 ? 2 : 1);
            linear_group_backward_weight(g, &some, ROWS, by, from);
            for (int k = 0, at = 0; k < 3; k++)
                if (k != frozen)
                    assert_memory_equal(dw.single + SIZE * at++,
                                        whole.single + SIZE * k, SIZE * sizeof(float));
            for (int k = 2 * SIZE; k < 3 * SIZE; k++)
                assert_true(dw.single[k] == 0);
            values_destroy(&dw);
        }
        values_destroy(&whole);
        gemm_destroy(g);
    }
    free(x_bits);
    free(dy_bits);
    values_destroy(&x);
    values_destroy(&dy);
}

static void is_rounded_once_in_bf16(void **state)
{
    (void)state;
    static const int rows[][3] = {{1, 1, 1}, {5, 7, 3}, {3, 24, 8}, {33, 10, 20}};
    static const enum gemm_backend backends[] = {GEMM_REF, GEMM_BLIS};
    struct err err;
    for (int b = 0; b < 2; b++) {
        struct gemm *g = gemm_create(backends[b], gemm_level_here(), &err);
        assert_non_null(g);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            check_bf16(g, rows[i][0], rows[i][1], rows[i][2]);
        gemm_destroy(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_double_and_finite_differences),
        cmocka_unit_test(is_rounded_once_in_bf16),
        cmocka_unit_test(trains_some_of_a_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
