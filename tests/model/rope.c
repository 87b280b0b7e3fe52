/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/rope.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model/plain.h"

enum { POSITIONS = 40 };

struct problem {
    int rows, heads, head_dim;
    double theta;
    const int *position;
    struct values x, dy;
    double *y;
};

static double objective(void *context)
{
    struct problem *p = context;
    int n = p->rows * p->heads * p->head_dim;
    memcpy(p->y, p->x.exact, (size_t)n * sizeof *p->y);
    plain_rope(p->rows, p->heads, p->head_dim, p->position, p->theta, p->y);
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += p->dy.exact[i] * p->y[i];
    return sum;
}

static void check(int heads, int head_dim, double theta)
{
    static const int position[] = {0, 1, 2, 39, 0, 7, 7};
    enum { ROWS = sizeof position / sizeof *position };
    int n = ROWS * heads * head_dim, angles = POSITIONS * head_dim / 2;
    struct problem p = {.rows = ROWS,
                        .heads = heads,
                        .head_dim = head_dim,
                        .theta = theta,
                        .position = position,
                        .x = values_create(n, 1, 1),
                        .dy = values_create(n, 1, 2),
                        .y = calloc((size_t)n, sizeof(double))};
    struct values c = values_zero(angles), s = values_zero(angles);
    print_message("%d heads of %d, theta %g\n", heads, head_dim, theta);
    rope_table(POSITIONS, head_dim, theta, c.single, s.single);
    rope_forward(ROWS, heads, head_dim, position, c.single, s.single, DTYPE_F32,
                 p.x.single, heads * head_dim);
    objective(&p);
    expect_close("y", n, p.x.single, p.y, 5e-6); /* angles are rounded to fp32 */
    rope_backward(ROWS, heads, head_dim, position, c.single, s.single, DTYPE_F32,
                  p.dy.single, heads * head_dim);
    expect_gradient("dx", objective, &p, n, p.x.exact, p.dy.single, 5e-6);
    struct values *all[] = {&p.x, &p.dy, &c, &s};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        values_destroy(all[i]);
    free(p.y);
}

static void equals_double_and_finite_differences(void **state)
{
    (void)state;
    static const struct {
        int heads, head_dim;
        double theta;
    } rows[] = {{1, 2, 1e4}, {3, 6, 1e4}, {4, 16, 1e6}, {2, 24, 1e4}, {1, 128, 5e5}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check(rows[i].heads, rows[i].head_dim, rows[i].theta);
}

/* torch: sin(float32(32767) * (1 / float32(10000^0.25))), all in float32. */
static void rounds_far_angles_as_transformers(void **state)
{
    (void)state;
    enum { FAR = 32768, DIM = 8, ANGLES = FAR * DIM / 2 };
    struct values c = values_zero(ANGLES), s = values_zero(ANGLES);
    rope_table(FAR, DIM, 10000, c.single, s.single);
    float angle = 32767.0f * (1.0f / 10.0f); /* pair 1 of 4: 10000^(2/8) = 10 */
    float got = s.single[(FAR - 1) * (DIM / 2) + 1];
    print_message("sin at 32767: %.9g, of the fp32 angle %.9g, of the exact one %.9g\n",
                  (double)got, sin((double)angle), sin(3276.7));
    assert_true(got == (float)sin((double)angle));
    assert_true(fabs((double)got - sin(3276.7)) > 1e-6);
    values_destroy(&c);
    values_destroy(&s);
}

static void has_the_same_bits_on_any_threads(void **state)
{
    (void)state;
    enum { ROWS = 37, HEADS = 3, DIM = 10, N = ROWS * HEADS * DIM };
    int position[ROWS];
    for (int t = 0; t < ROWS; t++)
        position[t] = t;
    float first[N];
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        struct values x = values_create(N, 1, 1), c = values_zero(POSITIONS * DIM / 2);
        struct values s = values_zero(POSITIONS * DIM / 2);
        rope_table(POSITIONS, DIM, 1e4, c.single, s.single);
        rope_forward(ROWS, HEADS, DIM, position, c.single, s.single, DTYPE_F32,
                     x.single, HEADS * DIM);
        if (threads == 1)
            memcpy(first, x.single, sizeof first);
        assert_memory_equal(first, x.single, sizeof first);
        values_destroy(&x);
        values_destroy(&c);
        values_destroy(&s);
    }
}

/* As the block turns q and k of fused rows; v's columns stay. */
static void does_the_same_in_bf16_on_fused_rows(void **state)
{
    (void)state;
    enum { ROWS = 9, HEADS = 5, DIM = 24, REST = 7, STRIDE = HEADS * DIM + REST };
    static const int position[ROWS] = {0, 1, 2, 39, 0, 7, 7, 8, 9};
    struct values x = values_create(ROWS * STRIDE, 1, 1);
    struct values c = values_zero(POSITIONS * DIM / 2), s = values_zero(c.n);
    rope_table(POSITIONS, DIM, 1e4, c.single, s.single);
    for (int back = 0; back < 2; back++) {
        uint16_t *bits = values_round(&x);
        if (back) {
            rope_backward(ROWS, HEADS, DIM, position, c.single, s.single, DTYPE_F32,
                          x.single, STRIDE);
            rope_backward(ROWS, HEADS, DIM, position, c.single, s.single, DTYPE_BF16,
                          bits, STRIDE);
        } else {
            rope_forward(ROWS, HEADS, DIM, position, c.single, s.single, DTYPE_F32,
                         x.single, STRIDE);
            rope_forward(ROWS, HEADS, DIM, position, c.single, s.single, DTYPE_BF16,
                         bits, STRIDE);
        }
        expect_rounded(back ? "back" : "forward", x.n, bits, x.single);
        for (int t = 0; t < ROWS && !back; t++)
            for (int j = HEADS * DIM; j < STRIDE; j++)
                assert_true((double)x.single[t * STRIDE + j] ==
                            x.exact[t * STRIDE + j]);
        free(bits);
    }
    values_destroy(&x);
    values_destroy(&c);
    values_destroy(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_double_and_finite_differences),
        cmocka_unit_test(rounds_far_angles_as_transformers),
        cmocka_unit_test(has_the_same_bits_on_any_threads),
        cmocka_unit_test(does_the_same_in_bf16_on_fused_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
