/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/gemm_backend.h"

void gemm_ref_tile(int64_t m, int64_t n, int64_t k, struct gemm_matrix a,
                   struct gemm_matrix b, float beta, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += (double)a.p[i * a.row + l * a.col] *
                       (double)b.p[l * b.row + j * b.col];
            float *element = &c[i * ldc + j];
            double old = beta == 0.0f ? 0.0 : (double)beta * (double)*element;
            *element = (float)(sum + old);
        }
    }
}
