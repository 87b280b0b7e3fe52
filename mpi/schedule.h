/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_SCHEDULE_H
#define DUSK_MPI_SCHEDULE_H

/* Pipeline schedules as data. The model is cut into stages, ranks x chunks of them, and
 * every rank of a pipeline holds `chunks` stages. A schedule is one list of operations
 * for each rank, made by a pure function; the runner (mpi/runner.h) executes it, the
 * checker proves it.
 *
 *   gpipe  all forwards, then all backwards (arXiv 1811.06965)
 *   1f1b   at most min(p - s, m) micro-batches alive at stage s (PipeDream-flush,
 *          arXiv 2006.09503)
 *   interleaved  1f1b on c chunks a rank: rank r holds stages r, r + p, ..., and works
 *          on p micro-batches of one after another (Megatron-LM, arXiv 2104.04473,
 *          section 2.2); m is a multiple of p. The bubble is 1 / c of 1f1b's, and at
 *          most min((c + 1) p - 1 - 2 r, c m) chunks' micro-batches are alive on rank r
 *          (beside c p of gpipe's m = p)
 *   zb-h1  1f1b with the backward in two: stage s puts the weight gradients off by s
 *          micro-batches, into what would be bubble; at most min(p, m) alive at any
 *          stage (arXiv 2401.10241, sections 2.1 and 2.3: with times F, B, W its
 *          bubble is (p - 1)(F + B - W), 1f1b's (p - 1)(F + B + W))
 *   zb-v   two chunks a rank, in a V: rank r holds stages r and 2 p - 1 - r, so that
 *          the first rank embeds and makes the loss; no more than 2 p chunks'
 *          micro-batches alive on a rank, 1f1b's p of the whole (arXiv 2401.10241,
 *          section 6; arXiv 2405.15362). The order is that of a simulation with
 *          F = B = W, where for m >= 2 p a rank idles at most 4 p / 3 of a chunk's
 *          operations, 1f1b's 6 (p - 1)
 *   file   a user's own (mpi/schedule_file.h)
 *   forward  forwards only, for evaluation
 *
 * Forwards, backwards and weight gradients of a stage run in rising micro-batch order
 * in every schedule, so that gradient sums, and all results, have the same bits. Pure,
 * local. */

#include <stdbool.h>

#include "src/base/err.h"

enum pipe_op_kind {
    PIPE_FORWARD,       /* compute */
    PIPE_BACKWARD,      /* compute: input gradient; where no PIPE_WEIGHT follows,
                           weight gradients too */
    PIPE_WEIGHT,        /* compute: weight gradients */
    PIPE_SEND_FORWARD,  /* this stage's output, to the next stage */
    PIPE_RECV_FORWARD,  /* its input, from the stage before */
    PIPE_SEND_BACKWARD, /* gradient of its input, to the stage before */
    PIPE_RECV_BACKWARD  /* gradient of its output, from the next stage */
};

struct pipe_op {
    enum pipe_op_kind kind;
    int stage, micro_batch;
};

enum schedule_kind {
    SCHEDULE_GPIPE,
    SCHEDULE_1F1B,
    SCHEDULE_INTERLEAVED,
    SCHEDULE_ZB_H1,
    SCHEDULE_ZB_V,
    SCHEDULE_FILE,
    SCHEDULE_FORWARD
};

/* Which schedule, of what size. */
struct schedule_spec {
    enum schedule_kind kind;
    int ranks;               /* of a pipeline, >= 1 */
    int chunks;              /* stages of a rank, >= 1 */
    int micro_batches;       /* >= 1 */
    const char *file, *text; /* SCHEDULE_FILE: its name, for messages, which must
                                outlive the schedule; what is in it */
    const int *rank_of; /* SCHEDULE_FORWARD: [ranks x chunks], each rank `chunks` times;
                           NULL: stage s on rank s % ranks */
};

struct schedule {
    enum schedule_kind kind;
    bool split; /* the backward is in two */
    int ranks, chunks, micro_batches;
    int stages;          /* ranks x chunks */
    int *rank_of;        /* [stages] */
    int *stage_of;       /* [ranks][chunks] rising */
    int *chunk_of;       /* [stages] place in its rank's row of stage_of */
    int *ops;            /* [ranks] operations of each rank */
    struct pipe_op **op; /* [ranks][ops[r]] */
    int *slots;          /* [stages] micro-batches alive at once, at most */
    int *waiting;        /* [stages] of them between PIPE_BACKWARD and the end of
                            PIPE_WEIGHT, at most; 0: no PIPE_WEIGHT */
    const char *file; /* SCHEDULE_FILE: borrowed; and where each operation is in it: */
    int **cell;       /* [ranks][ops[r]] of the rank's row, from 1; else NULL */
};

const char *schedule_name(enum schedule_kind k); /* "gpipe", "1f1b", "zb-h1" ... */
const char *pipe_op_name(enum pipe_op_kind k);   /* "forward", "send_forward", ... */

/* 0, or -1 with err set and *s zeroed: ERR_USAGE for chunks and micro-batches that the
 * schedule is not for, and for what is wrong with a file. A file's table is proven; the
 * others need no proof but in tests. */
int schedule_init(struct schedule *s, const struct schedule_spec *spec,
                  struct err *err);
void schedule_fini(struct schedule *s);

/* The chunk-th stage of a rank. */
static inline int schedule_stage(const struct schedule *s, int rank, int chunk)
{
    return s->stage_of[rank * s->chunks + chunk];
}

/* Chunks that a schedule has where nothing else is asked for. */
int schedule_usual_chunks(enum schedule_kind k);

/* What schedule_init says of chunks and micro-batches, without a table; micro_batches
 * 0: not known yet. */
int schedule_check_sizes(enum schedule_kind kind, int ranks, int chunks,
                         int micro_batches, struct err *err);

/* Buffers of each stage for outputs and for gradients of its inputs: one is filled
 * while the other is on its way. */
enum { SCHEDULE_BUFFERS = 2 };

/* Does the schedule train? */
bool schedule_backward(enum schedule_kind k);

/* Buffers for gradients of the stage's outputs, which its last computation of a
 * micro-batch reads: one more than are in use at once, so that the next can arrive. */
int schedule_dout_buffers(const struct schedule *s, int stage);

/* Proves a table: every stage runs, on its rank, each micro-batch's forward once and
 * (but for `forward`) backward once, where it is split in its two halves, each
 * operation in rising order; each input is received before use and each output sent
 * once after it is made, so that sends and receives between two stages match in order;
 * never more than slots[s] micro-batches alive (from the arrival of the input to the
 * end of the last computation), never more than waiting[s] between the halves; no
 * deadlock when a send completes only at its receive, outputs and gradients of inputs
 * have SCHEDULE_BUFFERS buffers each, gradients of outputs schedule_dout_buffers. 0, or
 * -1 with err set naming stage, operation and micro-batch, of a file row and cell. */
int schedule_check(const struct schedule *s, struct err *err);

#endif
