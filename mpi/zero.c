/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/zero.h"

#include "mpi/exchange.h"
#include "mpi/tied.h"
#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/optim/master.h"

#include <math.h>
#include <string.h>

enum { ALIGN_ELEMENTS = 32, CLEAR_PART = 1 << 16 };

/* Where a part's elements lie; of a frozen one only the weights. */
struct place {
    int64_t weight_at, grad_at; /* first owned element in the stage's arrays */
    int64_t own_at;             /* and in this rank's */
};

struct zero {
    struct grid grid; /* its communicators are borrowed */
    const struct slab *slab;
    int tensors;          /* of the whole model */
    enum dtype precision; /* of weights */
    void *weights;
    float *grads;
    float *moments; /* [2][owned] */
    int16_t *rest;  /* [owned], BF16: of the masters */
    int parts;
    struct zero_part *part; /* [parts] */
    struct place *place;    /* [parts] */
    struct exchange *exchange;
    int sums, copies;          /* entries with a gradient; with a weight of their own */
    int changing;              /* copies that a step changes, the first ones */
    struct exchange_item *sum; /* [sums] in grads */
    struct exchange_item *copy; /* [copies] in weights */
    struct tied *tied;          /* NULL: nothing to do for a tied head here */
    bool tied_frozen;           /* then only loading needs it */
    double *squares;            /* [tensors][data] */
};

