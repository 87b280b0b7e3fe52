/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/bf16_backend.h"

void bf16_ref_tile(int64_t m, int64_t n, int64_t k, struct bf16_matrix a,
                   struct bf16_matrix b, struct bf16_target t)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += (double)bf16_to_f32(a.p[i * a.row + l * a.col]) *
                       (double)bf16_to_f32(b.p[l * b.row + j * b.col]);
            if (t.dtype == DTYPE_F32) {
                float *c = (float *)t.c + i * t.ldc + j;
                *c = (float)(t.beta == 0.0f ? sum : sum + (double)*c);
            } else {
                uint16_t *c = (uint16_t *)t.c + i * t.ldc + j;
                double old = t.beta == 0.0f ? 0.0 : (double)bf16_to_f32(*c);
                *c = bf16_from_f32((float)(sum + old));
            }
        }
    }
}
