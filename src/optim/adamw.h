/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OPTIM_ADAMW_H
#define DUSK_OPTIM_ADAMW_H

/* AdamW (Loshchilov and Hutter, arXiv 1711.05101) on a flat range, as
 * torch.optim.AdamW:
 *
 *     m += (g - m)(1 - beta1)
 *     v = beta2 v + (1 - beta2) g^2
 *     w = (1 - lr wd) w - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 *
 * Arithmetic in fp32, the step's factors in double and rounded once. Local; element by
 * element, so bits depend neither on threads nor on the range. */

#include <stdbool.h>
#include <stdint.h>

struct adamw {
    double beta1, beta2, eps, weight_decay;
};

/* Step t >= 1 with rate lr. g is multiplied by grad_scale (clipping) when read and is
 * set to 0 after. w, m, v, g: [n], no overlap. decay: does weight decay apply to this
 * range? All OpenMP threads. */
void adamw_update(const struct adamw *a, int64_t t, double lr, bool decay,
                  double grad_scale, int64_t n, float *w, float *m, float *v, float *g);

/* The same on bf16 weights: the fp32 master of src/optim/master.h is read from w and
 * rest, updated with the bits that adamw_update would give, and written back as both.
 * 32 bytes an element pass through memory, once, as in fp32. */
void adamw_update_bf16(const struct adamw *a, int64_t t, double lr, bool decay,
                       double grad_scale, int64_t n, uint16_t *w, int16_t *rest,
                       float *m, float *v, float *g);

/* Sum of squares of x[n] in double: blocks of 4,096 elements in order, each summed in
 * 16 lanes; bits depend on n only. */
double sum_of_squares(int64_t n, const float *x);

/* torch.nn.utils.clip_grad_norm_: min(1, clip / (norm + 1e-6)); clip 0: 1. */
double clip_scale(double norm, double clip);

#endif
