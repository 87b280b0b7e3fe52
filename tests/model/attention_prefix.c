/* SPDX-License-Identifier: Apache-2.0 */
/* Segments that branch off the one before them: against double precision, against the
 * same rows in full, on any number of threads. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model/attention_run.h"

enum { MOST = ATTENTION_SEGMENTS, ROW = 2 };

/* Prefixes below, at and above a tile of 64 keys, up to a whole segment; branches of
 * one row and of several tiles of 32 to 256 queries; windows that reach into the prefix
 * from all of a branch, from its first tile or its first rows only, or not at all; and
 * several pairs, with segments without a branch between them. */
static const struct {
    struct attention_dims d;
    int lengths[MOST], prefix[MOST];
} cases[] = {
    {{1, 1, 2, 0, DTYPE_F32}, {1, 1}, {0, 1}},
    {{4, 2, 16, 0, DTYPE_F32}, {5, 1, 9}, {0, 1, 0}},
    {{3, 1, 24, 0, DTYPE_F32}, {17, 20}, {0, 11}},
    {{4, 4, 6, 3, DTYPE_F32}, {9, 8, 4, 3}, {0, 7, 0, 2}},
    {{2, 1, 4, 1, DTYPE_F32}, {6, 5}, {0, 6}},
    {{4, 2, 64, 0, DTYPE_F32}, {100, 40}, {0, 63}},
    {{8, 1, 8, 0, DTYPE_F32}, {64, 65}, {0, 64}},
    {{8, 2, 40, 0, DTYPE_F32}, {130, 1}, {0, 65}},
    {{8, 1, 6, 0, DTYPE_F32}, {333, 90}, {0, 300}},
    {{4, 1, 128, 0, DTYPE_F32}, {310, 33}, {0, 300}},
    {{1, 1, 8, 0, DTYPE_F32}, {70, 300}, {0, 1}},
    {{6, 2, 8, 0, DTYPE_F32},
     {10, 12, 100, 33, 65, 5, 6, 9},
     {0, 7, 0, 64, 0, 65, 0, 0}},
    {{8, 1, 4, 40, DTYPE_F32}, {129, 129}, {0, 100}},
    {{8, 1, 4, 64, DTYPE_F32}, {200, 70}, {0, 128}},
    {{8, 1, 4, 65, DTYPE_F32}, {200, 70}, {0, 129}},
    {{8, 1, 2, 9, DTYPE_F32}, {300, 100}, {0, 300}},
    {{2, 2, 10, 70, DTYPE_F32}, {140, 300, 131, 1}, {0, 140, 0, 63}},
    {{4, 2, 16, 350, DTYPE_F32}, {320, 270}, {0, 300}},
    {{8, 1, 16, 1, DTYPE_F32}, {70, 70}, {0, 65}},
};
enum { CASES = sizeof cases / sizeof *cases, SMALL = 5 };

/* What the CPU can at most, and what every CPU can. */
struct contexts {
    struct gemm *level[2];
};

static void problem_at(struct attention_problem *p, int i)
{
    attention_problem_init(p, cases[i].d, MOST, cases[i].lengths, cases[i].prefix);
}

static void print_case(const struct attention_problem *p, int level)
{
    print_message("heads %d/%d of %d, window %d, rows+prefix", p->d.heads,
                  p->d.kv_heads, p->d.head_dim, p->d.window);
    for (int s = 0; s < p->rows.segments; s++)
        print_message(" %d+%d", p->begin[s + 1] - p->begin[s], p->prefix[s]);
    print_message(", level %d\n", level);
}

/* Gradients in double; owned. */
static struct plain_gradient exact_gradient(const struct attention_problem *p)
{
    struct plain_gradient g = {calloc((size_t)p->q.n, sizeof(double)),
                               calloc((size_t)p->k.n, sizeof(double)),
                               calloc((size_t)p->k.n, sizeof(double))};
    assert_true(g.dq && g.dk && g.dv);
    plain_attention_gradient(&p->d, &p->rows, p->q.exact, p->k.exact, p->v.exact,
                             p->dout.exact, &g);
    return g;
}

static void gradient_fini(struct plain_gradient *g)
{
    free(g->dq);
    free(g->dk);
    free(g->dv);
}

