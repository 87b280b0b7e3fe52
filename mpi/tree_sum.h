/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_TREE_SUM_H
#define DUSK_MPI_TREE_SUM_H

/* The one order in which numbers of several replicas are added: a balanced binary tree
 * on the replica,
 *     sum(lo, hi) = sum(lo, mid) + sum(mid, hi),  mid = lo + (hi - lo + 1) / 2,
 * so that the bits of an element depend on nothing but its d values. */

#include <stdint.h>

/* source[0][n] becomes the sum of source[0 .. d-1][n]; the others' contents are lost.
 * No overlap. All OpenMP threads. Local. */
void tree_sum(int d, float *const *source, int64_t n);

#endif
