/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_LINEAR_H
#define DUSK_MODEL_LINEAR_H

/* y = x W^T, a linear layer without bias: x [rows, in], W [out, in], y [rows, out], all
 * row-major and dense. The two parts of its backward pass are separate calls, so that a
 * schedule may put them at different times. All local. */

#include "src/gemm/gemm.h"

struct linear {
    int in, out;
    const float *w; /* [out, in], borrowed */
    float *dw;      /* [out, in] gradient sum, borrowed; NULL if not training */
};

/* y = x W^T + beta y; beta 0 overwrites. */
void linear_forward(const struct gemm *g, const struct linear *l, int rows,
                    const float *x, float beta, float *y);

/* dx = dy W + beta dx. */
void linear_backward_input(const struct gemm *g, const struct linear *l, int rows,
                           const float *dy, float beta, float *dx);

/* dW += dy^T x. */
void linear_backward_weight(const struct gemm *g, const struct linear *l, int rows,
                            const float *dy, const float *x);

#endif
