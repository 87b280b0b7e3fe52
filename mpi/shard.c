/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/shard.h"

static int64_t at_most(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

struct shard shard_of(const struct tensor *t, int data, int rank)
{
    int64_t pieces = (t->elements + SHARD_PIECE - 1) / SHARD_PIECE;
    if (pieces < data) {
        int owner = t->index % data;
        return (struct shard){0, rank == owner ? t->elements : 0};
    }
    int64_t first = rank * pieces / data, last = (rank + 1) * pieces / data;
    return (struct shard){at_most(first * SHARD_PIECE, t->elements),
                          at_most(last * SHARD_PIECE, t->elements)};
}
