/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/embed.h"

#include "src/base/clones.h"
#include "src/model/element.h"

#include <string.h>

enum { COLUMNS = 64 };

void embed_forward(int rows, int dim, enum dtype dtype, const int32_t *ids,
                   const void *table, void *x)
{
    size_t bytes = (size_t)dim * dtype_bytes(dtype);
#pragma omp parallel for schedule(static)
    for (int t = 0; t < rows; t++)
        memcpy((char *)x + (size_t)t * bytes,
               (const char *)table + (size_t)ids[t] * bytes, bytes);
}

ELEMENT_INLINE void add_of(enum dtype t, int n, const void *restrict from,
                           float *restrict to)
{
    for (int j = 0; j < n; j++)
        to[j] += element_get(t, from, j);
}

CLONES static void add(enum dtype t, int n, const void *from, float *to)
{
    if (t == DTYPE_F32)
        add_of(DTYPE_F32, n, from, to);
    else
        add_of(DTYPE_BF16, n, from, to);
}

void embed_backward(int rows, int dim, enum dtype dtype, const int32_t *ids,
                    const void *dx, float *dtable)
{
    /* Threads share columns, not rows: two rows may have the same id. */
#pragma omp parallel for schedule(static)
    for (int c = 0; c < dim; c += COLUMNS)
        for (int t = 0; t < rows; t++)
            add(dtype, dim - c < COLUMNS ? dim - c : COLUMNS,
                element_at(dtype, dx, (int64_t)t * dim + c),
                dtable + (int64_t)ids[t] * dim + c);
}