static int64_t padded(int64_t elements)
{
    return (elements + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
}

static int64_t owned_elements(const struct slab *slab, int data, int rank)
{
    int64_t n = 0;
    for (int i = 0; i < slab->entries; i++) {
        if (slab->entry[i].tied_head || slab->entry[i].frozen)
            continue;
        struct shard s = shard_of(&slab->entry[i].tensor, data, rank);
        n += padded(s.end - s.begin);
    }
    return n;
}

static int64_t rest_elements(enum dtype precision, int64_t owned)
{
    return precision == DTYPE_BF16 ? owned : 0;
}

int64_t zero_bytes(const struct slab *slab, const struct model_shape *shape,
                   enum dtype precision, int data, int rank)
{
    int64_t lists =
        slab->entries * (int64_t)(sizeof(struct zero_part) + sizeof(struct place) +
                                  2 * sizeof(struct exchange_item));
    int64_t owned = owned_elements(slab, data, rank);
    return (int64_t)sizeof(struct zero) + lists + 2 * owned * (int64_t)sizeof(float) +
           rest_elements(precision, owned) * (int64_t)sizeof(int16_t) +
           (int64_t)table_count(shape) * data * (int64_t)sizeof(double) +
           exchange_bytes(data, true) + (shape->tied ? tied_bytes(slab) : 0);
}

/* What travels: gradients, and weights, those that a step changes first. */
static void fill_exchanges(struct zero *z)
{
    const struct slab_entry *embed = slab_find(z->slab, ROLE_EMBED_TOKENS, -1, false);
    for (int frozen = 0; frozen < 2; frozen++) {
        for (int i = 0; i < z->slab->entries; i++) {
            const struct slab_entry *e = &z->slab->entry[i];
            if (e->frozen != frozen)
                continue;
            if (e->tensor.role == ROLE_EMBED_TOKENS)
                z->tied_frozen = frozen;
            if (!frozen)
                z->sum[z->sums++] = (struct exchange_item){e->tensor, e->grad_at};
            if (!e->tied_head || !embed)
                z->copy[z->copies++] = (struct exchange_item){e->tensor, e->weight_at};
        }
        if (!frozen)
            z->changing = z->copies;
    }
}

static void fill_parts(struct zero *z)
{
    int data = z->grid.data, replica = z->grid.replica;
    int64_t owned = owned_elements(z->slab, data, replica), at = 0;
    for (int i = 0; i < z->slab->entries; i++) {
        const struct slab_entry *e = &z->slab->entry[i];
        if (e->tied_head)
            continue;
        struct shard s = shard_of(&e->tensor, data, replica);
        struct zero_part *p = &z->part[z->parts];
        struct place *place = &z->place[z->parts++];
        *p = (struct zero_part){.tensor = e->tensor, .shard = s, .frozen = e->frozen};
        *place = (struct place){.weight_at = e->weight_at + s.begin};
        if (e->frozen)
            continue;
        place->grad_at = e->grad_at + s.begin;
        place->own_at = at;
        if (z->moments) {
            p->moment[0] = z->moments + at;
            p->moment[1] = z->moments + owned + at;
        }
        at += padded(s.end - s.begin);
    }
}

static struct zero *create(const struct grid *grid, const struct slab *slab,
                           const struct model_shape *shape, enum dtype precision,
                           void *weights, float *grads, struct err *err)
{
    CHECK(precision == DTYPE_F32 || precision == DTYPE_BF16, "weights of dtype %d",
          (int)precision);
    struct zero *z = mem_array(1, sizeof *z, err);
    if (!z)
        return NULL;
    z->grid = *grid;
    z->slab = slab;
    z->tensors = table_count(shape);
    z->precision = precision;
    z->weights = weights;
    z->grads = grads;
    z->part = mem_array(slab->entries, sizeof *z->part, err);
    z->place = mem_array(slab->entries, sizeof *z->place, err);
    z->sum = mem_array(slab->entries, sizeof *z->sum, err);
    z->copy = mem_array(slab->entries, sizeof *z->copy, err);
    z->exchange = exchange_create(grid->data_axis, grads != NULL, err);
    if (!z->part || !z->place || !z->sum || !z->copy || !z->exchange)
        goto fail;
    if (grads) {
        int64_t owned = owned_elements(slab, grid->data, grid->replica);
        int64_t rest = rest_elements(precision, owned);
        z->moments = mem_array(2 * owned, sizeof *z->moments, err);
        z->rest = rest ? mem_array(rest, sizeof *z->rest, err) : NULL;
        z->squares = mem_array((int64_t)z->tensors * grid->data, sizeof(double), err);
        if (!z->moments || !z->squares || (rest && !z->rest))
            goto fail;
    }
    if (shape->tied && tied_create(&z->tied, grid, slab, err))
        goto fail;
    fill_exchanges(z);
    fill_parts(z);
    return z;
fail:
    zero_destroy(z);
    return NULL;
}

struct zero *zero_create(const struct grid *grid, const struct slab *slab,
                         const struct model_shape *shape, enum dtype precision,
                         void *weights, float *grads, struct err *err)
{
    struct zero *z = create(grid, slab, shape, precision, weights, grads, err);
    if (comm_agree(grid->world, z == NULL, err)) {
        zero_destroy(z);
        return NULL;
    }
    return z;
}

void zero_destroy(struct zero *z)
{
    if (!z)
        return;
    mem_free(z->part);
    mem_free(z->place);
    mem_free(z->sum);
    mem_free(z->copy);
    mem_free(z->moments);
    mem_free(z->rest);
    mem_free(z->squares);
    exchange_destroy(z->exchange);
    tied_destroy(z->tied);
    mem_free(z);
}

int zero_parts(const struct zero *z)
{
    return z->parts;
}

struct zero_part zero_part_at(const struct zero *z, int i)
{
    CHECK(i >= 0 && i < z->parts, "part %d of %d", i, z->parts);
    return z->part[i];
}

static int64_t part_elements(const struct zero_part *p)
{
    return p->shard.end - p->shard.begin;
}

/* Every entry of the table of partial sums has one rank that owns it and zeros from
 * all others, so that the sum over ranks is exact and the order of the two sums below
 * is all that decides the bits. */
static double global_norm(struct zero *z, double *wait_s)
{
    int data = z->grid.data;
    int64_t entries = (int64_t)z->tensors * data;
    memset(z->squares, 0, sizeof *z->squares * (size_t)entries);
    for (int i = 0; i < z->parts; i++) {
        const struct zero_part *p = &z->part[i];
        if (p->frozen)
            continue;
        int64_t at = (int64_t)p->tensor.index * data + z->grid.replica;
        z->squares[at] =
            sum_of_squares(part_elements(p), z->grads + z->place[i].grad_at);
    }
    double start_s = clock_s();
    comm_sum_f64(z->grid.world, z->squares, entries);
    *wait_s += clock_s() - start_s;

    double total = 0;
    for (int t = 0; t < z->tensors; t++) {
        double tensor = 0;
        for (int r = 0; r < data; r++)
            tensor += z->squares[(int64_t)t * data + r];
        total += tensor;
    }
    return sqrt(total);
}

/* The first so many copies. The tied head's is among those that a step changes, unless
 * it is frozen. */
static void publish(struct zero *z, int copies, bool head, double *wait_s)
{
    if (z->tied && head)
        tied_copy_weight(z->tied, z->precision, z->weights, wait_s);
    exchange_gather(z->exchange, copies, z->copy, z->precision, z->weights, wait_s);
}

void zero_publish(struct zero *z)
{
    double wait_s = 0;
    publish(z, z->copies, true, &wait_s);
}

/* Weights of a part, from its at-th owned element. */
static float *weight_f32(const struct zero *z, int i, int64_t at)
{
    return (float *)z->weights + z->place[i].weight_at + at;
}

static uint16_t *weight_bf16(const struct zero *z, int i, int64_t at)
{
    return (uint16_t *)z->weights + z->place[i].weight_at + at;
}

static int16_t *rest_of(const struct zero *z, int i, int64_t at)
{
    return z->rest && !z->part[i].frozen ? z->rest + z->place[i].own_at + at : NULL;
}

static void check_range(const struct zero *z, int i, int64_t at, int64_t n)
{
    CHECK(i >= 0 && i < z->parts, "part %d of %d", i, z->parts);
    int64_t owned = part_elements(&z->part[i]);
    CHECK(at >= 0 && n >= 0 && at + n <= owned, "elements %lld + %lld of %lld",
          (long long)at, (long long)n, (long long)owned);
}

void zero_put(struct zero *z, int i, int64_t at, int64_t n, const float *master)
{
    check_range(z, i, at, n);
    if (z->precision == DTYPE_BF16)
        master_split(n, master, weight_bf16(z, i, at), rest_of(z, i, at));
    else
        memcpy(weight_f32(z, i, at), master, (size_t)n * sizeof *master);
}

void zero_get(const struct zero *z, int i, int64_t at, int64_t n, float *master)
{
    check_range(z, i, at, n);
    if (z->precision == DTYPE_BF16)
        master_gather(n, weight_bf16(z, i, at), rest_of(z, i, at), master);
    else
        memcpy(master, weight_f32(z, i, at), (size_t)n * sizeof *master);
}

static void clear(float *x, int64_t n)
{
#pragma omp parallel for schedule(static) if (n > CLEAR_PART)
    for (int64_t at = 0; at < n; at += CLEAR_PART)
        memset(x + at, 0,
               sizeof *x * (size_t)(n - at < CLEAR_PART ? n - at : CLEAR_PART));
}

/* All gradients but the owned ones, which AdamW cleared as it read them. */
static void clear_others(struct zero *z)
{
    for (int i = 0; i < z->slab->entries; i++) {
        const struct slab_entry *e = &z->slab->entry[i];
        if (e->frozen)
            continue;
        struct shard own = shard_of(&e->tensor, z->grid.data, z->grid.replica);
        float *g = z->grads + e->grad_at;
        if (e->tied_head)
            own.begin = own.end = 0;
        clear(g, own.begin);
        clear(g + own.end, e->tensor.elements - own.end);
    }
}

void zero_discard(struct zero *z)
{
    clear(z->grads, z->slab->grads);
}

static void apply(struct zero *z, const struct zero_step *step)
{
    double scale = clip_scale(step->norm, step->clip);
    for (int i = 0; i < z->parts; i++) {
        const struct zero_part *p = &z->part[i];
        if (p->frozen)
            continue;
        int64_t n = part_elements(p);
        float *g = z->grads + z->place[i].grad_at;
        if (z->precision == DTYPE_BF16)
            adamw_update_bf16(&step->adamw, step->t, step->lr, p->tensor.decay, scale,
                              n, weight_bf16(z, i, 0), rest_of(z, i, 0), p->moment[0],
                              p->moment[1], g);
        else
            adamw_update(&step->adamw, step->t, step->lr, p->tensor.decay, scale, n,
                         weight_f32(z, i, 0), p->moment[0], p->moment[1], g);
    }
}

void zero_update(struct zero *z, struct zero_step *step)
{
    CHECK(z->grads, "this sharded optimizer was made without gradients");
    step->wait_s = 0;
    double begin = trace_now(step->trace);
    exchange_reduce(z->exchange, z->sums, z->sum, z->grads, &step->wait_s);
    if (z->tied)
        tied_add_gradient(z->tied, z->grads, &step->wait_s);
    step->norm = global_norm(z, &step->wait_s);
    step->finite = isfinite(step->norm);
    trace_add(step->trace, TRACE_REDUCE, -1, begin);
    if (!step->finite) {
        zero_discard(z);
        return;
    }
    begin = trace_now(step->trace);
    apply(z, step);
    clear_others(z);
    trace_add(step->trace, TRACE_OPTIMIZER, -1, begin);
    begin = trace_now(step->trace);
    publish(z, z->changing, !z->tied_frozen, &step->wait_s);
    trace_add(step->trace, TRACE_PUBLISH, -1, begin);
}
