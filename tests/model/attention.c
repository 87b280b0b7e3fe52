/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/attention.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"

#include <cmocka.h>

#include "tests/model/plain.h"

enum { SEGMENTS = 3 };

struct problem {
    struct attention_dims d;
    struct rows rows;
    int begin[SEGMENTS + 1];
    int max_length;
    struct values q, k, v, dout;
    double *out;
};

static void problem_init(struct problem *p, struct attention_dims d, const int *lengths)
{
    *p = (struct problem){.d = d};
    for (int s = 0; s < SEGMENTS && lengths[s]; s++) {
        p->begin[s + 1] = p->begin[s] + lengths[s];
        p->max_length = lengths[s] > p->max_length ? lengths[s] : p->max_length;
        p->rows.segments = s + 1;
    }
    int rows = p->begin[p->rows.segments];
    p->rows.rows = rows;
    p->rows.segment_begin = p->begin;
    p->q = values_create(rows * d.heads * d.head_dim, 1, 1);
    p->k = values_create(rows * d.kv_heads * d.head_dim, 1, 2);
    p->v = values_create(rows * d.kv_heads * d.head_dim, 1, 3);
    p->dout = values_create(p->q.n, 1, 4);
    p->out = calloc((size_t)p->q.n, sizeof *p->out);
    assert_non_null(p->out);
    struct values *all[] = {&p->q, &p->k, &p->v, &p->dout};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (int n = 0; n < all[i]->n; n++) { /* the same numbers in any dtype */
            all[i]->single[n] = bf16_to_f32(bf16_from_f32(all[i]->single[n]));
            all[i]->exact[n] = (double)all[i]->single[n];
        }
}

static void problem_fini(struct problem *p)
{
    values_destroy(&p->q);
    values_destroy(&p->k);
    values_destroy(&p->v);
    values_destroy(&p->dout);
    free(p->out);
}

static double objective(void *context)
{
    struct problem *p = context;
    plain_attention(&p->d, &p->rows, p->q.exact, p->k.exact, p->v.exact, p->out);
    double sum = 0;
    for (int i = 0; i < p->q.n; i++)
        sum += p->dout.exact[i] * p->out[i];
    return sum;
}

/* What one run forward and backward gives, widened to fp32. */
struct result {
    struct values out, lse, dq, dk, dv;
};

/* An array [rows, cols] in a problem's dtype, with a stride. */
struct array {
    enum dtype dtype;
    int rows, cols, stride;
    char *p;
};

enum { SENTINEL = 0x5a };

static struct array array_create(enum dtype dtype, int rows, int cols, int stride)
{
    struct array a = {dtype, rows, cols, stride, NULL};
    size_t bytes = (size_t)rows * (size_t)stride * dtype_bytes(dtype);
    struct err err;
    a.p = mem_array((int64_t)bytes, 1, &err);
    assert_non_null(a.p);
    memset(a.p, SENTINEL, bytes);
    return a;
}

static char *array_row(const struct array *a, int row, int col)
{
    return a->p +
           ((size_t)row * (size_t)a->stride + (size_t)col) * dtype_bytes(a->dtype);
}

static void array_put(struct array *a, int col, int cols, const float *from)
{
    for (int t = 0; t < a->rows; t++)
        dtype_from_f32(a->dtype, from + (int64_t)t * cols, cols, array_row(a, t, col));
}

static void array_get(const struct array *a, int col, int cols, float *to)
{
    for (int t = 0; t < a->rows; t++)
        dtype_to_f32(a->dtype, array_row(a, t, col), cols, to + (int64_t)t * cols);
}

/* Nothing beyond the columns may have been written. */
static void array_fini(struct array *a)
{
    for (int t = 0; t < a->rows; t++)
        for (const char *c = array_row(a, t, a->cols); c < array_row(a, t + 1, 0); c++)
            assert_int_equal(*c, SENTINEL);
    mem_free(a->p);
}

/* Rows of q, k and v lie side by side, with a gap of GAP elements to the next. */
enum { GAP = 6 };

static struct result run(const struct problem *p, const struct gemm *g, int threads)
{
    struct attention_work w;
    struct arena count = {0}, a;
    struct err err;
    const struct attention_dims *d = &p->d;
    int rows = p->rows.rows, wide = d->heads * d->head_dim;
    int narrow = d->kv_heads * d->head_dim, fused = wide + 2 * narrow;
    attention_work_lay_out(&w, &count, d, rows, p->max_length, threads, true);
    a = (struct arena){.base = mem_array(count.used, 1, &err)};
    assert_non_null(a.base);
    memset(a.base, 0xff, (size_t)count.used); /* NaNs: scratch must not matter */
    attention_work_lay_out(&w, &a, d, rows, p->max_length, threads, true);
    assert_int_equal(a.used, count.used);

