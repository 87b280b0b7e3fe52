/* SPDX-License-Identifier: Apache-2.0 */
#include "io/mix.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

enum { N = 1003 }; /* no multiple of any vector */

/* Values with all their bits, from -1 to 1. */
static void fill(float *x, uint32_t seed)
{
    for (int i = 0; i < N; i++) {
        seed = seed * 1664525 + 1013904223;
        x[i] = (float)((int32_t)seed >> 8) * 0x1p-23F;
    }
}

/* One rounding for a product and its sum: what separate ones would lose is there. */
static void sums_are_fused(void **state)
{
    (void)state;
    float x[N], y[N], sum[N];
    uint32_t differ[N];
    fill(x, 1);
    fill(y, 2);
    mix_first(0.3F, x, N, sum, differ);
    mix_next(0.7F, y, x, N, sum, differ);
    int unlike = 0;
    for (int i = 0; i < N; i++) {
        float separate = 0.3F * x[i] + 0.7F * y[i];
        assert_memory_equal(&sum[i], &(float){fmaf(0.7F, y[i], 0.3F * x[i])},
                            sizeof sum[i]);
        unlike += memcmp(&sum[i], &separate, sizeof separate) != 0;
    }
    print_message("%d of %d sums differ from separate roundings\n", unlike, N);
    assert_true(unlike > N / 10);
}

static void a_mean_keeps_what_is_equal(void **state)
{
    (void)state;
    static const float special[] = {-0.0F,   0.0F,     0x1p-149F, 0x1.8p-130F,
                                    FLT_MAX, INFINITY, -INFINITY, NAN};
    static const float weight[] = {0.1F, 0.23F, 0.7F};
    enum { SPECIAL = sizeof special / sizeof *special };
    float x[N], y[N], sum[N];
    uint32_t differ[N];
    fill(x, 3);
    memcpy(x, special, sizeof special);
    memcpy(y, x, sizeof y);
    y[N - 1] = 0.5F;
    mix_first(weight[0], x, N, sum, differ);
    mix_next(weight[1], x, x, N, sum, differ);
    mix_next(weight[2], y, x, N, sum, differ);
    float total = weight[0] + weight[1] + weight[2], last = sum[N - 1];
    int rounded = 0;
    for (int i = SPECIAL; i < N - 1; i++)
        rounded += sum[i] / total < x[i] || sum[i] / total > x[i];
    mix_mean(total, x, differ, N, sum);
    assert_memory_equal(sum, x, (N - 1) * sizeof *x);
    assert_memory_equal(&sum[N - 1], &(float){last / total}, sizeof *sum);
    print_message("%d of %d means of equal values had been rounded away\n", rounded, N);
    assert_true(rounded > 0);
}

/* The sums of every length, and their order is that of eight lanes. */
static void products_are_sums_of_all(void **state)
{
    (void)state;
    float x[N], y[N];
    fill(x, 4);
    fill(y, 5);
    for (int n = 0; n < N; n++) {
        struct mix_products p = mix_multiply(x, y, n);
        double aa = 0, bb = 0, ab = 0;
        for (int i = 0; i < n; i++) {
            aa += (double)x[i] * (double)x[i];
            bb += (double)y[i] * (double)y[i];
            ab += (double)x[i] * (double)y[i];
        }
        assert_true(fabs(p.aa - aa) <= 1e-11 && fabs(p.bb - bb) <= 1e-11 &&
                    fabs(p.ab - ab) <= 1e-11);
    }
}

static void slerp_has_mergekits_edges(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct mix_products p;
        double t, a, b;
        bool line;
    } rows[] = {
        {"right angle", {4, 9, 0}, 0.5, M_SQRT1_2, M_SQRT1_2, false},
        {"60 degrees", {1, 1, 0.5}, 1.0 / 3, 0.742227, 0.394931, false},
        {"a is zero", {0, 9, 0}, 0.25, 0.923880, 0.382683, false},
        {"both are", {0, 0, 0}, 0.5, M_SQRT1_2, M_SQRT1_2, false},
        {"norms that count as 1", {1e-18, 1, 1e-9}, 0.5, M_SQRT1_2, M_SQRT1_2, false},
        {"just not parallel", {1, 1, 0.9995}, 0.5, 0.500063, 0.500063, false},
        {"just parallel", {1, 1, 0.99951}, 0.25, 0.75, 0.25, true},
        {"the same", {4, 4, 4}, 0.25, 0.75, 0.25, true},
        {"longer", {1, 9, 3}, 0.25, 0.75, 0.25, true},
        {"opposite", {1, 9, -3}, 0.5, 0.5, 0.5, true},
        {"beyond 1 by rounding", {1, 1, 1.0000001}, 0.5, 0.5, 0.5, true},
        {"the start", {1, 1, 0.2}, 0, 1, 0, false},
        {"the end", {1, 1, 0.2}, 1, 0, 1, false},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct mix_slerp s = mix_slerp(&rows[r].p, rows[r].t);
        print_message("%s: %.6f %.6f%s\n", rows[r].what, (double)s.weight[0],
                      (double)s.weight[1], s.line ? " line" : "");
        assert_true(fabs((double)s.weight[0] - rows[r].a) < 1e-6);
        assert_true(fabs((double)s.weight[1] - rows[r].b) < 1e-6);
        assert_int_equal(s.line, rows[r].line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_fused),
        cmocka_unit_test(a_mean_keeps_what_is_equal),
        cmocka_unit_test(products_are_sums_of_all),
        cmocka_unit_test(slerp_has_mergekits_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