static void equals_double(void **state)
{
    struct contexts *c = *state;
    omp_set_num_threads(2);
    for (int i = 0; i < 2 * CASES; i++) {
        struct attention_problem p;
        problem_at(&p, i / 2);
        print_case(&p, i % 2);
        struct attention_result r = attention_run(&p, c->level[i % 2], 2);
        struct plain_gradient g = exact_gradient(&p);
        attention_objective(&p);
        expect_close("out", r.out.n, r.out.single, p.out, 2e-6);
        expect_close("dq", r.dq.n, r.dq.single, g.dq, 1e-5);
        expect_close("dk", r.dk.n, r.dk.single, g.dk, 1e-5);
        expect_close("dv", r.dv.n, r.dv.single, g.dv, 1e-5);
        gradient_fini(&g);
        attention_result_fini(&r);
        attention_problem_fini(&p);
    }
}

static void equals_finite_differences(void **state)
{
    struct contexts *c = *state;
    for (int i = 0; i < SMALL; i++) {
        struct attention_problem p;
        problem_at(&p, i);
        print_case(&p, 0);
        struct attention_result r = attention_run(&p, c->level[0], 2);
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

/* As tests/model/attention.c: rounding to 8 bits. */
static void bf16_is_near_fp32(void **state)
{
    static const char *names[] = {"out", "lse", "dq", "dk", "dv"};
    static const double allowed[] = {2.5e-3, 1e-5, 6e-3, 6e-3, 4e-3};
    struct contexts *c = *state;
    omp_set_num_threads(2);
    for (int i = 0; i < 2 * CASES; i++) {
        struct attention_problem p;
        problem_at(&p, i / 2);
        print_case(&p, i % 2);
        struct attention_result full = attention_run(&p, c->level[i % 2], 2);
        p.d.dtype = DTYPE_BF16;
        struct attention_result half = attention_run(&p, c->level[i % 2], 2);
        const struct values *a = &half.out, *b = &full.out;
        for (int k = 0; k < ATTENTION_RESULTS; k++, a++, b++) {
            if (p.d.window == 1 && (k == 2 || k == 3))
                continue; /* dq and dk are 0 but for rounding */
            double error = attention_rms_error(a, b);
            print_message("%s: %.2e of %.0e\n", names[k], error, allowed[k]);
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
    for (int i = 0; i < 4 * CASES; i++) {
        struct attention_problem p;
        problem_at(&p, i / 4);
        p.d.dtype = i / 2 % 2 ? DTYPE_BF16 : DTYPE_F32;
        expect_attention_bits_of_any_threads(&p, c->level[i % 2]);
        attention_problem_fini(&p);
    }
}

/* Copies the rows of a branched problem to where they are in the full form: each branch
 * with its prefix's rows before its own. A prefix row's copy has the gradient 0 for its
 * output, as it has no loss of its own. */
static void fill_full(const struct attention_problem *p, struct attention_problem *full)
{
    const struct values *from[] = {&p->q, &p->k, &p->v, &p->dout};
    const struct values *to[] = {&full->q, &full->k, &full->v, &full->dout};
    for (int i = 0; i < 4; i++) {
        int n = from[i]->n / p->rows.rows;
        for (int s = 0, at = 0; s < p->rows.segments; s++) {
            int before = s ? p->begin[s - 1] : 0;
            for (int t = 0; t < p->prefix[s]; t++, at++)
                for (int e = 0; e < n; e++)
                    to[i]->single[at * n + e] =
                        i == 3 ? 0 : from[i]->single[(before + t) * n + e];
            for (int t = p->begin[s]; t < p->begin[s + 1]; t++, at++)
                memcpy(to[i]->single + at * n, from[i]->single + t * n,
                       (size_t)n * sizeof(float));
        }
    }
}

/* Sums what the copies of each row have got, in double. */
static void fold_full(const struct attention_problem *p, const struct values *full,
                      double *sum)
{
    int n = full->n;
    int rows = 0;
    for (int s = 0; s < p->rows.segments; s++)
        rows += p->prefix[s] + p->begin[s + 1] - p->begin[s];
    n /= rows;
    for (int s = 0, at = 0; s < p->rows.segments; s++) {
        int before = s ? p->begin[s - 1] : 0;
        for (int t = 0; t < p->prefix[s]; t++, at++)
            for (int e = 0; e < n; e++)
                sum[(before + t) * n + e] += (double)full->single[at * n + e];
        for (int t = p->begin[s]; t < p->begin[s + 1]; t++, at++)
            for (int e = 0; e < n; e++)
                sum[t * n + e] += (double)full->single[at * n + e];
    }
}

static void expect_folded(const char *what, const struct attention_problem *p,
                          const struct values *branched, const struct values *full,
                          double tolerance)
{
    double *sum = calloc((size_t)branched->n, sizeof *sum);
    assert_non_null(sum);
    fold_full(p, full, sum);
    expect_close(what, branched->n, branched->single, sum, tolerance);
    free(sum);
}

/* dk and dv of a prompt are the sum of both answers'. */
static void equals_rows_in_full(void **state)
{
    struct contexts *c = *state;
    omp_set_num_threads(2);
    for (int i = 0; i < CASES; i++) {
        struct attention_problem p, full;
        int lengths[MOST];
        problem_at(&p, i);
        for (int s = 0; s < MOST; s++)
            lengths[s] = cases[i].lengths[s] + cases[i].prefix[s];
        attention_problem_init(&full, p.d, MOST, lengths, NULL);
        fill_full(&p, &full);
        print_case(&p, 0);
        struct attention_result a = attention_run(&p, c->level[0], 2);
        struct attention_result b = attention_run(&full, c->level[0], 2);
        expect_folded("dq", &p, &a.dq, &b.dq, 1e-5);
        expect_folded("dk", &p, &a.dk, &b.dk, 1e-5);
        expect_folded("dv", &p, &a.dv, &b.dv, 1e-5);
        attention_result_fini(&a);
        attention_result_fini(&b);
        attention_problem_fini(&p);
        attention_problem_fini(&full);
    }
}

static bool same_row(const struct attention_result *a, const struct attention_result *b,
                     int row, int rows)
{
    int n = a->out.n / rows;
    return memcmp(a->out.single + row * n, b->out.single + row * n,
                  (size_t)n * sizeof(float)) == 0;
}

/* Row ROW of a branch with prefix 70 of 80 rows and window 40 sees places 33 to 72. */
static void sees_only_what_it_may(void **state)
{
    static const int lengths[] = {80, 10}, prefix[] = {0, 70};
    enum { WINDOW = 40, PREFIX = 70, BEGIN = 80, FIRST = PREFIX + ROW - WINDOW + 1 };
    struct contexts *c = *state;
    for (int dtype = 0; dtype < 2; dtype++) {
        struct attention_problem p;
        enum dtype t = dtype ? DTYPE_BF16 : DTYPE_F32;
        attention_problem_init(&p, (struct attention_dims){2, 1, 4, WINDOW, t}, 2,
                               lengths, prefix);
        struct attention_result before = attention_run(&p, c->level[0], 1);
        for (int u = 0; u < p.rows.rows; u++) {
            bool seen = (u >= FIRST && u < PREFIX) || (u >= BEGIN && u <= BEGIN + ROW);
            float kept = p.v.single[u * 4];
            p.v.single[u * 4] += 64;
            struct attention_result moved = attention_run(&p, c->level[0], 1);
            if (same_row(&before, &moved, BEGIN + ROW, p.rows.rows) == seen)
                fail_msg("row %d, %s, %s", u, dtype_name(t),
                         seen ? "seen" : "not seen");
            attention_result_fini(&moved);
            p.v.single[u * 4] = kept;
        }
        attention_result_fini(&before);
        attention_problem_fini(&p);
    }
}

/* Prefixes of nothing are none: the same bits. */
static void no_prefix_is_no_change(void **state)
{
    static const int lengths[] = {130, 33, 65}, none[] = {0, 0, 0};
    struct contexts *c = *state;
    for (int i = 0; i < 4; i++) {
        struct attention_problem a, b;
        enum dtype t = i / 2 ? DTYPE_BF16 : DTYPE_F32;
        struct attention_dims d = {4, 1, 10, i % 2 ? 40 : 0, t};
        attention_problem_init(&a, d, 3, lengths, none);
        attention_problem_init(&b, d, 3, lengths, NULL);
        struct attention_result x = attention_run(&a, c->level[0], 2);
        struct attention_result y = attention_run(&b, c->level[0], 2);
        const struct values *v = &x.out, *w = &y.out;
        for (int k = 0; k < ATTENTION_RESULTS; k++, v++, w++)
            assert_memory_equal(v->single, w->single, (size_t)v->n * sizeof(float));
        attention_result_fini(&x);
        attention_result_fini(&y);
        attention_problem_fini(&a);
        attention_problem_fini(&b);
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
        cmocka_unit_test(equals_double),
        cmocka_unit_test(equals_finite_differences),
        cmocka_unit_test(bf16_is_near_fp32),
        cmocka_unit_test(has_the_same_bits_on_any_threads),
        cmocka_unit_test(equals_rows_in_full),
        cmocka_unit_test(sees_only_what_it_may),
        cmocka_unit_test(no_prefix_is_no_change),
    };
    return cmocka_run_group_tests(tests, create_gemm, destroy_gemm);
}
