/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/rmsnorm.h"

#include "src/base/clones.h"
#include "src/model/lanes.h"

#include <math.h>
#include <stdint.h>
#include <stddef.h>

enum { ROW_BLOCK = 64, COLUMNS = 64 };

CLONES static float mean_square(const float *x, int n)
{
    return lanes_dot(x, x, n) / (float)n;
}

CLONES static void normalise(const float *restrict x, const float *restrict w, float r,
                             int n, float *restrict y)
{
    for (int j = 0; j < n; j++)
        y[j] = (x[j] * r) * w[j];
}

void rmsnorm_forward(int rows, int dim, const float *x, const float *w, float eps,
                     float *rstd, float *y)
{
#pragma omp parallel for schedule(static)
    for (int i = 0; i < rows; i++) {
        int64_t at = (int64_t)i * dim;
        rstd[i] = 1.0f / sqrtf(mean_square(x + at, dim) + eps);
        if (y)
            normalise(x + at, w, rstd[i], dim, y + at);
    }
}

void rmsnorm_again(int rows, int dim, const float *x, const float *w, const float *rstd,
                   float *y)
{
#pragma omp parallel for schedule(static)
    for (int i = 0; i < rows; i++) {
        int64_t at = (int64_t)i * dim;
        normalise(x + at, w, rstd[i], dim, y + at);
    }
}

/* mean_k(g_k z_k) without a stored g. */
CLONES static float mean_gz(const float *dy, const float *x, const float *w, float r,
                            int n)
{
    float lane[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += (dy[i + j] * w[i + j]) * (x[i + j] * r);
    for (int j = 0; j < n - i; j++)
        lane[j] += (dy[i + j] * w[i + j]) * (x[i + j] * r);
    return lanes_sum(lane) / (float)n;
}

CLONES static void input_gradient(const float *dy, const float *x, const float *w,
                                  float r, float mean, int n, const float *residual,
                                  float *dx)
{
    if (residual)
        for (int j = 0; j < n; j++)
            dx[j] = residual[j] + r * (dy[j] * w[j] - (x[j] * r) * mean);
    else
        for (int j = 0; j < n; j++)
            dx[j] = r * (dy[j] * w[j] - (x[j] * r) * mean);
}

void rmsnorm_backward_input(int rows, int dim, const float *dy, const float *x,
                            const float *w, const float *rstd, const float *residual,
                            float *dx)
{
#pragma omp parallel for schedule(static)
    for (int i = 0; i < rows; i++) {
        int64_t at = (int64_t)i * dim;
        float mean = mean_gz(dy + at, x + at, w, rstd[i], dim);
        input_gradient(dy + at, x + at, w, rstd[i], mean, dim,
                       residual ? residual + at : NULL, dx + at);
    }
}

/* Adds columns [0, n) of `rows` rows to dw, a block of rows at a time. */
CLONES static void weight_gradient(int rows, int64_t stride, const float *dy,
                                   const float *x, const float *rstd, int n, float *dw)
{
    for (int begin = 0; begin < rows; begin += ROW_BLOCK) {
        float sum[COLUMNS] = {0};
        int end = rows - begin < ROW_BLOCK ? rows : begin + ROW_BLOCK;
        for (int i = begin; i < end; i++)
            for (int j = 0; j < n; j++)
                sum[j] += dy[i * stride + j] * (x[i * stride + j] * rstd[i]);
        for (int j = 0; j < n; j++)
            dw[j] += sum[j];
    }
}

void rmsnorm_backward_weight(int rows, int dim, const float *dy, const float *x,
                             const float *rstd, float *dw)
{
#pragma omp parallel for schedule(static)
    for (int c = 0; c < dim; c += COLUMNS)
        weight_gradient(rows, dim, dy + c, x + c, rstd,
                        dim - c < COLUMNS ? dim - c : COLUMNS, dw + c);
}
