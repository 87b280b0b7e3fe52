/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_RMSNORM_H
#define DUSK_MODEL_RMSNORM_H

/* RMSNorm (arXiv 1910.07467, in the form of transformers' LlamaRMSNorm):
 *     r = 1 / sqrt(mean_j x_j^2 + eps),  y_j = (x_j r) w_j
 * x, y [rows, D]; w [D]; r [rows]. Backward, with z_j = x_j r and g_j = dy_j w_j:
 *     dx_j = r (g_j - z_j mean_k(g_k z_k)),  dw_j = sum over rows of dy_j z_j
 * All use all threads. Local. */

/* Overwrites rstd with r and, unless y is NULL, y. */
void rmsnorm_forward(int rows, int dim, const float *x, const float *w, float eps,
                     float *rstd, float *y);

/* Overwrites y from a kept r. */
void rmsnorm_again(int rows, int dim, const float *x, const float *w, const float *rstd,
                   float *y);

/* dx = residual + the gradient through the norm. residual [rows, D] is what flows past
 * the norm, NULL for none; dx may be residual or dy. */
void rmsnorm_backward_input(int rows, int dim, const float *dy, const float *x,
                            const float *w, const float *rstd, const float *residual,
                            float *dx);

/* dw += the sum over rows, in blocks of 64 rows. */
void rmsnorm_backward_weight(int rows, int dim, const float *dy, const float *x,
                             const float *rstd, float *dw);

#endif
