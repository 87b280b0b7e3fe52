/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/exchange.h"

#include "mpi/comm_mpi.h"
#include "mpi/mpx.h"
#include "mpi/shard.h"
#include "mpi/tags.h"
#include "mpi/tree_sum.h"
#include "mpi/watch.h"
#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/base/mem.h"

#include <string.h>

enum {
    WINDOW = 4, /* rounds on their way */
    BUFFER_FLOATS = 1 << 22,
    MOST_PIECE_FLOATS = 1 << 18,
    LEAST_PIECE_FLOATS = 1 << 10
};

/* What is on its way of one round. */
struct flight {
    float *buffer;                 /* [d - 1][piece], by sender, this rank left out */
    MPI_Request *sends, *receives; /* [d - 1] each */
    int sent, received;            /* in use */
};

struct exchange {
    const struct comm *axis;
    int d, rank;
    int64_t piece; /* elements */
    float *buffers;
    MPI_Request *requests;
    float **source; /* [d], of a tree sum */
    struct flight flight[WINDOW];
    double *wait_s;      /* of the call under way */
    enum dtype gathered; /* by it */
};

static int64_t piece_floats(int data)
{
    int64_t piece = BUFFER_FLOATS / WINDOW / (data > 1 ? data - 1 : 1);
    if (piece > MOST_PIECE_FLOATS)
        return MOST_PIECE_FLOATS;
    return piece < LEAST_PIECE_FLOATS ? LEAST_PIECE_FLOATS : piece;
}

static int64_t buffer_floats(int data, bool reduces)
{
    return reduces ? WINDOW * (data - 1) * piece_floats(data) : 0;
}

static int64_t request_count(int data)
{
    return 2 * WINDOW * (data - 1);
}

int64_t exchange_bytes(int data, bool reduces)
{
    return (int64_t)sizeof(struct exchange) +
           buffer_floats(data, reduces) * (int64_t)sizeof(float) +
           request_count(data) * (int64_t)sizeof(MPI_Request) +
           data * (int64_t)sizeof(float *);
}

struct exchange *exchange_create(struct comm *axis, bool reduces, struct err *err)
{
    struct exchange *x = mem_array(1, sizeof *x, err);
    if (!x)
        return NULL;
    int d = comm_size(axis);
    x->axis = axis;
    x->d = d;
    x->rank = comm_rank(axis);
    x->piece = piece_floats(d);
    x->buffers = mem_array(buffer_floats(d, reduces), sizeof(float), err);
    x->requests = mem_array(request_count(d), sizeof(MPI_Request), err);
    x->source = mem_array(d, sizeof *x->source, err);
    if (!x->buffers || !x->requests || !x->source) {
        exchange_destroy(x);
        return NULL;
    }
    for (int i = 0; i < WINDOW; i++) {
        x->flight[i].buffer = reduces ? x->buffers + i * (d - 1) * x->piece : NULL;
        x->flight[i].sends = x->requests + 2 * i * (d - 1);
        x->flight[i].receives = x->flight[i].sends + d - 1;
    }
    return x;
}

void exchange_destroy(struct exchange *x)
{
    if (!x)
        return;
    mem_free(x->buffers);
    mem_free(x->requests);
    mem_free(x->source);
    mem_free(x);
}

/* A place in the list of rounds. */
struct round {
    int item;
    int64_t k;
};

/* Elements of the k-th piece of an owner, within the tensor; may be none. */
static struct shard piece_of(const struct exchange *x, const struct tensor *t,
                             int owner, int64_t k)
{
    struct shard s = shard_of(t, x->d, owner);
    s.begin += k * x->piece;
    if (s.begin >= s.end)
        return (struct shard){0, 0};
    if (s.end - s.begin > x->piece)
        s.end = s.begin + x->piece;
    return s;
}

static void next_round(const struct exchange *x, const struct exchange_item *item,
                       struct round *r)
{
    r->k++;
    for (int owner = 0; owner < x->d; owner++) {
        struct shard s = piece_of(x, &item[r->item].tensor, owner, r->k);
        if (s.begin < s.end)
            return;
    }
    r->item++;
    r->k = 0;
}

static void wait_for(struct exchange *x, int n, MPI_Request *requests)
{
    double start_s = clock_s();
    comm_wait(x->axis, n, requests);
    *x->wait_s += clock_s() - start_s;
}

static void send_piece(struct exchange *x, struct flight *f, const void *from,
                       int64_t bytes, int to, enum tag tag)
{
    if (bytes > 0)
        MPX(MPI_Isend(from, (int)bytes, MPI_BYTE, to, tag, comm_mpi(x->axis),
                      &f->sends[f->sent++]));
}

