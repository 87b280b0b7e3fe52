/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/zero.h"

#include "mpi/exchange.h"
#include "mpi/tied.h"
#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/base/mem.h"

#include <math.h>
#include <string.h>

enum { ALIGN_ELEMENTS = 16 };

struct zero {
    struct grid grid; /* its communicators are borrowed */
    const struct slab *slab;
    int tensors; /* of the whole model */
    float *weights, *grads, *moments;
    int parts;
    struct zero_part *part; /* [parts] */
    int64_t *grad_at;       /* [parts] first owned element in grads */
    struct exchange *exchange;
    int sums, copies;          /* entries with a gradient; with a weight of their own */
    struct exchange_item *sum; /* [sums] in grads */
    struct exchange_item *copy; /* [copies] in weights */
    struct tied *tied;          /* NULL: nothing to do for a tied head here */
    double *squares;            /* [tensors][data] */
};

static int64_t padded(int64_t elements)
{
    return (elements + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
}

static int64_t moment_elements(const struct slab *slab, int data, int rank)
{
    int64_t n = 0;
    for (int i = 0; i < slab->entries; i++) {
        if (slab->entry[i].tied_head)
            continue;
        struct shard s = shard_of(&slab->entry[i].tensor, data, rank);
        n += padded(s.end - s.begin);
    }
    return n;
}

int64_t zero_bytes(const struct slab *slab, const struct model_shape *shape, int data,
                   int rank)
{
    int64_t lists =
        slab->entries * (int64_t)(sizeof(struct zero_part) + sizeof(int64_t) +
                                  2 * sizeof(struct exchange_item));
    return (int64_t)sizeof(struct zero) + lists +
           2 * moment_elements(slab, data, rank) * (int64_t)sizeof(float) +
           (int64_t)table_count(shape) * data * (int64_t)sizeof(double) +
           exchange_bytes(data, true) + (shape->tied ? tied_bytes(slab) : 0);
}

static void fill_lists(struct zero *z)
{
    int data = z->grid.data, replica = z->grid.replica;
    int64_t elements = moment_elements(z->slab, data, replica), at = 0;
    for (int i = 0; i < z->slab->entries; i++) {
        const struct slab_entry *e = &z->slab->entry[i];
        z->sum[z->sums++] = (struct exchange_item){e->tensor, e->grad_at};
        const struct slab_entry *embed =
            slab_find(z->slab, ROLE_EMBED_TOKENS, -1, false);
        if (!e->tied_head || !embed)
            z->copy[z->copies++] = (struct exchange_item){e->tensor, e->weight_at};
        if (e->tied_head)
            continue;
        struct shard s = shard_of(&e->tensor, data, replica);
        struct zero_part *p = &z->part[z->parts];
        *p = (struct zero_part){.tensor = e->tensor,
                                .shard = s,
                                .weight = z->weights + e->weight_at + s.begin};
        if (z->moments) {
            p->moment[0] = z->moments + at;
            p->moment[1] = z->moments + elements + at;
        }
        z->grad_at[z->parts++] = e->grad_at + s.begin;
        at += padded(s.end - s.begin);
    }
}

static struct zero *create(const struct grid *grid, const struct slab *slab,
                           const struct model_shape *shape, float *weights,
                           float *grads, struct err *err)
{
    struct zero *z = mem_array(1, sizeof *z, err);
    if (!z)
        return NULL;
    z->grid = *grid;
    z->slab = slab;
    z->tensors = table_count(shape);
    z->weights = weights;
    z->grads = grads;
    z->part = mem_array(slab->entries, sizeof *z->part, err);
    z->grad_at = mem_array(slab->entries, sizeof *z->grad_at, err);
    z->sum = mem_array(slab->entries, sizeof *z->sum, err);
    z->copy = mem_array(slab->entries, sizeof *z->copy, err);
    z->exchange = exchange_create(grid->data_axis, grads != NULL, err);
    if (!z->part || !z->grad_at || !z->sum || !z->copy || !z->exchange)
        goto fail;
    if (grads) {
        int64_t elements = moment_elements(slab, grid->data, grid->replica);
        z->moments = mem_array(2 * elements, sizeof *z->moments, err);
        z->squares = mem_array((int64_t)z->tensors * grid->data, sizeof(double), err);
        if (!z->moments || !z->squares)
            goto fail;
    }
    if (shape->tied && tied_create(&z->tied, grid, slab, err))
        goto fail;
    fill_lists(z);
    return z;
fail:
    zero_destroy(z);
    return NULL;
}

struct zero *zero_create(const struct grid *grid, const struct slab *slab,
                         const struct model_shape *shape, float *weights, float *grads,
                         struct err *err)
{
    struct zero *z = create(grid, slab, shape, weights, grads, err);
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
    mem_free(z->grad_at);
    mem_free(z->sum);
    mem_free(z->copy);
    mem_free(z->moments);
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
        int64_t at = (int64_t)p->tensor.index * data + z->grid.replica;
        z->squares[at] = sum_of_squares(part_elements(p), z->grads + z->grad_at[i]);
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

static void publish(struct zero *z, double *wait_s)
{
    if (z->tied)
        tied_copy_weight(z->tied, z->weights, wait_s);
    exchange_gather(z->exchange, z->copies, z->copy, z->weights, wait_s);
}

void zero_publish(struct zero *z)
{
    double wait_s = 0;
    publish(z, &wait_s);
}

void zero_update(struct zero *z, struct zero_step *step)
{
    CHECK(z->grads, "this sharded optimizer was made without gradients");
    step->wait_s = 0;
    exchange_reduce(z->exchange, z->sums, z->sum, z->grads, &step->wait_s);
    if (z->tied)
        tied_add_gradient(z->tied, z->grads, &step->wait_s);
    step->norm = global_norm(z, &step->wait_s);
    step->finite = isfinite(step->norm);
    if (step->finite) {
        double scale = clip_scale(step->norm, step->clip);
        for (int i = 0; i < z->parts; i++) {
            struct zero_part *p = &z->part[i];
            adamw_update(&step->adamw, step->t, step->lr, p->tensor.decay, scale,
                         part_elements(p), p->weight, p->moment[0], p->moment[1],
                         z->grads + z->grad_at[i]);
        }
        publish(z, &step->wait_s);
    }
    memset(z->grads, 0, sizeof *z->grads * (size_t)z->slab->grads);
}
