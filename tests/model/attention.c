/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model/attention_run.h"

enum { SEGMENTS = 3 };

/* Of 32-lane panels, 64-key tiles, tiles of 32 to 256 query rows: less than one, whole
 * ones, one more; odd lengths; windows narrower and wider than tiles. */
static const struct {
    struct attention_dims d;
    int lengths[SEGMENTS];
} cases[] = {
    {{1, 1, 2, 0, DTYPE_F32}, {1}},        {{4, 2, 16, 0, DTYPE_F32}, {5, 1, 9}},
    {{3, 1, 24, 0, DTYPE_F32}, {17}},      {{4, 4, 6, 0, DTYPE_F32}, {3, 8}},
    {{6, 2, 8, 4, DTYPE_F32}, {11, 2, 7}}, {{2, 1, 4, 1, DTYPE_F32}, {6, 5}},
    {{4, 2, 2, 100, DTYPE_F32}, {9, 12}},  {{1, 1, 4, 0, DTYPE_F32}, {67, 66}},
    {{8, 1, 2, 9, DTYPE_F32}, {70}},       {{8, 1, 2, 0, DTYPE_F32}, {65, 1, 31}},
    {{8, 1, 2, 40, DTYPE_F32}, {129}},     {{2, 2, 2, 70, DTYPE_F32}, {1, 131}},
    {{8, 1, 2, 2, DTYPE_F32}, {64, 33}},
};
enum { CASES = sizeof cases / sizeof *cases };

/* Too large for finite differences. */
static const struct {
    struct attention_dims d;
    int lengths[SEGMENTS];
} larger[] = {
    {{2, 1, 4, 0, DTYPE_BF16}, {1, 1, 1}},      {{4, 2, 16, 0, DTYPE_BF16}, {5, 1, 9}},
    {{3, 1, 24, 0, DTYPE_BF16}, {17, 100}},     {{4, 4, 6, 33, DTYPE_BF16}, {129, 63}},
    {{6, 2, 8, 4, DTYPE_BF16}, {11, 2, 207}},   {{8, 2, 32, 0, DTYPE_BF16}, {257, 300}},
    {{8, 1, 64, 100, DTYPE_BF16}, {333}},       {{4, 1, 128, 0, DTYPE_BF16}, {5, 260}},
    {{1, 1, 40, 0, DTYPE_BF16}, {513, 64, 31}}, {{2, 1, 2, 1, DTYPE_BF16}, {70}},
};
enum { LARGER = sizeof larger / sizeof *larger };

/* What the CPU can at most, and what every CPU can. */
struct contexts {
    struct gemm *level[2];
};

static void equals_double_and_finite_differences(void **state)
{
    struct contexts *c = *state;
    for (int i = 0; i < 2 * CASES; i++) {
        struct attention_problem p;
        attention_problem_init(&p, cases[i / 2].d, SEGMENTS, cases[i / 2].lengths,
                               NULL);
        const int *lengths = cases[i / 2].lengths;
        print_message("heads %d/%d of %d, window %d, segments %d %d %d, level %d\n",
                      p.d.heads, p.d.kv_heads, p.d.head_dim, p.d.window, lengths[0],
                      lengths[1], lengths[2], i % 2);
        struct attention_result r = attention_run(&p, c->level[i % 2], 1);
        attention_objective(&p);
        expect_close("out", r.out.n, r.out.single, p.out, 2e-6);
        expect_gradient("dq", attention_objective, &p, r.dq.n, p.q.exact, r.dq.single,
                        1e-5);
        expect_gradient("dk", attention_objective, &p, r.dk.n, p.k.exact, r.dk.single,
                        1e-5);
        expect_gradient("dv", attention_objective, &p, r.dv.n, p.v.exact, r.dv.single,
                        1e-5);
        attention_result_fini(&r);
        attention_problem_fini(&p);
    }
}

/* Results and p, ds are rounded to 8 bits: 2^-9 at most, 0.29 x 2^-8 = 1.1e-3 in the
 * root mean square, for each; ds loses some more where dp - D cancels. */
