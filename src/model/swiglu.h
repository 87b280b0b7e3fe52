/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_SWIGLU_H
#define DUSK_MODEL_SWIGLU_H

/* SwiGLU's elementwise part (arXiv 2002.05202): with s = 1 / (1 + exp(-gate)),
 *     act = gate s up
 *     dgate = dact up s (1 + gate (1 - s)),  dup = dact gate s
 * All arrays have n elements. Both use all threads. Local. */

#include <stdint.h>

/* Overwrites act. */
void swiglu_forward(int64_t n, const float *gate, const float *up, float *act);

/* In place, since nothing needs the inputs afterwards: gate becomes dgate, up becomes
 * dup, and dact becomes act, which the weight gradient of down_proj needs. */
void swiglu_backward(int64_t n, float *gate, float *up, float *dact);

#endif
