/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/block.h"

#include "src/base/mem.h"
#include "src/model/rope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model/plain.h"

enum { POSITIONS = 16, MATRICES = 7, NORMS = 2, PARAMS = MATRICES + NORMS };

static const char *const names[PARAMS] = {"dq_proj", "dk_proj", "dv_proj",
                                          "do_proj", "dgate",   "dup",
                                          "ddown",   "dnorm1",  "dnorm2"};

struct problem {
    struct block_dims d;
    struct rows rows;
    double theta;
    struct values w[PARAMS], dw[PARAMS];
    struct values x, dy;
    double *y;
};

static struct plain_params plain_of(struct problem *p)
{
    return (struct plain_params){p->w[0].exact, p->w[1].exact, p->w[2].exact,
                                 p->w[3].exact, p->w[4].exact, p->w[5].exact,
                                 p->w[6].exact, p->w[7].exact, p->w[8].exact};
}

static double objective(void *context)
{
    struct problem *p = context;
    struct plain_params params = plain_of(p);
    plain_block(&p->d, &params, &p->rows, p->theta, p->x.exact, p->y);
    double sum = 0;
    for (int i = 0; i < p->x.n; i++)
        sum += p->dy.exact[i] * p->y[i];
    return sum;
}

static void problem_init(struct problem *p, struct block_dims d, struct rows rows)
{
    int wide = d.attention.heads * d.attention.head_dim;
    int narrow = d.attention.kv_heads * d.attention.head_dim, hidden = d.hidden;
    const int sizes[PARAMS] = {wide * hidden, narrow * hidden, narrow * hidden,
                               hidden * wide, d.ff * hidden,   d.ff * hidden,
                               hidden * d.ff, hidden,          hidden};
    *p = (struct problem){.d = d, .rows = rows, .theta = 1e4};
    for (int i = 0; i < PARAMS; i++) {
        p->w[i] = values_create(sizes[i], 0.4, 10 + (uint64_t)i);
        p->dw[i] = values_zero(sizes[i]);
    }
    p->x = values_create(rows.rows * hidden, 1, 1);
    p->dy = values_create(rows.rows * hidden, 1, 2);
    p->y = calloc((size_t)p->x.n, sizeof *p->y);
    assert_non_null(p->y);
}

static void problem_fini(struct problem *p)
{
    for (int i = 0; i < PARAMS; i++) {
        values_destroy(&p->w[i]);
        values_destroy(&p->dw[i]);
    }
    values_destroy(&p->x);
    values_destroy(&p->dy);
    free(p->y);
}

static struct linear linear_at(struct problem *p, int i, int out)
{
    return (struct linear){
        .in = p->w[i].n / out, .out = out, .w = p->w[i].single, .dw = p->dw[i].single};
}

static struct rmsnorm norm_at(struct problem *p, int i)
{
    return (struct rmsnorm){.dim = p->d.hidden,
                            .eps = p->d.eps,
                            .w = p->w[i].single,
                            .dw = p->dw[i].single};
}

/* Weights lie apart here, so that no products are joined. */
static struct block_params params_of(struct problem *p)
{
    const struct attention_dims *a = &p->d.attention;
    int wide = a->heads * a->head_dim, narrow = a->kv_heads * a->head_dim;
    struct block_params params = {
        .qkv = {3,
                p->d.hidden,
                wide + 2 * narrow,
                {linear_at(p, 0, wide), linear_at(p, 1, narrow),
                 linear_at(p, 2, narrow)}},
        .gate_up = {2,
                    p->d.hidden,
                    2 * p->d.ff,
                    {linear_at(p, 4, p->d.ff), linear_at(p, 5, p->d.ff)}},
        .o = linear_at(p, 3, p->d.hidden),
        .down = linear_at(p, 6, p->d.hidden),
        .norm1 = norm_at(p, 7),
        .norm2 = norm_at(p, 8)};
    struct linear_group *groups[] = {&params.qkv, &params.gate_up};
    for (int i = 0; i < 2; i++)
        for (int k = 0, at = 0; k < groups[i]->parts; at += groups[i]->part[k++].out)
            linear_group_add_sum(groups[i], at, groups[i]->part[k].out,
                                 groups[i]->part[k].dw);
    return params;
}

/* Forward and backward in fp32 on memory full of NaNs; dx into place. */
static void run(struct problem *p, const struct gemm *g, struct values *y,
                struct values *dx)
{
    struct block_params params = params_of(p);
    struct block_keep keep;
    struct block_context c;
    struct err err;
    struct arena a = {0};
    int rows = p->rows.rows, angles = POSITIONS * p->d.attention.head_dim / 2;
    struct values cosine = values_zero(angles), sine = values_zero(angles);
    for (int pass = 0; pass < 2; pass++) { /* count, then lay out */
        c = (struct block_context){
            .g = g, .cosine = cosine.single, .sine = sine.single};
        block_keep_lay_out(&keep, &a, &p->d, rows, true);
        block_context_lay_out(&c, &a, &p->d, rows, rows, 1, true);
        if (pass == 0) {
            int64_t bytes = a.used;
            a = (struct arena){.base = mem_array(bytes, 1, &err)};
            assert_non_null(a.base);
            memset(a.base, 0xff, (size_t)bytes);
        }
    }
    rope_table(POSITIONS, p->d.attention.head_dim, p->theta, cosine.single,
               sine.single);
    block_forward(&c, &params, &keep, &p->rows, p->x.single, y->single);
    block_backward_input(&c, &params, &keep, &c.now, &p->rows, p->x.single,
                         p->dy.single, dx->single);
    block_backward_weight(&c, &params, &keep, &c.now, &p->rows, p->x.single,
                          p->dy.single);
    mem_free(a.base);
    values_destroy(&cosine);
    values_destroy(&sine);
}

static void equals_double_and_finite_differences(void **state)
{
    static const int begins[][4] = {{0, 1}, {0, 3, 7, 8}, {0, 6}};
    static const int positions[POSITIONS] = {0, 1, 2, 3, 4, 5, 0, 1};
    static const struct {
        struct block_dims d;
        int segments;
        const int *begin;
    } rows[] = {
        {{6, 5, 1e-5f, {1, 1, 2, 0, DTYPE_F32}}, 1, begins[0]},
        {{10, 7, 1e-6f, {4, 2, 4, 0, DTYPE_F32}}, 3, begins[1]}, /* H E is not D */
        {{9, 20, 1e-5f, {3, 1, 6, 3, DTYPE_F32}}, 1, begins[2]},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct problem p;
        problem_init(&p, rows[i].d,
                     (struct rows){.rows = rows[i].begin[rows[i].segments],
                                   .segments = rows[i].segments,
                                   .segment_begin = rows[i].begin,
                                   .position = positions});
        print_message("hidden %d, ff %d, %d rows\n", p.d.hidden, p.d.ff, p.rows.rows);
        struct values y = values_zero(p.x.n), dx = values_zero(p.x.n);
        run(&p, *state, &y, &dx);
        objective(&p);
        expect_close("y", y.n, y.single, p.y, 5e-6);
        expect_gradient("dx", objective, &p, dx.n, p.x.exact, dx.single, 1e-5);
        for (int k = 0; k < PARAMS; k++)
            expect_gradient(names[k], objective, &p, p.w[k].n, p.w[k].exact,
                            p.dw[k].single, 1e-5);
        values_destroy(&y);
        values_destroy(&dx);
        problem_fini(&p);
    }
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
    };
    return cmocka_run_group_tests(tests, create_gemm, destroy_gemm);
}
