/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/linear.h"

void linear_forward(const struct gemm *g, const struct linear *l, int rows,
                    const float *x, float beta, float *y)
{
    gemm_f32(g, GEMM_N, GEMM_T, rows, l->out, l->in, x, l->in, l->w, l->in, beta, y,
             l->out);
}

void linear_backward_input(const struct gemm *g, const struct linear *l, int rows,
                           const float *dy, float beta, float *dx)
{
    gemm_f32(g, GEMM_N, GEMM_N, rows, l->in, l->out, dy, l->out, l->w, l->in, beta, dx,
             l->in);
}

void linear_backward_weight(const struct gemm *g, const struct linear *l, int rows,
                            const float *dy, const float *x)
{
    gemm_f32(g, GEMM_T, GEMM_N, l->out, l->in, rows, dy, l->out, x, l->in, 1.0f, l->dw,
             l->in);
}