static void bf16_is_near_fp32(void **state)
{
    static const char *names[] = {"out", "lse", "dq", "dk", "dv"};
    static const double allowed[] = {2.5e-3, 1e-5, 6e-3, 6e-3, 4e-3};
    struct contexts *c = *state;
    for (int i = 0; i < 2 * LARGER; i++) {
        struct attention_problem p;
        attention_problem_init(&p, larger[i / 2].d, SEGMENTS, larger[i / 2].lengths,
                               NULL);
        struct attention_result half = attention_run(&p, c->level[i % 2], 2);
        p.d.dtype = DTYPE_F32;
        struct attention_result full = attention_run(&p, c->level[i % 2], 2);
        const struct values *a = &half.out, *b = &full.out;
        for (int k = 0; k < 5; k++, a++, b++) {
            double error = attention_rms_error(a, b);
            print_message("heads %d/%d of %d, window %d, level %d, %s: %.2e of %.0e\n",
                          p.d.heads, p.d.kv_heads, p.d.head_dim, p.d.window, i % 2,
                          names[k], error, allowed[k]);
            assert_true(error <= allowed[k]);
        }
        attention_result_fini(&half);
        attention_result_fini(&full);
        attention_problem_fini(&p);
    }
}

static void has_the_same_bits_on_any_threads(void **state)
{
    struct contexts *c = *state;
    for (int i = 0; i < 2 * (CASES + LARGER); i++) {
        struct attention_problem p;
        int n = i / 2;
        if (n < CASES)
            attention_problem_init(&p, cases[n].d, SEGMENTS, cases[n].lengths, NULL);
        else
            attention_problem_init(&p, larger[n - CASES].d, SEGMENTS,
                                   larger[n - CASES].lengths, NULL);
        expect_attention_bits_of_any_threads(&p, c->level[i % 2]);
        attention_problem_fini(&p);
    }
}

/* A row must not change with what lies beyond its window, segment or diagonal. */
static void sees_only_what_it_may(void **state)
{
    struct contexts *c = *state;
    static const int lengths[SEGMENTS] = {10, 10};
    struct attention_problem p;
    attention_problem_init(&p, (struct attention_dims){2, 1, 4, 3, DTYPE_F32}, SEGMENTS,
                           lengths, NULL);
    struct attention_result before = attention_run(&p, c->level[0], 1);
    int row = 5, stride = 2 * 4;
    for (int t = 0; t < p.rows.rows; t++)
        if (t < row - 2 || t > row)
            for (int e = 0; e < 4; e++) {
                p.k.single[t * 4 + e] += 100;
                p.v.single[t * 4 + e] -= 1000;
            }
    struct attention_result after = attention_run(&p, c->level[0], 1);
    assert_memory_equal(before.out.single + row * stride,
                        after.out.single + row * stride,
                        (size_t)stride * sizeof(float));
    p.v.single[(row - 2) * 4] += 1;
    struct attention_result moved = attention_run(&p, c->level[0], 1);
    assert_memory_not_equal(before.out.single + row * stride,
                            moved.out.single + row * stride,
                            (size_t)stride * sizeof(float));
    attention_result_fini(&before);
    attention_result_fini(&after);
    attention_result_fini(&moved);
    attention_problem_fini(&p);
}

static void survives_large_scores_and_passes_nan_on(void **state)
{
    struct contexts *c = *state;
    static const int lengths[SEGMENTS] = {4, 3};
    struct attention_problem p;
    attention_problem_init(&p, (struct attention_dims){1, 1, 2, 0, DTYPE_F32}, SEGMENTS,
                           lengths, NULL);
    for (int i = 0; i < p.q.n; i++) {
        p.q.single[i] *= 300;
        p.k.single[i] *= 300;
    }
    struct attention_result r = attention_run(&p, c->level[0], 1);
    for (int i = 0; i < p.q.n; i++)
        assert_true(isfinite(r.out.single[i]) && isfinite(r.dq.single[i]));
    attention_result_fini(&r);
    p.k.single[2] = NAN; /* row 1 of segment 0 */
    r = attention_run(&p, c->level[0], 1);
    assert_true(isfinite(r.out.single[0]));
    assert_true(isnan(r.out.single[2]) && isnan(r.out.single[6]));
    assert_true(isfinite(r.out.single[8]) && isfinite(r.dk.single[8]));
    attention_result_fini(&r);
    attention_problem_fini(&p);
}

