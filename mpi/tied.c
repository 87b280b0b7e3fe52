/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/tied.h"

#include "mpi/comm_mpi.h"
#include "mpi/mpx.h"
#include "mpi/shard.h"
#include "mpi/tags.h"
#include "mpi/watch.h"
#include "src/base/clock.h"
#include "src/base/mem.h"

#include <stdbool.h>

enum { PIECE_ELEMENTS = 1 << 18, WINDOW = 2 };

struct tied {
    const struct comm *axis;
    int first, last;                       /* who in `axis` embeds, has the head */
    const struct slab_entry *embed, *head; /* NULL: another rank's */
    struct shard shard;
    float *buffer; /* [WINDOW][PIECE_ELEMENTS] where gradients arrive */
};

static bool receives_gradients(const struct slab_entry *embed,
                               const struct slab_entry *head)
{
    return embed && !head && !embed->frozen;
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
    t->first = grid->embed_at;
    t->last = grid->head_at;
    t->embed = embed;
    t->head = head;
    t->shard =
        shard_of(embed ? &embed->tensor : &head->tensor, grid->data, grid->replica);
    if (receives_gradients(embed, head)) {
        t->buffer = mem_array(WINDOW * PIECE_ELEMENTS, sizeof *t->buffer, err);
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
    int64_t floats = receives_gradients(embed, head) ? WINDOW * PIECE_ELEMENTS : 0;
    return (int64_t)sizeof(struct tied) + floats * (int64_t)sizeof(float);
}

static void add(float *restrict to, const float *restrict from, int64_t n)
{
#pragma omp parallel for simd schedule(static) if (n > 4096)
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

/* Elements of piece k of the shard; 0: there is none. */
static int piece(const struct tied *t, int64_t k)
{
    int64_t left = t->shard.end - t->shard.begin - k * PIECE_ELEMENTS;
    if (left <= 0)
        return 0;
    return left < PIECE_ELEMENTS ? (int)left : PIECE_ELEMENTS;
}

static void wait_for(const struct tied *t, MPI_Request *request, double *wait_s)
{
    double start_s = clock_s();
    watch_for(comm_watch(t->axis), "the tied embedding", -1, -1);
    comm_wait(t->axis, 1, request);
    *wait_s += clock_s() - start_s;
}

static void start_receive(const struct tied *t, void *data, int bytes, int from,
                          enum tag tag, MPI_Request *request)
{
    MPX(MPI_Irecv(data, bytes, MPI_BYTE, from, tag, comm_mpi(t->axis), request));
}

/* The shard at `data`, elements of `size` bytes, in pieces, WINDOW of them on their
 * way. */
static void send_shard(const struct tied *t, const char *data, int size, int to,
                       enum tag tag, double *wait_s)
{
    MPI_Request request[WINDOW] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
    for (int64_t k = 0; piece(t, k) > 0; k++) {
        wait_for(t, &request[k % WINDOW], wait_s);
        MPX(MPI_Isend(data + k * PIECE_ELEMENTS * size, piece(t, k) * size, MPI_BYTE,
                      to, tag, comm_mpi(t->axis), &request[k % WINDOW]));
    }
    for (int i = 0; i < WINDOW; i++)
        wait_for(t, &request[i], wait_s);
}

static void receive_shard(const struct tied *t, char *data, int size, int from,
                          enum tag tag, double *wait_s)
{
    MPI_Request request[WINDOW] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
    for (int64_t k = 0; piece(t, k) > 0; k++) {
        wait_for(t, &request[k % WINDOW], wait_s);
        start_receive(t, data + k * PIECE_ELEMENTS * size, piece(t, k) * size, from,
                      tag, &request[k % WINDOW]);
    }
    for (int i = 0; i < WINDOW; i++)
        wait_for(t, &request[i], wait_s);
}

static void receive_and_add(const struct tied *t, float *data, int from, double *wait_s)
{
    MPI_Request request[WINDOW] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
    for (int64_t k = 0; k < WINDOW && piece(t, k) > 0; k++)
        start_receive(t, t->buffer + k * PIECE_ELEMENTS,
                      piece(t, k) * (int)sizeof(float), from, TAG_TIED_GRADIENT,
                      &request[k]);
    for (int64_t k = 0; piece(t, k) > 0; k++) {
        float *buffer = t->buffer + k % WINDOW * PIECE_ELEMENTS;
        wait_for(t, &request[k % WINDOW], wait_s);
        add(data + k * PIECE_ELEMENTS, buffer, piece(t, k));
        if (piece(t, k + WINDOW) > 0)
            start_receive(t, buffer, piece(t, k + WINDOW) * (int)sizeof(float), from,
                          TAG_TIED_GRADIENT, &request[k % WINDOW]);
    }
}

void tied_add_gradient(struct tied *t, float *grads, double *wait_s)
{
    if ((t->embed ? t->embed : t->head)->frozen)
        return;
    float *embed = t->embed ? grads + t->embed->grad_at + t->shard.begin : NULL;
    float *head = t->head ? grads + t->head->grad_at + t->shard.begin : NULL;
    if (embed && head)
        add(embed, head, t->shard.end - t->shard.begin);
    else if (head)
        send_shard(t, (const char *)head, sizeof *head, t->first, TAG_TIED_GRADIENT,
                   wait_s);
    else
        receive_and_add(t, embed, t->last, wait_s);
}

void tied_copy_weight(struct tied *t, enum dtype w, void *weights, double *wait_s)
{
    if (t->embed && t->head)
        return; /* one and the same array */
    int size = (int)dtype_bytes(w);
    const struct slab_entry *here = t->embed ? t->embed : t->head;
    char *data = (char *)weights + (here->weight_at + t->shard.begin) * size;
    if (t->embed)
        send_shard(t, data, size, t->last, TAG_TIED_WEIGHT, wait_s);
    else
        receive_shard(t, data, size, t->first, TAG_TIED_WEIGHT, wait_s);
}
