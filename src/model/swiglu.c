/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/swiglu.h"

#include "src/base/clones.h"
#include "src/model/element.h"
#include "src/model/vexp.h"

ELEMENT_INLINE void forward_of(enum dtype t, int n, const void *restrict gate,
                               const void *restrict up, void *restrict act)
{
    for (int i = 0; i < n; i++) {
        float g = element_get(t, gate, i);
        element_put(t, act, i, g / (1.0f + vexp(-g)) * element_get(t, up, i));
    }
}

CLONES static void forward_row(enum dtype t, int n, const void *gate, const void *up,
                               void *act)
{
    if (t == DTYPE_F32)
        forward_of(DTYPE_F32, n, gate, up, act);
    else
        forward_of(DTYPE_BF16, n, gate, up, act);
}

ELEMENT_INLINE void backward_of(enum dtype t, int n, void *restrict gate,
                                void *restrict up, void *restrict dact)
{
    for (int i = 0; i < n; i++) {
        float g = element_get(t, gate, i), u = element_get(t, up, i);
        float d = element_get(t, dact, i);
        float s = 1.0f / (1.0f + vexp(-g));
        float silu = g * s;
        element_put(t, gate, i, d * u * (s * (1.0f + g * (1.0f - s))));
        element_put(t, up, i, d * silu);
        element_put(t, dact, i, silu * u);
    }
}

CLONES static void backward_row(enum dtype t, int n, void *gate, void *up, void *dact)
{
    if (t == DTYPE_F32)
        backward_of(DTYPE_F32, n, gate, up, dact);
    else
        backward_of(DTYPE_BF16, n, gate, up, dact);
}

void swiglu_forward(int rows, int ff, enum dtype dtype, const void *gate_up, void *act)
{
#pragma omp parallel for schedule(static)
    for (int r = 0; r < rows; r++) {
        const void *gate = element_at(dtype, gate_up, (int64_t)r * 2 * ff);
        forward_row(dtype, ff, gate, element_at(dtype, gate, ff),
                    element_to(dtype, act, (int64_t)r * ff));
    }
}

void swiglu_backward(int rows, int ff, enum dtype dtype, void *gate_up, void *dact)
{
#pragma omp parallel for schedule(static)
    for (int r = 0; r < rows; r++) {
        void *gate = element_to(dtype, gate_up, (int64_t)r * 2 * ff);
        backward_row(dtype, ff, gate, element_to(dtype, gate, ff),
                     element_to(dtype, dact, (int64_t)r * ff));
    }
}
