/* SPDX-License-Identifier: Apache-2.0 */
#include "src/optim/adamw.h"

#include "src/base/rng.h"
#include "src/optim/master.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct adamw usual = {0.9, 0.95, 1e-8, 0.1};

enum { STEPS = 20 };

/* Four arrays in one, so that a copy is a memcpy. */
struct state {
    int64_t n;
    float *w, *m, *v, *g; /* w owns all */
};

static struct state state_create(int64_t n)
{
    float *all = calloc((size_t)(4 * n + 1), sizeof *all);
    assert_non_null(all);
    struct state s = {n, all, all + n, all + 2 * n, all + 3 * n};
    for (int64_t i = 0; i < n; i++)
        s.w[i] = (float)(0.1 * rng_normal(1, 0, (uint64_t)i));
    return s;
}

static float gradient(int64_t i, int64_t t)
{
    /* some elements never see one, some are tiny */
    double size = i % 5 == 0 ? 0.0 : i % 7 == 0 ? 1e-9 : 0.3;
    return (float)(size * rng_normal(2, (uint64_t)t, (uint64_t)i));
}

static void set_gradients(struct state *s, int64_t t)
{
    for (int64_t i = 0; i < s->n; i++)
        s->g[i] = gradient(i, t);
}

static double rate(int64_t t)
{
    return t == 1 ? 0.0 : 1e-2 / (double)t;
}

/* The formulas of the header in double. */
static void plain_step(const struct adamw *a, int64_t t, double lr, bool decay,
                       double scale, int64_t n, double *w, double *m, double *v)
{
    for (int64_t i = 0; i < n; i++) {
        double g = scale * (double)gradient(i, t);
        w[i] *= 1 - (decay ? lr * a->weight_decay : 0);
        m[i] = a->beta1 * m[i] + (1 - a->beta1) * g;
        v[i] = a->beta2 * v[i] + (1 - a->beta2) * g * g;
        double mean = m[i] / (1 - pow(a->beta1, (double)t));
        double square = v[i] / (1 - pow(a->beta2, (double)t));
        w[i] -= lr * mean / (sqrt(square) + a->eps);
    }
}

static double worst(int64_t n, const float *x, const double *y)
{
    double error = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)x[i] - y[i]);
        if (!(d <= error))
            error = d;
    }
    return error;
}

static void twenty_steps_equal_double(void **unused)
{
    (void)unused;
    enum { N = 1003 };
    for (int decay = 0; decay < 2; decay++) {
        for (int clipped = 0; clipped < 2; clipped++) {
            double scale = clipped ? 0.3 : 1.0;
            struct state s = state_create(N);
            double w[N], m[N] = {0}, v[N] = {0};
            for (int i = 0; i < N; i++)
                w[i] = (double)s.w[i];
            for (int t = 1; t <= STEPS; t++) {
                set_gradients(&s, t);
                adamw_update(&usual, t, rate(t), decay, scale, N, s.w, s.m, s.v, s.g);
                plain_step(&usual, t, rate(t), decay, scale, N, w, m, v);
                for (int i = 0; i < N; i++)
                    assert_true(s.g[i] == 0.0f); /* cleared */
            }
            double ew = worst(N, s.w, w), em = worst(N, s.m, m), ev = worst(N, s.v, v);
            printf("decay %d, scale %.1f: worst error w %.1e, m %.1e, v %.1e\n", decay,
                   scale, ew, em, ev);
            assert_true(ew < 2e-7 && em < 1e-7 && ev < 1e-7);
            free(s.w);
        }
    }
}

static void an_unseen_element_only_decays(void **unused)
{
    (void)unused;
    struct state s = state_create(1);
    float first = s.w[0];
    adamw_update(&usual, 1, 0.5, false, 1.0, 1, s.w, s.m, s.v, s.g);
    assert_true(s.w[0] == first && s.m[0] == 0.0f && s.v[0] == 0.0f);
    adamw_update(&usual, 2, 0.5, true, 1.0, 1, s.w, s.m, s.v, s.g);
    assert_true(s.w[0] == first * 0.95f);
    free(s.w);
}

static void rate_0_moves_only_the_moments(void **unused)
{
    (void)unused;
    struct state s = state_create(1);
    float first = s.w[0];
    s.g[0] = 2.0f;
    adamw_update(&usual, 1, 0.0, true, 1.0, 1, s.w, s.m, s.v, s.g);
    assert_true(s.w[0] == first && s.m[0] == 0.2f && s.v[0] > 0.0f);
    free(s.w);
}