    struct array in = array_create(d->dtype, rows, fused, fused + GAP);
    struct array grad = array_create(d->dtype, rows, fused, fused + GAP);
    struct array out = array_create(d->dtype, rows, wide, wide);
    struct array dout = array_create(d->dtype, rows, wide, wide);
    array_put(&in, 0, wide, p->q.single);
    array_put(&in, wide, narrow, p->k.single);
    array_put(&in, wide + narrow, narrow, p->v.single);
    array_put(&dout, 0, wide, p->dout.single);
    struct attention_input x = {in.p,
                                array_row(&in, 0, wide),
                                array_row(&in, 0, wide + narrow),
                                in.stride,
                                in.stride,
                                in.stride};
    struct attention_gradient dx = {grad.p,
                                    array_row(&grad, 0, wide),
                                    array_row(&grad, 0, wide + narrow),
                                    grad.stride,
                                    grad.stride,
                                    grad.stride};
    struct result r = {values_zero(p->q.n), values_zero(rows * d->heads),
                       values_zero(p->q.n), values_zero(p->k.n), values_zero(p->k.n)};
    attention_forward(g, d, &w, &p->rows, &x, out.p, r.lse.single);
    attention_backward(g, d, &w, &p->rows, &x, out.p, r.lse.single, dout.p, &dx);
    array_get(&out, 0, wide, r.out.single);
    array_get(&grad, 0, wide, r.dq.single);
    array_get(&grad, wide, narrow, r.dk.single);
    array_get(&grad, wide + narrow, narrow, r.dv.single);
    array_fini(&in);
    array_fini(&grad);
    array_fini(&out);
    array_fini(&dout);
    mem_free(a.base);
    return r;
}

static void result_fini(struct result *r)
{
    struct values *all[] = {&r->out, &r->lse, &r->dq, &r->dk, &r->dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        values_destroy(all[i]);
}

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
        struct problem p;
        problem_init(&p, cases[i / 2].d, cases[i / 2].lengths);
        const int *lengths = cases[i / 2].lengths;
        print_message("heads %d/%d of %d, window %d, segments %d %d %d, level %d\n",
                      p.d.heads, p.d.kv_heads, p.d.head_dim, p.d.window, lengths[0],
                      lengths[1], lengths[2], i % 2);
        struct result r = run(&p, c->level[i % 2], 1);
        objective(&p);
        expect_close("out", r.out.n, r.out.single, p.out, 2e-6);
        expect_gradient("dq", objective, &p, r.dq.n, p.q.exact, r.dq.single, 1e-5);
        expect_gradient("dk", objective, &p, r.dk.n, p.k.exact, r.dk.single, 1e-5);
        expect_gradient("dv", objective, &p, r.dv.n, p.v.exact, r.dv.single, 1e-5);
        result_fini(&r);
        problem_fini(&p);
    }
}

/* Error of the root mean square, relative to that of b. */
static double rms_error(const struct values *a, const struct values *b)
{
    double error = 0, whole = 0;
    for (int i = 0; i < a->n; i++) {
        double e = (double)a->single[i] - (double)b->single[i];
        error += e * e;
        whole += (double)b->single[i] * (double)b->single[i];
    }
    return sqrt(error / (whole > 0 ? whole : 1));
}

/* Results and p, ds are rounded to 8 bits: 2^-9 at most, 0.29 x 2^-8 = 1.1e-3 in the
 * root mean square, for each; ds loses some more where dp - D cancels. */
static void bf16_is_near_fp32(void **state)
{
    static const char *names[] = {"out", "lse", "dq", "dk", "dv"};
    static const double allowed[] = {2.5e-3, 1e-5, 6e-3, 6e-3, 4e-3};
    struct contexts *c = *state;
    for (int i = 0; i < 2 * LARGER; i++) {
        struct problem p;
        problem_init(&p, larger[i / 2].d, larger[i / 2].lengths);
        struct result half = run(&p, c->level[i % 2], 2);
        p.d.dtype = DTYPE_F32;
        struct result full = run(&p, c->level[i % 2], 2);
        const struct values *a = &half.out, *b = &full.out;
        for (int k = 0; k < 5; k++, a++, b++) {
            double error = rms_error(a, b);
            print_message("heads %d/%d of %d, window %d, level %d, %s: %.2e of %.0e\n",
                          p.d.heads, p.d.kv_heads, p.d.head_dim, p.d.window, i % 2,
                          names[k], error, allowed[k]);
            assert_true(error <= allowed[k]);
        }
        result_fini(&half);
        result_fini(&full);
        problem_fini(&p);
    }
}

