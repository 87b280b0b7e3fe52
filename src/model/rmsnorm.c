/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/rmsnorm.h"

#include "src/base/clones.h"
#include "src/model/element.h"
#include "src/model/lanes.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* Rows whose part of dw is summed by one thread, and columns at once. */
enum { ROW_BLOCK = 64, COLUMNS = 256 };

ELEMENT_INLINE float mean_square_of(enum dtype t, const void *x, int n)
{
    float lane[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float v = element_get(t, x, i + j);
            lane[j] += v * v;
        }
    for (int j = 0; j < n - i; j++) {
        float v = element_get(t, x, i + j);
        lane[j] += v * v;
    }
    return lanes_sum(lane) / (float)n;
}

CLONES static float mean_square(enum dtype t, const void *x, int n)
{
    return t == DTYPE_F32 ? mean_square_of(DTYPE_F32, x, n)
                          : mean_square_of(DTYPE_BF16, x, n);
}

ELEMENT_INLINE void normalise_of(enum dtype t, const void *restrict x,
                                 const void *restrict w, float r, int n,
                                 void *restrict y)
{
    for (int j = 0; j < n; j++)
        element_put(t, y, j, (element_get(t, x, j) * r) * element_get(t, w, j));
}

CLONES static void normalise(enum dtype t, const void *x, const void *w, float r, int n,
                             void *y)
{
    if (t == DTYPE_F32)
        normalise_of(DTYPE_F32, x, w, r, n, y);
    else
        normalise_of(DTYPE_BF16, x, w, r, n, y);
}

void rmsnorm_forward(const struct rmsnorm *n, int rows, const void *x, float *rstd,
                     void *y, void *copy)
{
    enum dtype t = n->dtype;
    size_t bytes = (size_t)n->dim * dtype_bytes(t);
#pragma omp parallel for schedule(static)
    for (int i = 0; i < rows; i++) {
        int64_t at = (int64_t)i * n->dim;
        const void *row = element_at(t, x, at);
        rstd[i] = 1.0f / sqrtf(mean_square(t, row, n->dim) + n->eps);
        normalise(t, row, n->w, rstd[i], n->dim, element_to(t, y, at));
        if (copy)
            memcpy(element_to(t, copy, at), row, bytes);
    }
}

void rmsnorm_output(const struct rmsnorm *n, int rows, const void *x, const float *rstd,
                    void *y)
{
#pragma omp parallel for schedule(static)
    for (int i = 0; i < rows; i++) {
        int64_t at = (int64_t)i * n->dim;
        normalise(n->dtype, element_at(n->dtype, x, at), n->w, rstd[i], n->dim,
                  element_to(n->dtype, y, at));
    }
}

/* mean_k(g_k z_k) without a stored g. */
ELEMENT_INLINE float mean_gz_of(enum dtype t, const void *dy, const void *x,
                                const void *w, float r, int n)
{
    float lane[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += (element_get(t, dy, i + j) * element_get(t, w, i + j)) *
                       (element_get(t, x, i + j) * r);
    for (int j = 0; j < n - i; j++)
        lane[j] += (element_get(t, dy, i + j) * element_get(t, w, i + j)) *
                   (element_get(t, x, i + j) * r);
    return lanes_sum(lane) / (float)n;
}

/* What a row's loop writes, in pieces small enough for registers to hold the choice. */
struct row {
    const void *dy, *x, *w, *residual;
    float r, mean;
    void *dx, *y;
    float *dw;
};

ELEMENT_INLINE void input_gradient_of(enum dtype t, const struct row *row, int n,
                                      const void *residual)
{
    const void *dy = row->dy, *x = row->x, *w = row->w;
    float r = row->r, mean = row->mean;
    void *dx = row->dx;
#pragma GCC ivdep
    for (int j = 0; j < n; j++) {
        float through = r * (element_get(t, dy, j) * element_get(t, w, j) -
                             (element_get(t, x, j) * r) * mean);
        element_put(t, dx, j,
                    residual ? element_get(t, residual, j) + through : through);
    }
}

ELEMENT_INLINE void weight_gradient_of(enum dtype t, const struct row *row, int n)
{
    const void *dy = row->dy, *x = row->x;
    float r = row->r, *dw = row->dw;
#pragma GCC ivdep
    for (int j = 0; j < n; j++)
        dw[j] += element_get(t, dy, j) * (element_get(t, x, j) * r);
}

/* The weight's sum first: dx and y may overwrite dy. */
ELEMENT_INLINE void backward_row_of(enum dtype t, struct row *row, int n)
{
    row->mean = mean_gz_of(t, row->dy, row->x, row->w, row->r, n);
    if (row->dw)
        weight_gradient_of(t, row, n);
    if (row->residual)
        input_gradient_of(t, row, n, row->residual);
    else
        input_gradient_of(t, row, n, NULL);
    if (row->y)
        normalise_of(t, row->x, row->w, row->r, n, row->y);
}

CLONES static void backward_row(enum dtype t, struct row *row, int n)
{
    if (t == DTYPE_F32)
        backward_row_of(DTYPE_F32, row, n);
    else
        backward_row_of(DTYPE_BF16, row, n);
}

static int blocks_of(int rows)
{
    return (rows + ROW_BLOCK - 1) / ROW_BLOCK;
}

int64_t rmsnorm_scratch_floats(int dim, int max_rows)
{
    return (int64_t)blocks_of(max_rows) * dim;
}

static void backward_block(const struct rmsnorm *n, int begin, int end, const void *dy,
                           const void *x, const float *rstd, const void *residual,
                           void *dx, void *y, float *dw)
{
    enum dtype t = n->dtype;
    if (dw)
        memset(dw, 0, (size_t)n->dim * sizeof *dw);
    for (int i = begin; i < end; i++) {
        int64_t at = (int64_t)i * n->dim;
        struct row row = {.dy = element_at(t, dy, at),
                          .x = element_at(t, x, at),
                          .w = n->w,
                          .residual = residual ? element_at(t, residual, at) : NULL,
                          .r = rstd[i],
                          .dx = element_to(t, dx, at),
                          .y = y ? element_to(t, y, at) : NULL,
                          .dw = dw};
        backward_row(t, &row, n->dim);
    }
}

/* Adds the blocks' sums in order. */
CLONES static void add_blocks(int blocks, int64_t stride, const float *restrict sums,
                              int n, float *restrict dw)
{
    for (int b = 0; b < blocks; b++)
        for (int j = 0; j < n; j++)
            dw[j] += sums[b * stride + j];
}

void rmsnorm_backward(const struct rmsnorm *n, int rows, const void *dy, const void *x,
                      const float *rstd, const void *residual, void *dx, void *y,
                      float *scratch)
{
    int blocks = blocks_of(rows), dim = n->dim;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int b = 0; b < blocks; b++) {
            int begin = b * ROW_BLOCK;
            int end = rows - begin < ROW_BLOCK ? rows : begin + ROW_BLOCK;
            backward_block(n, begin, end, dy, x, rstd, residual, dx, y,
                           n->dw ? scratch + (int64_t)b * dim : NULL);
        }
#pragma omp for schedule(static)
        for (int c = 0; c < (n->dw ? dim : 0); c += COLUMNS)
            add_blocks(blocks, dim, scratch + c, dim - c < COLUMNS ? dim - c : COLUMNS,
                       n->dw + c);
    }
}
