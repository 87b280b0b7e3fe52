/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/tied.h"

#include "mpi/comm_mpi.h"
#include "mpi/mpx.h"
#include "mpi/shard.h"
#include "mpi/tags.h"
#include "src/base/clock.h"
#include "src/base/mem.h"

#include <stdbool.h>

enum { PIECE_FLOATS = 1 << 18, WINDOW = 2 };

struct tied {
    const struct comm *axis;
    int last;                              /* stage */
    const struct slab_entry *embed, *head; /* NULL: the other stage's */
    struct shard shard;
    float *buffer; /* [WINDOW][PIECE_FLOATS] where gradients arrive */
};

static bool receives_gradients(const struct slab_entry *embed,
                               const struct slab_entry *head)
{
    return embed && !head;
}

int tied_create(struct tied **tied, const struct grid *grid, const struct slab *slab,
                struct err *err)
{
    const struct slab_entry *embed = slab_find(slab, ROLE_EMBED_TOKENS, -1, false);
    const struct slab_entry *head = slab_find(slab, ROLE_EMBED_TOKENS, -1, true);
    *tied = NULL;
    if (!embed && !head)
        return 0;
    struct tied *t = mem_array(1, sizeof *t, err);
    if (!t)
        return -1;
    t->axis = grid->pipe_axis;
    t->last = grid->pipeline - 1;
    t->embed = embed;
    t->head = head;
    t->shard =
        shard_of(embed ? &embed->tensor : &head->tensor, grid->data, grid->replica);
    if (receives_gradients(embed, head)) {
        t->buffer = mem_array(WINDOW * PIECE_FLOATS, sizeof *t->buffer, err);
        if (!t->buffer) {
            mem_free(t);
            return -1;
        }
    }
    *tied = t;
    return 0;
}

void tied_destroy(struct tied *t)
{
    if (!t)
        return;
    mem_free(t->buffer);
    mem_free(t);
}

int64_t tied_bytes(const struct slab *slab)
{
    const struct slab_entry *embed = slab_find(slab, ROLE_EMBED_TOKENS, -1, false);
    const struct slab_entry *head = slab_find(slab, ROLE_EMBED_TOKENS, -1, true);
    int64_t floats = receives_gradients(embed, head) ? WINDOW * PIECE_FLOATS : 0;
    return (int64_t)sizeof(struct tied) + floats * (int64_t)sizeof(float);
}

static void add(float *restrict to, const float *restrict from, int64_t n)
{
#pragma omp parallel for simd schedule(static) if (n > 4096)
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

/* Floats of piece k of the shard; 0: there is none. */
static int piece(const struct tied *t, int64_t k)
{
    int64_t left = t->shard.end - t->shard.begin - k * PIECE_FLOATS;
    if (left <= 0)
        return 0;
    return left < PIECE_FLOATS ? (int)left : PIECE_FLOATS;
}

static void wait_for(const struct tied *t, MPI_Request *request, double *wait_s)
{
    double start_s = clock_s();
    comm_wait(t->axis, 1, request);
    *wait_s += clock_s() - start_s;
}

static void start_send(const struct tied *t, const float *data, int64_t k, int to,
                       enum tag tag, MPI_Request *request)
{
    MPX(MPI_Isend(data + k * PIECE_FLOATS, piece(t, k), MPI_FLOAT, to, tag,
                  comm_mpi(t->axis), request));
}

static void start_receive(const struct tied *t, float *data, int64_t k, int from,
                          enum tag tag, MPI_Request *request)
{
    MPX(MPI_Irecv(data, piece(t, k), MPI_FLOAT, from, tag, comm_mpi(t->axis), request));
}

/* The shard at `data`, in pieces, WINDOW of them on their way. */
static void send_shard(const struct tied *t, const float *data, int to, enum tag tag,
                       double *wait_s)
{
    MPI_Request request[WINDOW] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
    for (int64_t k = 0; piece(t, k) > 0; k++) {
        wait_for(t, &request[k % WINDOW], wait_s);
        start_send(t, data, k, to, tag, &request[k % WINDOW]);
    }
    for (int i = 0; i < WINDOW; i++)
        wait_for(t, &request[i], wait_s);
}

static void receive_shard(const struct tied *t, float *data, int from, enum tag tag,
                          double *wait_s)
{
    MPI_Request request[WINDOW] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
    for (int64_t k = 0; piece(t, k) > 0; k++) {
        wait_for(t, &request[k % WINDOW], wait_s);
        start_receive(t, data + k * PIECE_FLOATS, k, from, tag, &request[k % WINDOW]);
    }
    for (int i = 0; i < WINDOW; i++)
        wait_for(t, &request[i], wait_s);
}

static void receive_and_add(const struct tied *t, float *data, int from, double *wait_s)
{
    MPI_Request request[WINDOW] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
    for (int64_t k = 0; k < WINDOW && piece(t, k) > 0; k++)
        start_receive(t, t->buffer + k * PIECE_FLOATS, k, from, TAG_TIED_GRADIENT,
                      &request[k]);
    for (int64_t k = 0; piece(t, k) > 0; k++) {
        float *buffer = t->buffer + k % WINDOW * PIECE_FLOATS;
        wait_for(t, &request[k % WINDOW], wait_s);
        add(data + k * PIECE_FLOATS, buffer, piece(t, k));
        if (piece(t, k + WINDOW) > 0)
            start_receive(t, buffer, k + WINDOW, from, TAG_TIED_GRADIENT,
                          &request[k % WINDOW]);
    }
}

void tied_add_gradient(struct tied *t, float *grads, double *wait_s)
{
    float *embed = t->embed ? grads + t->embed->grad_at + t->shard.begin : NULL;
    float *head = t->head ? grads + t->head->grad_at + t->shard.begin : NULL;
    if (embed && head)
        add(embed, head, t->shard.end - t->shard.begin);
    else if (head)
        send_shard(t, head, 0, TAG_TIED_GRADIENT, wait_s);
    else
        receive_and_add(t, embed, t->last, wait_s);
}

void tied_copy_weight(struct tied *t, float *weights, double *wait_s)
{
    if (t->embed && t->head)
        return; /* one and the same array */
    if (t->embed)
        send_shard(t, weights + t->embed->weight_at + t->shard.begin, t->last,
                   TAG_TIED_WEIGHT, wait_s);
    else
        receive_shard(t, weights + t->head->weight_at + t->shard.begin, 0,
                      TAG_TIED_WEIGHT, wait_s);
}
