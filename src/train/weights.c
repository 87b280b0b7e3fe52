/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/weights.h"

#include "src/base/mem.h"
#include "src/base/rng.h"

#include <inttypes.h>
#include <math.h>

/* Masters pass through a buffer of this many, whole pieces of a shard. */
enum { BUFFER = 64 * SHARD_PIECE };

/* A part and where its masters go or come from. */
struct passage {
    struct zero *z;
    int i;
    struct zero_part part;
    float *buffer;      /* [BUFFER] */
    int64_t bad, first; /* NaN and Inf seen; element of the first, -1: none */
};

static int64_t elements_of(const struct passage *p)
{
    return p->part.shard.end - p->part.shard.begin;
}

static int64_t piece_at(const struct passage *p, int64_t at)
{
    int64_t left = elements_of(p) - at;
    return left < BUFFER ? left : BUFFER;
}

static void look_for_nonfinite(struct passage *p, int64_t at, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(p->buffer[i])) {
            if (p->bad++ == 0)
                p->first = p->part.shard.begin + at + i;
        }
}

static int refuse_nonfinite(const struct passage *p, const char *path, struct err *err)
{
    if (!p->bad)
        return 0;
    char label[64];
    tensor_label(&p->part.tensor, label, sizeof label);
    return err_set(err, ERR_INPUT,
                   "%s: %s has %" PRId64 " values that are NaN or Inf, the first at "
                   "element %" PRId64 "; training from them would lose the run",
                   path, label, p->bad, p->first);
}

static int load_part(struct passage *p, struct ckpt *k, const char *path,
                     const struct layer_map *map, bool optimizer, struct err *err)
{
    int64_t begin = p->part.shard.begin, n = elements_of(p);
    if (n == 0)
        return 0;
    const struct tensor *t = &p->part.tensor;
    int layer = t->layer < 0 ? -1 : map->source[t->layer];
    for (int64_t at = 0; at < n; at += BUFFER) {
        int64_t here = piece_at(p, at);
        if (ckpt_read(k, CKPT_MODEL, t->role, layer, begin + at, here, p->buffer, err))
            return -1;
        look_for_nonfinite(p, at, here);
        zero_put(p->z, p->i, at, here, p->buffer);
    }
    for (int i = 0; optimizer && !p->part.frozen && i < 2; i++) {
        enum ckpt_set set = i == 0 ? CKPT_EXP_AVG : CKPT_EXP_AVG_SQ;
        if (ckpt_read(k, set, t->role, layer, begin, n, p->part.moment[i], err))
            return -1;
    }
    return refuse_nonfinite(p, path, err);
}

int weights_load(struct engine *e, struct ckpt *k, const char *path,
                 const struct layer_map *map, bool optimizer, struct err *err)
{
    struct passage p = {.z = engine_zero(e),
                        .buffer = mem_array(BUFFER, sizeof(float), err)};
    int failed = !p.buffer;
    for (p.i = 0; !failed && p.i < zero_parts(p.z); p.i++) {
        p.part = zero_part_at(p.z, p.i);
        failed = load_part(&p, k, path, map, optimizer, err);
    }
    mem_free(p.buffer);
    if (comm_agree(engine_grid(e)->world, failed, err))
        return -1;
    engine_publish(e);
    return 0;
}

static void put_random(struct zero *z, int i, uint64_t seed, double std)
{
    enum { SOME = 4096 };
    struct zero_part p = zero_part_at(z, i);
    int64_t n = p.shard.end - p.shard.begin;
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < n; at += SOME) {
        int64_t here = n - at < SOME ? n - at : SOME;
        float x[SOME];
        for (int64_t j = 0; j < here; j++)
            x[j] = p.tensor.ndim == 1
                       ? 1.0f
                       : (float)(std * rng_normal(seed, (uint64_t)p.tensor.index,
                                                  (uint64_t)(p.shard.begin + at + j)));
        zero_put(z, i, at, here, x);
    }
}

void weights_random(struct engine *e, uint64_t seed, double std)
{
    for (int i = 0; i < zero_parts(engine_zero(e)); i++)
        put_random(engine_zero(e), i, seed, std);
    engine_publish(e);
}

static int save_part(struct passage *p, struct ckpt_writer *w, struct err *err)
{
    const struct tensor *t = &p->part.tensor;
    int64_t begin = p->part.shard.begin, n = elements_of(p);
    for (int64_t at = 0; at < n; at += BUFFER) {
        int64_t here = piece_at(p, at);
        zero_get(p->z, p->i, at, here, p->buffer);
        if (ckpt_write(w, CKPT_MODEL, t->role, t->layer, begin + at, here, p->buffer,
                       err))
            return -1;
    }
    for (int i = 0; n > 0 && i < 2; i++)
        if (ckpt_write(w, i == 0 ? CKPT_EXP_AVG : CKPT_EXP_AVG_SQ, t->role, t->layer,
                       begin, n, p->part.frozen ? NULL : p->part.moment[i], err))
            return -1;
    return 0;
}

int weights_save(struct engine *e, struct ckpt_writer *w, struct err *err)
{
    struct passage p = {.z = engine_zero(e),
                        .buffer = mem_array(BUFFER, sizeof(float), err)};
    int failed = !p.buffer;
    for (p.i = 0; !failed && p.i < zero_parts(p.z); p.i++) {
        p.part = zero_part_at(p.z, p.i);
        failed = save_part(&p, w, err);
    }
    mem_free(p.buffer);
    return failed ? -1 : 0;
}