/* Exact results of one query row and head: its sum of exponentials, out and dq. */
static double exact_row(const struct attention_problem *p, int t, int head, double *out,
                        double *dq)
{
    const struct attention_dims *d = &p->d;
    int dim = d->head_dim, kv = head / (d->heads / d->kv_heads);
    const double *q = p->q.exact + ((int64_t)t * d->heads + head) * dim;
    const double *dout = p->dout.exact + ((int64_t)t * d->heads + head) * dim;
    double sum = 0, delta = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int u = 0; u <= t; u++) {
            const double *k = p->k.exact + ((int64_t)u * d->kv_heads + kv) * dim;
            const double *v = p->v.exact + ((int64_t)u * d->kv_heads + kv) * dim;
            double s = 0, dp = 0;
            for (int e = 0; e < dim; e++) {
                s += q[e] * k[e];
                dp += dout[e] * v[e];
            }
            double x = exp(s / sqrt(dim));
            if (pass == 0) {
                sum += x;
                delta += x * dp;
                for (int e = 0; e < dim; e++)
                    out[e] += x * v[e];
            } else {
                for (int e = 0; e < dim; e++)
                    dq[e] += x / sum * (dp - delta / sum) * k[e] / sqrt(dim);
            }
        }
    for (int e = 0; e < dim; e++)
        out[e] /= sum;
    return sum;
}

static void long_rows_equal_double(void **state)
{
    enum { T = 8192, DIM = 8, HEADS = 2, EVERY = 511 };
    struct contexts *c = *state;
    static const int lengths[SEGMENTS] = {T};
    struct attention_problem p;
    attention_problem_init(&p, (struct attention_dims){HEADS, 1, DIM, 0, DTYPE_F32},
                           SEGMENTS, lengths, NULL);
    struct attention_result r = attention_run(&p, c->level[0], 2);
    double worst_out = 0, worst_dq = 0, worst_lse = 0;
    for (int t = 0; t < T; t += EVERY)
        for (int h = 0; h < HEADS; h++) {
            double out[DIM] = {0}, dq[DIM] = {0};
            int64_t at = ((int64_t)t * HEADS + h) * DIM;
            double lse = log(exact_row(&p, t, h, out, dq));
            worst_lse =
                fmax(worst_lse, fabs(lse - (double)r.lse.single[t * HEADS + h]));
            worst_out = fmax(worst_out, values_error(DIM, r.out.single + at, out));
            worst_dq = fmax(worst_dq, values_error(DIM, r.dq.single + at, dq));
        }
    print_message("%d rows: worst out %.1e, dq %.1e, lse %.1e\n", T, worst_out,
                  worst_dq, worst_lse);
    assert_true(worst_out <= 1e-5 && worst_dq <= 3e-5 && worst_lse <= 2e-6);
    attention_result_fini(&r);
    attention_problem_fini(&p);
}

/* Scratch of 32/8 heads of 128 on two threads, in units of k and v. */
static void memory_grows_with_the_rows_at_most(void **state)
{
    (void)state;
    int64_t bytes[2][2], longer[2];
    for (int training = 0; training < 2; training++) {
        for (int i = 0; i < 2; i++) {
            struct attention_dims d = {32, 8, 128, 0, DTYPE_BF16};
            struct attention_work w;
            struct arena a = {0};
            attention_work_lay_out(&w, &a, &d, 4096 << i, 4096 << i, 2, training);
            bytes[training][i] = a.used;
            longer[i] = w.thread_bytes;
        }
        print_message("%s: %lld bytes at T = 4096, %lld at 8192, %lld a thread\n",
                      training ? "training" : "forward", (long long)bytes[training][0],
                      (long long)bytes[training][1], (long long)longer[1]);
        assert_int_equal(longer[0], longer[1]);
        assert_true(longer[1] < 1 << 20);
        int64_t grown = bytes[training][1] - bytes[training][0];
        assert_true(grown <= 4096ll * (training ? 8 * 128 * 8 + 64 : 32));
    }
}

static int create_gemm(void **state)
{
    static struct contexts c;
    struct err err;
    c.level[0] = gemm_create(GEMM_REF, gemm_level_here(), &err);
    c.level[1] = gemm_create(GEMM_REF, GEMM_LEVEL_GENERIC, &err);
    *state = &c;
    return c.level[0] && c.level[1] ? 0 : -1;
}

static int destroy_gemm(void **state)
{
    struct contexts *c = *state;
    gemm_destroy(c->level[0]);
    gemm_destroy(c->level[1]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_double_and_finite_differences),
        cmocka_unit_test(bf16_is_near_fp32),
        cmocka_unit_test(has_the_same_bits_on_any_threads),
        cmocka_unit_test(sees_only_what_it_may),
        cmocka_unit_test(survives_large_scores_and_passes_nan_on),
        cmocka_unit_test(long_rows_equal_double),
        cmocka_unit_test(memory_grows_with_the_rows_at_most),
    };
    return cmocka_run_group_tests(tests, create_gemm, destroy_gemm);
}
