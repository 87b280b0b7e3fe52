/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/xent.h"

#include "src/base/clones.h"
#include "src/model/element.h"
#include "src/model/lanes.h"
#include "src/model/vexp.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* A chunk has about so many logits (32 MB); more rows make better products. A bf16 head
 * gathers the gradients of so many chunks. */
enum { CHUNK_FLOATS = 8 << 20, CHUNK_MIN = 64, CHUNK_MAX = 512, GATHERED = 4 };

static int least(int a, int b)
{
    return a < b ? a : b;
}

static int chunk_rows(int vocab)
{
    int n = CHUNK_FLOATS / vocab / CHUNK_MIN * CHUNK_MIN;
    return n > CHUNK_MAX ? CHUNK_MAX : n < CHUNK_MIN ? CHUNK_MIN : n;
}

static int64_t logits_bytes(int vocab, int max_rows)
{
    int64_t n = (int64_t)vocab * least(chunk_rows(vocab), max_rows);
    return (n * (int64_t)sizeof(float) + 63) / 64 * 64;
}

int64_t xent_scratch_bytes(enum dtype dtype, int vocab, int max_rows, bool training)
{
    int64_t bytes = logits_bytes(vocab, max_rows);
    if (training && dtype == DTYPE_BF16)
        bytes += (int64_t)vocab * least(GATHERED * chunk_rows(vocab), max_rows) *
                 (int64_t)sizeof(uint16_t);
    return bytes;
}

/* z becomes exp(z - max); its sum: blocks in lanes, their sums in double in order. */
CLONES static double exponentials(float *z, int n, float max)
{
    double total = 0;
    for (int begin = 0; begin < n; begin += LANES_BLOCK) {
        int end = n - begin < LANES_BLOCK ? n : begin + LANES_BLOCK;
        for (int j = begin; j < end; j++)
            z[j] = vexp_below(z[j] - max);
        total += lanes_total(z + begin, end - begin);
    }
    return total;
}

CLONES static float largest(const float *z, int n)
{
    return lanes_max(z, n);
}

/* dz may be z in fp32. */
ELEMENT_INLINE void scale_of(enum dtype t, const float *z, int n, float factor,
                             void *dz)
{
#pragma GCC ivdep
    for (int j = 0; j < n; j++)
        element_put(t, dz, j, z[j] * factor);
}

CLONES static void scale_row(enum dtype t, const float *z, int n, float factor,
                             void *dz)
{
    if (t == DTYPE_F32)
        scale_of(DTYPE_F32, z, n, factor, dz);
    else
        scale_of(DTYPE_BF16, z, n, factor, dz);
}

/* One row; the gradient goes to dz unless NULL. */
static double row_pass(float *z, int n, int target, float scale, enum dtype t, void *dz)
{
    if (target < 0) {
        if (dz)
            memset(dz, 0, (size_t)n * dtype_bytes(t));
        return 0;
    }
    float max = largest(z, n), at_target = z[target];
    double sum = exponentials(z, n, max);
    if (dz) {
        float factor = (float)((double)scale / sum);
        float gradient = z[target] * factor - scale;
        scale_row(t, z, n, factor, dz);
        element_put(t, dz, target, gradient);
    }
    return log(sum) + (double)max - (double)at_target;
}

/* Rows whose gradients are gathered for one product. */
static int group_rows(enum dtype t, int vocab)
{
    return t == DTYPE_F32 ? chunk_rows(vocab) : GATHERED * chunk_rows(vocab);
}

/* Every product of xent is in one of these two. */
static void chunk_products(const struct gemm *g, const struct linear *head, int n,
                           const void *x, float *logits)
{
    linear_forward(g, head, n, x, head->in, 0.0f, DTYPE_F32, logits, head->out);
}

static void group_products(const struct gemm *g, const struct linear *head, int n,
                           const void *dz, const void *x, void *dx)
{
    linear_backward_input(g, head, n, dz, head->out, 0.0f, dx, head->in);
    linear_backward_weight(g, head, n, dz, head->out, x, head->in);
}

void xent_rehearse(const struct gemm *g, const struct linear *head, int max_rows,
                   const void *x, void *scratch, void *dx)
{
    chunk_products(g, head, least(chunk_rows(head->out), max_rows), x, scratch);
    if (dx)
        group_products(g, head, least(group_rows(head->dtype, head->out), max_rows),
                       scratch, x, dx);
}

void xent(const struct gemm *g, const struct linear *head, int rows, const void *x,
          const int32_t *target, float scale, void *scratch, double *nll, void *dx)
{
    enum dtype t = head->dtype;
    int vocab = head->out, dim = head->in, chunk = chunk_rows(vocab);
    int group = group_rows(t, vocab);
    float *logits = scratch;
    void *gathered =
        t == DTYPE_F32 ? scratch : (char *)scratch + logits_bytes(vocab, rows);
    for (int first = 0; first < rows; first += group) {
        int end = first + least(group, rows - first);
        for (int begin = first; begin < end; begin += chunk) {
            int n = least(chunk, end - begin);
            void *dz = element_to(t, gathered, (int64_t)(begin - first) * vocab);
            chunk_products(g, head, n, element_at(t, x, (int64_t)begin * dim), logits);
#pragma omp parallel for schedule(static)
            for (int i = 0; i < n; i++)
                nll[begin + i] = row_pass(
                    logits + (int64_t)i * vocab, vocab, target[begin + i], scale, t,
                    dx ? element_to(t, dz, (int64_t)i * vocab) : NULL);
        }
        if (dx) {
            int64_t at = (int64_t)first * dim;
            group_products(g, head, end - first, gathered, element_at(t, x, at),
                           element_to(t, dx, at));
        }
    }
}
