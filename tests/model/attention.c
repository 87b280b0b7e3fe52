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

/* What one run forward and backward gives. */
struct result {
    struct values out, lse, dq, dk, dv;
};

static struct result run(const struct problem *p, const struct gemm *g, int threads)
{
    struct attention_work w;
    struct arena count = {0}, a;
    struct err err;
    int rows = p->rows.rows;
    attention_work_lay_out(&w, &count, &p->d, rows, p->max_length, threads, true);
    a = (struct arena){.base = mem_array(count.used, 1, &err)};
    assert_non_null(a.base);
    memset(a.base, 0xff, (size_t)count.used); /* NaNs: scratch must not matter */
    attention_work_lay_out(&w, &a, &p->d, rows, p->max_length, threads, true);
    assert_int_equal(a.used, count.used);

    struct result r = {values_zero(p->q.n), values_zero(rows * p->d.heads),
                       values_zero(p->q.n), values_zero(p->k.n), values_zero(p->k.n)};
    int64_t wide = (int64_t)p->d.heads * p->d.head_dim;
    int64_t narrow = (int64_t)p->d.kv_heads * p->d.head_dim;
    struct attention_input x = {p->q.single, p->k.single, p->v.single,
                                wide,        narrow,      narrow};
    struct attention_gradient dx = {r.dq.single, r.dk.single, r.dv.single,
                                    wide,        narrow,      narrow};
    attention_forward(g, &p->d, &w, &p->rows, &x, r.out.single, r.lse.single);
    attention_backward(g, &p->d, &w, &p->rows, &x, r.out.single, r.lse.single,
                       p->dout.single, &dx);
    mem_free(a.base);
    return r;
}

static void result_fini(struct result *r)
{
    struct values *all[] = {&r->out, &r->lse, &r->dq, &r->dk, &r->dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        values_destroy(all[i]);
}

static const struct {
    struct attention_dims d;
    int lengths[SEGMENTS];
} cases[] = {
    {{1, 1, 2, 0, DTYPE_F32}, {1}},
    {{4, 2, 16, 0, DTYPE_F32}, {5, 1, 9}},
    {{3, 1, 24, 0, DTYPE_F32}, {17}},
    {{4, 4, 6, 0, DTYPE_F32}, {3, 8}},
    {{6, 2, 8, 4, DTYPE_F32}, {11, 2, 7}},
    {{2, 1, 4, 1, DTYPE_F32}, {6, 5}},
    {{4, 2, 2, 100, DTYPE_F32}, {9, 12}},
    {{1, 1, 4, 0, DTYPE_F32}, {67, 66}}, /* more than one tile */
    {{8, 1, 2, 9, DTYPE_F32}, {70}},     /* G = 8: tiles of 32 */
};
enum { CASES = sizeof cases / sizeof *cases };

static void equals_double_and_finite_differences(void **state)
{
    for (int i = 0; i < CASES; i++) {
        struct problem p;
        problem_init(&p, cases[i].d, cases[i].lengths);
        print_message("heads %d/%d of %d, window %d, segments %d %d %d\n", p.d.heads,
                      p.d.kv_heads, p.d.head_dim, p.d.window, cases[i].lengths[0],
                      cases[i].lengths[1], cases[i].lengths[2]);
        struct result r = run(&p, *state, 1);
        objective(&p);
        expect_close("out", r.out.n, r.out.single, p.out, 2e-6);
        expect_gradient("dq", objective, &p, r.dq.n, p.q.exact, r.dq.single, 1e-5);
        expect_gradient("dk", objective, &p, r.dk.n, p.k.exact, r.dk.single, 1e-5);
        expect_gradient("dv", objective, &p, r.dv.n, p.v.exact, r.dv.single, 1e-5);
        result_fini(&r);
        problem_fini(&p);
    }
}

static void has_the_same_bits_on_any_threads(void **state)
{
    for (int i = 0; i < CASES; i++) {
        struct problem p;
        problem_init(&p, cases[i].d, cases[i].lengths);
        omp_set_num_threads(1);
        struct result first = run(&p, *state, 1);
        for (int threads = 2; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            /* Scratch for two: a third thread has to stay away. */
            struct result r = run(&p, *state, 2);
            const struct values *a = &first.out, *b = &r.out;
            for (int k = 0; k < 5; k++, a++, b++)
                assert_memory_equal(a->single, b->single, (size_t)a->n * sizeof(float));
            result_fini(&r);
        }
        result_fini(&first);
        problem_fini(&p);
    }
}

/* A row must not change with what lies beyond its window, segment or diagonal. */
static void sees_only_what_it_may(void **state)
{
    static const int lengths[SEGMENTS] = {10, 10};
    struct problem p;
    problem_init(&p, (struct attention_dims){2, 1, 4, 3, DTYPE_F32}, lengths);
    struct result before = run(&p, *state, 1);
    int row = 5, stride = 2 * 4;
    for (int t = 0; t < p.rows.rows; t++)
        if (t < row - 2 || t > row)
            for (int e = 0; e < 4; e++) {
                p.k.single[t * 4 + e] += 100;
                p.v.single[t * 4 + e] -= 1000;
            }
    struct result after = run(&p, *state, 1);
    assert_memory_equal(before.out.single + row * stride,
                        after.out.single + row * stride,
                        (size_t)stride * sizeof(float));
    p.v.single[(row - 2) * 4] += 1;
    struct result moved = run(&p, *state, 1);
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
    static const int lengths[SEGMENTS] = {4, 3};
    struct problem p;
    problem_init(&p, (struct attention_dims){1, 1, 2, 0, DTYPE_F32}, lengths);
    for (int i = 0; i < p.q.n; i++) {
        p.q.single[i] *= 300;
        p.k.single[i] *= 300;
    }
    struct result r = run(&p, *state, 1);
    for (int i = 0; i < p.q.n; i++)
        assert_true(isfinite(r.out.single[i]) && isfinite(r.dq.single[i]));
    result_fini(&r);
    p.k.single[2] = NAN; /* row 1 of segment 0 */
    r = run(&p, *state, 1);
    assert_true(isfinite(r.out.single[0]));
    assert_true(isnan(r.out.single[2]) && isnan(r.out.single[6]));
    assert_true(isfinite(r.out.single[8]) && isfinite(r.dk.single[8]));
    result_fini(&r);
    problem_fini(&p);
}

static int create_gemm(void **state)
{
    struct err err;
    *state = gemm_create(GEMM_REF, GEMM_LEVEL_GENERIC, &err);
    return *state ? 0 : -1;
}

static int destroy_gemm(void **state)
{
    gemm_destroy(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_double_and_finite_differences),
        cmocka_unit_test(has_the_same_bits_on_any_threads),
        cmocka_unit_test(sees_only_what_it_may),
        cmocka_unit_test(survives_large_scores_and_passes_nan_on),
    };
    return cmocka_run_group_tests(tests, create_gemm, destroy_gemm);
}
