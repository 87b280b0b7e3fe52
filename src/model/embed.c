/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/embed.h"

#include "src/base/clones.h"

#include <string.h>

enum { COLUMNS = 64 };

void embed_forward(int rows, int dim, const int32_t *ids, const float *table, float *x)
{
#pragma omp parallel for schedule(static)
    for (int t = 0; t < rows; t++)
        memcpy(x + (int64_t)t * dim, table + (int64_t)ids[t] * dim,
               (size_t)dim * sizeof *x);
}

CLONES static void add(int n, const float *restrict from, float *restrict to)
{
    for (int j = 0; j < n; j++)
        to[j] += from[j];
}

void embed_backward(int rows, int dim, const int32_t *ids, const float *dx,
                    float *dtable)
{
    /* Threads share columns, not rows: two rows may have the same id. */
#pragma omp parallel for schedule(static)
    for (int c = 0; c < dim; c += COLUMNS)
        for (int t = 0; t < rows; t++)
            add(dim - c < COLUMNS ? dim - c : COLUMNS, dx + (int64_t)t * dim + c,
                dtable + (int64_t)ids[t] * dim + c);
}
