/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/tree_sum.h"

enum { BLOCK = 4096 }; /* a block of a few sources stays in the first cache */

static void add(float *restrict to, const float *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

/* The sum of sources [lo, hi) comes to lie in source lo. */
static void sum_block(float *const *source, int lo, int hi, int64_t at, int64_t n)
{
    if (hi - lo == 1)
        return;
    int mid = lo + (hi - lo + 1) / 2;
    sum_block(source, lo, mid, at, n);
    sum_block(source, mid, hi, at, n);
    add(source[lo] + at, source[mid] + at, n);
}

void tree_sum(int d, float *const *source, int64_t n)
{
#pragma omp parallel for schedule(static) if (n > BLOCK)
    for (int64_t at = 0; at < n; at += BLOCK)
        sum_block(source, 0, d, at, n - at < BLOCK ? n - at : BLOCK);
}
