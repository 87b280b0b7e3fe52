/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_RMSNORM_H
#define DUSK_MODEL_RMSNORM_H

/* RMSNorm (arXiv 1910.07467, in the form of transformers' LlamaRMSNorm):
 *     r = 1 / sqrt(mean_j x_j^2 + eps),  y_j = (x_j r) w_j
 * x, y [rows, D]; w [D]; r [rows]. Backward, with z_j = x_j r and g_j = dy_j w_j:
 *     dx_j = r (g_j - z_j mean_k(g_k z_k)),  dw_j = sum over rows of dy_j z_j
 * x, y, w and their gradients are of the norm's dtype, r and dw fp32. Each call passes
 * over its rows once. All use all threads. Local. */

#include <stdint.h>

#include "src/base/dtype.h"

struct rmsnorm {
    int dim;
    enum dtype dtype;
    float eps;
    const void *w; /* [D], borrowed */
    float *dw;     /* [D] gradient sum, borrowed; NULL: none is wanted */
};

/* Overwrites rstd with r, y and, unless NULL, copy [rows, D] with x: the start of the
 * sum that goes on past the norm. */
void rmsnorm_forward(const struct rmsnorm *n, int rows, const void *x, float *rstd,
                     void *y, void *copy);

/* The same y from the kept r. */
void rmsnorm_output(const struct rmsnorm *n, int rows, const void *x, const float *rstd,
                    void *y);

/* Floats of scratch that rmsnorm_backward needs for up to max_rows rows. */
int64_t rmsnorm_scratch_floats(int dim, int max_rows);

/* dx = residual + the gradient through the norm; dw, unless NULL, += the sum over rows,
 * in blocks of 64 rows. residual [rows, D] is what flows past the norm, NULL for none;
 * dx may be residual or dy. Overwrites y, unless NULL, with the norm's output from the
 * kept r; y may be dy if that is not dx. */
void rmsnorm_backward(const struct rmsnorm *n, int rows, const void *dy, const void *x,
                      const float *rstd, const void *residual, void *dx, void *y,
                      float *scratch);

#endif
