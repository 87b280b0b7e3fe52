/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_SWIGLU_H
#define DUSK_MODEL_SWIGLU_H

/* SwiGLU's elementwise part (arXiv 2002.05202): with s = 1 / (1 + exp(-gate)),
 *     act = gate s up
 *     dgate = dact up s (1 + gate (1 - s)),  dup = dact gate s
 * gate_up [rows, 2 F]: each row F of gate, then F of up, as the fused product gives
 * them; act [rows, F]; both dense, of the dtype. Both use all threads. Local. */

#include "src/base/dtype.h"

/* Overwrites act. */
void swiglu_forward(int rows, int ff, enum dtype dtype, const void *gate_up, void *act);

/* In place, since nothing needs the inputs afterwards: gate becomes dgate, up becomes
 * dup, and dact becomes act, which the weight gradient of down_proj needs. */
void swiglu_backward(int rows, int ff, enum dtype dtype, void *gate_up, void *dact);

#endif
