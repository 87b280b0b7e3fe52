/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/swiglu.h"

#include "src/base/clones.h"
#include "src/model/vexp.h"

enum { PIECE = 4096 };

CLONES static void forward_piece(int64_t n, const float *restrict gate,
                                 const float *restrict up, float *restrict act)
{
    for (int64_t i = 0; i < n; i++)
        act[i] = gate[i] / (1.0f + vexp(-gate[i])) * up[i];
}

CLONES static void backward_piece(int64_t n, float *restrict gate, float *restrict up,
                                  float *restrict dact)
{
    for (int64_t i = 0; i < n; i++) {
        float g = gate[i], u = up[i], d = dact[i];
        float s = 1.0f / (1.0f + vexp(-g));
        float silu = g * s;
        gate[i] = d * u * (s * (1.0f + g * (1.0f - s)));
        up[i] = d * silu;
        dact[i] = silu * u;
    }
}

void swiglu_forward(int64_t n, const float *gate, const float *up, float *act)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += PIECE)
        forward_piece(n - i < PIECE ? n - i : PIECE, gate + i, up + i, act + i);
}

void swiglu_backward(int64_t n, float *gate, float *up, float *dact)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += PIECE)
        backward_piece(n - i < PIECE ? n - i : PIECE, gate + i, up + i, dact + i);
}
