/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_SHARD_H
#define DUSK_MPI_SHARD_H

/* Which data rank owns which elements of a tensor (ZeRO-1, arXiv 1910.02054).
 *
 * A tensor is cut in pieces of 32,768 elements (the last may be short), which end on
 * the checkpoint's 64 KiB checksum blocks in every dtype. Rank r of d owns the pieces
 * [r P / d, (r+1) P / d); a tensor of fewer than d pieces goes whole to one rank, its
 * table index modulo d. The plan depends on the tensor and d only, never on the
 * pipeline. Pure. */

#include <stdint.h>

#include "src/param/table.h"

enum { SHARD_PIECE = 32768 };

struct shard {
    int64_t begin, end; /* elements of the tensor; begin == end: owns none */
};

struct shard shard_of(const struct tensor *t, int data, int rank);

#endif
