/* SPDX-License-Identifier: Apache-2.0 */
/* Attention alone: 2 products forward and 5 backward, of which the causal half counts,
 * beside the best product. */
#include "src/train/bench.h"

#include "src/base/mem.h"
#include "src/base/rng.h"
#include "src/model/attention.h"

#include <omp.h>
#include <stdio.h>

enum array { Q, K, V, OUT, DOUT, DQ, DK, DV, ARRAYS };

struct attention {
    struct bench *b;
    struct attention_dims dims;
    struct attention_work work;
    struct rows rows;
    int *position, *segment_begin;
    void *x[ARRAYS]; /* q, out and their like [rows, H E], k and v [rows, K E] */
    float *lse;
    void *scratch;
};

static struct attention_input input(const struct attention *a)
{
    int64_t q = (int64_t)a->dims.heads * a->dims.head_dim;
    int64_t k = (int64_t)a->dims.kv_heads * a->dims.head_dim;
    return (struct attention_input){a->x[Q], a->x[K], a->x[V], q, k, k};
}

static void forward(void *context)
{
    const struct attention *a = context;
    struct attention_input in = input(a);
    attention_forward(a->b->gemm, &a->dims, &a->work, &a->rows, &in, a->x[OUT], a->lse);
}

static void backward(void *context)
{
    const struct attention *a = context;
    struct attention_input in = input(a);
    struct attention_gradient out = {a->x[DQ],    a->x[DK],    a->x[DV],
                                     in.q_stride, in.k_stride, in.v_stride};
    attention_backward(a->b->gemm, &a->dims, &a->work, &a->rows, &in, a->x[OUT], a->lse,
                       a->x[DOUT], &out);
}

static void fill(struct attention *a, int i, int64_t n)
{
    float *f = a->x[i];
    uint16_t *h = a->x[i];
    bool bf16 = a->dims.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < n; k++) {
        float x = (float)(2 * rng_uniform(3, (uint64_t)i, (uint64_t)k) - 1);
        if (bf16)
            h[k] = bf16_from_f32(x);
        else
            f[k] = x;
    }
}

static int arrays_init(struct attention *a, struct err *err)
{
    const struct attention_dims *d = &a->dims;
    size_t size = dtype_bytes(d->dtype);
    for (int i = 0; i < ARRAYS; i++) {
        bool keys = i == K || i == V || i == DK || i == DV;
        int64_t n =
            (int64_t)a->rows.rows * (keys ? d->kv_heads : d->heads) * d->head_dim;
        a->x[i] = mem_array(n, size, err);
        if (!a->x[i])
            return -1;
        fill(a, i, n);
    }
    return 0;
}

static int work_init(struct attention *a, int length, struct err *err)
{
    int threads = omp_get_max_threads(), rows = a->rows.rows;
    struct arena count = {0};
    attention_work_lay_out(&a->work, &count, &a->dims, rows, length, threads, true);
    a->scratch = mem_array(count.used, 1, err);
    if (!a->scratch)
        return -1;
    struct arena take = {.base = a->scratch};
    attention_work_lay_out(&a->work, &take, &a->dims, rows, length, threads, true);
    return 0;
}

static int init(struct attention *a, int segments, int length, struct err *err)
{
    int rows = segments * length;
    a->position = mem_array(rows, sizeof *a->position, err);
    a->segment_begin = mem_array(segments + 1, sizeof *a->segment_begin, err);
    a->lse = mem_array((int64_t)rows * a->dims.heads, sizeof *a->lse, err);
    if (!a->position || !a->segment_begin || !a->lse)
        return -1;
    for (int t = 0; t < rows; t++)
        a->position[t] = t % length;
    for (int s = 0; s <= segments; s++)
        a->segment_begin[s] = s * length;
    a->rows = (struct rows){.rows = rows,
                            .segments = segments,
                            .segment_begin = a->segment_begin,
                            .position = a->position};
    return arrays_init(a, err) || work_init(a, length, err) ? -1 : 0;
}

static void fini(struct attention *a)
{
    for (int i = 0; i < ARRAYS; i++)
        mem_free(a->x[i]);
    mem_free(a->position);
    mem_free(a->segment_begin);
    mem_free(a->lse);
    mem_free(a->scratch);
}

int bench_attention(struct bench *b, const struct attention_dims *dims, int segments,
                    int length, double product, struct err *err)
{
    struct attention a = {.b = b, .dims = *dims};
    int failed = init(&a, segments, length, err);
    if (!failed) {
        /* A product has 2 T^2 E FLOPs a head, its causal half T^2 E. */
        double one =
            1e-9 * segments * (double)length * length * dims->heads * dims->head_dim;
        char name[64];
        snprintf(name, sizeof name, "attention %d/%d x %d, T %d", dims->heads,
                 dims->kv_heads, dims->head_dim, length);
        bench_title(b, "%s in %s", name, dtype_name(dims->dtype));
        struct bench_value v = bench_rate(bench_seconds(b, forward, &a), 2 * one);
        bench_add(b, "attention forward", "GFLOP/s", v, v.median / product, "gemm");
        v = bench_rate(bench_seconds(b, backward, &a), 5 * one);
        bench_add(b, "attention backward", "GFLOP/s", v, v.median / product, "gemm");
    }
    fini(&a);
    return failed;
}
