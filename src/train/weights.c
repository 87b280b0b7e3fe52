/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/weights.h"

#include "src/base/rng.h"

#include <inttypes.h>
#include <math.h>

static int check_finite(const struct zero_part *p, const char *path, struct err *err)
{
    int64_t n = p->shard.end - p->shard.begin, bad = 0, first = -1;
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(p->weight[i])) {
            bad++;
            if (first < 0)
                first = p->shard.begin + i;
        }
    if (!bad)
        return 0;
    char label[64];
    tensor_label(&p->tensor, label, sizeof label);
    return err_set(err, ERR_INPUT,
                   "%s: %s has %" PRId64 " values that are NaN or Inf, the first at "
                   "element %" PRId64 "; training from them would lose the run",
                   path, label, bad, first);
}

static int load_part(const struct zero_part *p, struct ckpt *k, const char *path,
                     const struct layer_map *map, bool optimizer, struct err *err)
{
    int64_t begin = p->shard.begin, n = p->shard.end - begin;
    if (n == 0)
        return 0;
    const struct tensor *t = &p->tensor;
    int layer = t->layer < 0 ? -1 : map->source[t->layer];
    if (ckpt_read(k, CKPT_MODEL, t->role, layer, begin, n, p->weight, err))
        return -1;
    for (int i = 0; optimizer && i < 2; i++) {
        enum ckpt_set set = i == 0 ? CKPT_EXP_AVG : CKPT_EXP_AVG_SQ;
        if (ckpt_read(k, set, t->role, layer, begin, n, p->moment[i], err))
            return -1;
    }
    return check_finite(p, path, err);
}

int weights_load(struct engine *e, struct ckpt *k, const char *path,
                 const struct layer_map *map, bool optimizer, struct err *err)
{
    struct zero *z = engine_zero(e);
    int failed = 0;
    for (int i = 0; !failed && i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        failed = load_part(&p, k, path, map, optimizer, err);
    }
    if (comm_agree(engine_grid(e)->world, failed, err))
        return -1;
    zero_publish(z);
    return 0;
}

void weights_random(struct engine *e, uint64_t seed, double std)
{
    struct zero *z = engine_zero(e);
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        for (int64_t j = p.shard.begin; j < p.shard.end; j++) {
            double x =
                p.tensor.ndim == 1
                    ? 1.0
                    : std * rng_normal(seed, (uint64_t)p.tensor.index, (uint64_t)j);
            p.weight[j - p.shard.begin] = (float)x;
        }
    }
    zero_publish(z);
}

int weights_save(struct engine *e, struct ckpt_writer *w, struct err *err)
{
    struct zero *z = engine_zero(e);
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        const float *src[CKPT_SETS] = {p.weight, p.moment[0], p.moment[1]};
        int64_t n = p.shard.end - p.shard.begin;
        for (int set = 0; n > 0 && set < CKPT_SETS; set++)
            if (ckpt_write(w, (enum ckpt_set)set, p.tensor.role, p.tensor.layer,
                           p.shard.begin, n, src[set], err))
                return -1;
    }
    return 0;
}