/* All steps with the range cut in pieces of `piece`. */
static struct state run(int64_t n, int64_t piece, int threads)
{
    struct state s = state_create(n);
    omp_set_num_threads(threads);
    for (int t = 1; t <= 3; t++) {
        set_gradients(&s, t);
        for (int64_t at = 0; at < n; at += piece)
            adamw_update(&usual, t, rate(t), true, 0.7, n - at < piece ? n - at : piece,
                         s.w + at, s.m + at, s.v + at, s.g + at);
    }
    return s;
}

static void bits_do_not_depend_on_threads_or_range(void **unused)
{
    (void)unused;
    enum { N = 70001 };
    int threads = omp_get_max_threads();
    struct state one = run(N, N, 1);
    const int64_t pieces[] = {N, 32768, 1000, 77};
    for (int p = 0; p < 4; p++)
        for (int n = 1; n <= 4; n++) {
            struct state other = run(N, pieces[p], n);
            assert_memory_equal(one.w, other.w, 3 * N * sizeof *one.w);
            free(other.w);
        }
    omp_set_num_threads(threads);
    free(one.w);
}

/* Master, moments and cleared gradients have the bits of the fp32 update; the weight is
 * the master, rounded. */
static void bf16_keeps_the_master(void **unused)
{
    (void)unused;
    enum { N = 40007 };
    struct state full = state_create(N), half = state_create(N);
    uint16_t *w = malloc(N * sizeof *w), *fresh = malloc(N * sizeof *fresh);
    int16_t *rest = malloc(N * sizeof *rest);
    assert_true(w && fresh && rest);
    master_split(N, half.w, w, rest);
    int threads = omp_get_max_threads();
    for (int t = 1; t <= STEPS; t++) {
        set_gradients(&full, t);
        set_gradients(&half, t);
        adamw_update(&usual, t, rate(t), t % 2, 0.7, N, full.w, full.m, full.v, full.g);
        omp_set_num_threads(1 + t % 3);
        int64_t piece = t % 2 ? N : 9001;
        for (int64_t at = 0; at < N; at += piece)
            adamw_update_bf16(&usual, t, rate(t), t % 2, 0.7,
                              N - at < piece ? N - at : piece, w + at, rest + at,
                              half.m + at, half.v + at, half.g + at);
        master_gather(N, w, rest, half.w);
        assert_memory_equal(full.w, half.w, 4 * N * sizeof *full.w);
        master_split(N, full.w, fresh, NULL);
        assert_memory_equal(w, fresh, N * sizeof *w);
    }
    omp_set_num_threads(threads);
    free(full.w);
    free(half.w);
    free(w);
    free(fresh);
    free(rest);
}

static void sums_squares(void **unused)
{
    (void)unused;
    const int64_t counts[] = {0, 1, 15, 17, 4096, 4097, 100000, 2200000};
    int threads = omp_get_max_threads();
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        int64_t n = counts[c];
        float *x = calloc((size_t)n + 1, sizeof *x);
        assert_non_null(x);
        long double exact = 0;
        for (int64_t i = 0; i < n; i++) {
            x[i] = (float)rng_normal(3, 0, (uint64_t)i);
            exact += (long double)x[i] * (long double)x[i];
        }
        omp_set_num_threads(1);
        double sum = sum_of_squares(n, x);
        printf("sum of %lld squares: %.17g, error %.1Le\n", (long long)n, sum,
               fabsl((long double)sum - exact));
        assert_true(fabsl((long double)sum - exact) <= 1e-14L * exact);
        for (int t = 2; t <= 4; t++) {
            omp_set_num_threads(t);
            double again = sum_of_squares(n, x);
            assert_memory_equal(&sum, &again, sizeof sum);
        }
        if (n) {
            x[n - 1] = NAN;
            assert_true(isnan(sum_of_squares(n, x)));
        }
        free(x);
    }
    omp_set_num_threads(threads);
}

static void clips_as_torch(void **unused)
{
    (void)unused;
    static const struct {
        double norm, clip, scale;
    } rows[] = {{0.5, 1.0, 1.0},
                {1.0, 1.0, 1.0 / (1.0 + 1e-6)},
                {4.0, 1.0, 1.0 / (4.0 + 1e-6)},
                {4.0, 0.0, 1.0}, /* off */
                {0.0, 1.0, 1.0},
                {1e30, 2.0, 2.0 / (1e30 + 1e-6)}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double scale = clip_scale(rows[i].norm, rows[i].clip);
        printf("norm %g, clip %g: %.17g\n", rows[i].norm, rows[i].clip, scale);
        assert_true(scale == rows[i].scale);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twenty_steps_equal_double),
        cmocka_unit_test(an_unseen_element_only_decays),
        cmocka_unit_test(rate_0_moves_only_the_moments),
        cmocka_unit_test(bits_do_not_depend_on_threads_or_range),
        cmocka_unit_test(bf16_keeps_the_master),
        cmocka_unit_test(sums_squares),
        cmocka_unit_test(clips_as_torch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
