/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/swiglu.h"

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
    int n;
    struct values gate, up, dact;
    double *act;
    float *gate_up; /* [2 n] */
};

static float *floats(int n)
{
    float *p = calloc((size_t)n, sizeof *p);
    assert_non_null(p);
    return p;
}

static double objective(void *context)
{
    struct problem *p = context;
    plain_swiglu(p->n, p->gate.exact, p->up.exact, p->act);
    double sum = 0;
    for (int i = 0; i < p->n; i++)
        sum += p->dact.exact[i] * p->act[i];
    return sum;
}

static void equals_double_and_finite_differences(void **state)
{
    (void)state;
    static const struct {
        int n;
        double scale;
    } rows[] = {{1, 1}, {15, 1}, {118, 3}, {300, 12}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int n = rows[i].n;
        struct problem p = {.n = n,
                            .gate = values_create(n, rows[i].scale, 1),
                            .up = values_create(n, 1, 2),
                            .gate_up = floats(2 * n),
                            .dact = values_create(n, 1, 3),
                            .act = calloc((size_t)n, sizeof(double))};
        struct values act = values_zero(n);
        memcpy(p.gate_up, p.gate.single, (size_t)n * sizeof(float));
        memcpy(p.gate_up + n, p.up.single, (size_t)n * sizeof(float));
        swiglu_forward(1, n, DTYPE_F32, p.gate_up, act.single);
        objective(&p);
        expect_close("act", n, act.single, p.act, 1e-6);
        swiglu_backward(1, n, DTYPE_F32, p.gate_up, p.dact.single);
        expect_gradient("dgate", objective, &p, n, p.gate.exact, p.gate_up, 2e-6);
        expect_gradient("dup", objective, &p, n, p.up.exact, p.gate_up + n, 2e-6);
        objective(&p); /* its last call had one input moved */
        expect_close("act again", n, p.dact.single, p.act, 1e-6);
        values_destroy(&p.gate);
        values_destroy(&p.up);
        values_destroy(&p.dact);
        values_destroy(&act);
        free(p.act);
        free(p.gate_up);
    }
}

static void is_silu_at_the_ends(void **state)
{
    (void)state;
    static const struct {
        float gate, act;
    } rows[] = {{0, 0}, {200, 200}, {-200, 0}, {1e30f, 1e30f}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float act, gate_up[] = {rows[i].gate, 1};
        swiglu_forward(1, 1, DTYPE_F32, gate_up, &act);
        print_message("silu(%g) = %g\n", (double)rows[i].gate, (double)act);
        assert_true(act == rows[i].act);
    }
    float act, d = 1, gate_up[] = {NAN, 1};
    swiglu_forward(1, 1, DTYPE_F32, gate_up, &act);
    assert_true(isnan(act));
    swiglu_backward(1, 1, DTYPE_F32, gate_up, &d);
    assert_true(isnan(gate_up[0]) && isnan(gate_up[1]));
}

static void has_the_same_bits_on_any_threads_and_address(void **state)
{
    (void)state;
    enum { ROWS = 17, FF = 1177, N = ROWS * FF };
    struct values expect = values_zero(4 * N);
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        struct values v = values_create(3 * N, 2, 1), room = values_zero(4 * N + 3);
        float *gate = room.single + threads, *dact = gate + 2 * N, *act = dact + N;
        memcpy(gate, v.single, 3 * N * sizeof *gate);
        swiglu_forward(ROWS, FF, DTYPE_F32, gate, act);
        swiglu_backward(ROWS, FF, DTYPE_F32, gate, dact);
        if (threads == 1)
            memcpy(expect.single, gate, 4 * N * sizeof *gate);
        assert_memory_equal(expect.single, gate, 4 * N * sizeof *gate);
        values_destroy(&v);
        values_destroy(&room);
    }
    values_destroy(&expect);
}

static void does_the_same_in_bf16(void **state)
{
    (void)state;
    enum { ROWS = 5, FF = 117, N = ROWS * FF };
    struct values gate_up = values_create(2 * N, 4, 1), dact = values_create(N, 1, 2);
    struct values act = values_zero(N);
    uint16_t *gate_up_bits = values_round(&gate_up), *dact_bits = values_round(&dact);
    uint16_t act_bits[N];
    swiglu_forward(ROWS, FF, DTYPE_F32, gate_up.single, act.single);
    swiglu_forward(ROWS, FF, DTYPE_BF16, gate_up_bits, act_bits);
    expect_rounded("act", N, act_bits, act.single);
    swiglu_backward(ROWS, FF, DTYPE_F32, gate_up.single, dact.single);
    swiglu_backward(ROWS, FF, DTYPE_BF16, gate_up_bits, dact_bits);
    expect_rounded("dgate, dup", 2 * N, gate_up_bits, gate_up.single);
    expect_rounded("act again", N, dact_bits, dact.single);
    values_destroy(&gate_up);
    values_destroy(&dact);
    values_destroy(&act);
    free(gate_up_bits);
    free(dact_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_double_and_finite_differences),
        cmocka_unit_test(is_silu_at_the_ends),
        cmocka_unit_test(has_the_same_bits_on_any_threads_and_address),
        cmocka_unit_test(does_the_same_in_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