static void receive_piece(struct exchange *x, struct flight *f, void *to, int64_t bytes,
                          int from, enum tag tag)
{
    if (bytes > 0)
        MPX(MPI_Irecv(to, (int)bytes, MPI_BYTE, from, tag, comm_mpi(x->axis),
                      &f->receives[f->received++]));
}

static int64_t float_bytes(struct shard s)
{
    return (s.end - s.begin) * (int64_t)sizeof(float);
}

static void reduce_begin(struct exchange *x, struct flight *f,
                         const struct exchange_item *item, int64_t k, void *array)
{
    const float *data = (const float *)array + item->at;
    struct shard mine = piece_of(x, &item->tensor, x->rank, k);
    for (int r = 0, other = 0; r < x->d; r++) {
        if (r == x->rank)
            continue;
        struct shard theirs = piece_of(x, &item->tensor, r, k);
        receive_piece(x, f, f->buffer + x->piece * other++, float_bytes(mine), r,
                      TAG_REDUCE);
        send_piece(x, f, data + theirs.begin, float_bytes(theirs), r, TAG_REDUCE);
    }
}

static void reduce_end(struct exchange *x, struct flight *f,
                       const struct exchange_item *item, int64_t k, void *array)
{
    struct shard mine = piece_of(x, &item->tensor, x->rank, k);
    int64_t n = mine.end - mine.begin;
    if (n == 0)
        return;
    float *own = (float *)array + item->at + mine.begin;
    for (int r = 0, other = 0; r < x->d; r++)
        x->source[r] = r == x->rank ? own : f->buffer + x->piece * other++;
    tree_sum(x->d, x->source, n);
    if (x->rank > 0)
        memcpy(own, x->source[0], sizeof *own * (size_t)n);
}

static void gather_begin(struct exchange *x, struct flight *f,
                         const struct exchange_item *item, int64_t k, void *array)
{
    int64_t size = (int64_t)dtype_bytes(x->gathered);
    char *data = (char *)array + item->at * size;
    struct shard mine = piece_of(x, &item->tensor, x->rank, k);
    for (int r = 0; r < x->d; r++) {
        if (r == x->rank)
            continue;
        struct shard theirs = piece_of(x, &item->tensor, r, k);
        receive_piece(x, f, data + theirs.begin * size,
                      (theirs.end - theirs.begin) * size, r, TAG_GATHER);
        send_piece(x, f, data + mine.begin * size, (mine.end - mine.begin) * size, r,
                   TAG_GATHER);
    }
}

typedef void round_part(struct exchange *x, struct flight *f,
                        const struct exchange_item *item, int64_t k, void *array);

/* end may be NULL: pieces arrive where they belong. */
static void run_rounds(struct exchange *x, int items, const struct exchange_item *item,
                       void *array, round_part *begin, round_part *end)
{
    struct round first = {0}, last = {0}; /* oldest on its way; next to begin */
    int64_t begun = 0;
    for (int64_t ended = 0; first.item < items; ended++) {
        for (; last.item < items && begun - ended < WINDOW; begun++) {
            struct flight *f = &x->flight[begun % WINDOW];
            wait_for(x, f->sent, f->sends);
            f->sent = f->received = 0;
            begin(x, f, &item[last.item], last.k, array);
            next_round(x, item, &last);
        }
        struct flight *f = &x->flight[ended % WINDOW];
        wait_for(x, f->received, f->receives);
        if (end)
            end(x, f, &item[first.item], first.k, array);
        next_round(x, item, &first);
    }
    for (int i = 0; i < WINDOW; i++) {
        wait_for(x, x->flight[i].sent, x->flight[i].sends);
        x->flight[i].sent = 0;
    }
}

void exchange_reduce(struct exchange *x, int items, const struct exchange_item *item,
                     float *array, double *wait_s)
{
    if (x->d == 1)
        return;
    CHECK(x->flight[0].buffer, "an exchange that was made to gather only");
    x->wait_s = wait_s;
    watch_for(comm_watch(x->axis), "gradients of the other replicas", -1, -1);
    run_rounds(x, items, item, array, reduce_begin, reduce_end);
}

void exchange_gather(struct exchange *x, int items, const struct exchange_item *item,
                     enum dtype t, void *array, double *wait_s)
{
    if (x->d == 1)
        return;
    x->gathered = t;
    x->wait_s = wait_s;
    watch_for(comm_watch(x->axis), "weights of the other replicas", -1, -1);
    run_rounds(x, items, item, array, gather_begin, NULL);
}
