/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/schedule_parts.h"

/* The k-th computation of a direction on every rank: `ranks` micro-batches of a chunk,
 * the same of the next chunk, ..., then the next micro-batches. Backward the last chunk
 * comes first. */
static void push_at(struct schedule *s, int rank, enum pipe_op_kind kind, int k)
{
    int p = s->ranks, c = s->chunks;
    int round = k / (p * c), within = k % (p * c);
    int chunk = kind == PIPE_FORWARD ? within / p : c - 1 - within / p;
    schedule_push(s, schedule_stage(s, rank, chunk), kind, round * p + within % p);
}

/* arXiv 2104.04473; the forwards ahead are Megatron-LM's: those of all chunks but the
 * last, and of the last twice 1f1b's, less one, since a chunk's turn comes only every p
 * computations. */
void schedule_fill_interleaved(struct schedule *s)
{
    int p = s->ranks, all = s->chunks * s->micro_batches;
    for (int rank = 0; rank < p; rank++) {
        int ahead = 2 * (p - 1 - rank) + (s->chunks - 1) * p;
        if (ahead > all)
            ahead = all;
        for (int k = 0; k < ahead; k++)
            push_at(s, rank, PIPE_FORWARD, k);
        for (int k = 0; k < all; k++) {
            if (ahead + k < all)
                push_at(s, rank, PIPE_FORWARD, ahead + k);
            push_at(s, rank, PIPE_BACKWARD, k);
        }
    }
}