static void expect_same_bits_on_any_threads(const struct problem *p,
                                            const struct gemm *g)
{
    omp_set_num_threads(1);
    struct result first = run(p, g, 1);
    for (int threads = 2; threads <= 5; threads++) {
        omp_set_num_threads(threads);
        /* Scratch for four: a fifth thread has to stay away. */
        struct result r = run(p, g, 4);
        const struct values *a = &first.out, *b = &r.out;
        for (int k = 0; k < 5; k++, a++, b++)
            assert_memory_equal(a->single, b->single, (size_t)a->n * sizeof(float));
        result_fini(&r);
    }
    result_fini(&first);
}

static void has_the_same_bits_on_any_threads(void **state)
{
    struct contexts *c = *state;
    for (int i = 0; i < 2 * (CASES + LARGER); i++) {
        struct problem p;
        int n = i / 2;
        if (n < CASES)
            problem_init(&p, cases[n].d, cases[n].lengths);
        else
            problem_init(&p, larger[n - CASES].d, larger[n - CASES].lengths);
        expect_same_bits_on_any_threads(&p, c->level[i % 2]);
        problem_fini(&p);
    }
}

/* A row must not change with what lies beyond its window, segment or diagonal. */
static void sees_only_what_it_may(void **state)
{
    struct contexts *c = *state;
    static const int lengths[SEGMENTS] = {10, 10};
    struct problem p;
    problem_init(&p, (struct attention_dims){2, 1, 4, 3, DTYPE_F32}, lengths);
    struct result before = run(&p, c->level[0], 1);
    int row = 5, stride = 2 * 4;
    for (int t = 0; t < p.rows.rows; t++)
        if (t < row - 2 || t > row)
            for (int e = 0; e < 4; e++) {
                p.k.single[t * 4 + e] += 100;
                p.v.single[t * 4 + e] -= 1000;
            }
    struct result after = run(&p, c->level[0], 1);
    assert_memory_equal(before.out.single + row * stride,
                        after.out.single + row * stride,
                        (size_t)stride * sizeof(float));
    p.v.single[(row - 2) * 4] += 1;
    struct result moved = run(&p, c->level[0], 1);
    assert_memory_not_equal(before.out.single + row * stride,
                            moved.out.single + row * stride,
                            (size_t)stride * sizeof(float));
    result_fini(&before);
    result_fini(&after);
    result_fini(&moved);
    problem_fini(&p);
}

static void survives_large_scores_and_passes_nan_on(void **state)
{
    struct contexts *c = *state;
    static const int lengths[SEGMENTS] = {4, 3};
    struct problem p;
    problem_init(&p, (struct attention_dims){1, 1, 2, 0, DTYPE_F32}, lengths);
    for (int i = 0; i < p.q.n; i++) {
        p.q.single[i] *= 300;
        p.k.single[i] *= 300;
    }
    struct result r = run(&p, c->level[0], 1);
    for (int i = 0; i < p.q.n; i++)
        assert_true(isfinite(r.out.single[i]) && isfinite(r.dq.single[i]));
    result_fini(&r);
    p.k.single[2] = NAN; /* row 1 of segment 0 */
    r = run(&p, c->level[0], 1);
    assert_true(isfinite(r.out.single[0]));
    assert_true(isnan(r.out.single[2]) && isnan(r.out.single[6]));
    assert_true(isfinite(r.out.single[8]) && isfinite(r.dk.single[8]));
    result_fini(&r);
    problem_fini(&p);
}

/* Exact results of one query row and head: its sum of exponentials, out and dq. */
static double exact_row(const struct problem *p, int t, int head, double *out,
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
    struct problem p;
    problem_init(&p, (struct attention_dims){HEADS, 1, DIM, 0, DTYPE_F32}, lengths);
    struct result r = run(&p, c->level[0], 2);
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
    result_fini(&r);
    problem_fini(&p);
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
