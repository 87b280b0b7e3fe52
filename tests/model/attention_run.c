/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/attention_run.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"

#include <cmocka.h>

void attention_problem_init(struct attention_problem *p, struct attention_dims d,
                            int segments, const int *lengths, const int *prefix)
{
    *p = (struct attention_problem){.d = d};
    assert_true(segments <= ATTENTION_SEGMENTS);
    for (int s = 0; s < segments && lengths[s]; s++) {
        int length = lengths[s];
        p->begin[s + 1] = p->begin[s] + length;
        if (prefix)
            length += p->prefix[s] = prefix[s];
        p->max_length = length > p->max_length ? length : p->max_length;
        p->rows.segments = s + 1;
    }
    int rows = p->begin[p->rows.segments];
    p->rows.rows = rows;
    p->rows.segment_begin = p->begin;
    p->rows.prefix = prefix ? p->prefix : NULL;
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

void attention_problem_fini(struct attention_problem *p)
{
    values_destroy(&p->q);
    values_destroy(&p->k);
    values_destroy(&p->v);
    values_destroy(&p->dout);
    free(p->out);
}

double attention_objective(void *context)
{
    struct attention_problem *p = context;
    plain_attention(&p->d, &p->rows, p->q.exact, p->k.exact, p->v.exact, p->out);
    double sum = 0;
    for (int i = 0; i < p->q.n; i++)
        sum += p->dout.exact[i] * p->out[i];
    return sum;
}

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

struct attention_result attention_run(const struct attention_problem *p,
                                      const struct gemm *g, int threads)
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
    struct attention_result r = {values_zero(p->q.n), values_zero(rows * d->heads),
                                 values_zero(p->q.n), values_zero(p->k.n),
                                 values_zero(p->k.n)};
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

void attention_result_fini(struct attention_result *r)
{
    struct values *all[] = {&r->out, &r->lse, &r->dq, &r->dk, &r->dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        values_destroy(all[i]);
}

double attention_rms_error(const struct values *a, const struct values *b)
{
    double error = 0, whole = 0;
    for (int i = 0; i < a->n; i++) {
        double e = (double)a->single[i] - (double)b->single[i];
        error += e * e;
        whole += (double)b->single[i] * (double)b->single[i];
    }
    return sqrt(error / (whole > 0 ? whole : 1));
}

void expect_attention_bits_of_any_threads(const struct attention_problem *p,
                                          const struct gemm *g)
{
    omp_set_num_threads(1);
    struct attention_result first = attention_run(p, g, 1);
    for (int threads = 2; threads <= 5; threads++) {
        omp_set_num_threads(threads);
        /* Scratch for four: a fifth thread has to stay away. */
        struct attention_result r = attention_run(p, g, 4);
        const struct values *a = &first.out, *b = &r.out;
        for (int k = 0; k < 5; k++, a++, b++)
            assert_memory_equal(a->single, b->single, (size_t)a->n * sizeof(float));
        attention_result_fini(&r);
    }
    attention_result_fini(&first);
}
