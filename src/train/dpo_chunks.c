/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/dpo_parts.h"

#include "io/ckpt.h"
#include "src/base/mem.h"
#include "src/objective/sdpo.h"
#include "src/train/checkpoints.h"
#include "src/train/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The checkpoint's record of the model that its chunk's reference is. */
static const char chunk_weights[] = "dpo.chunk_weights";

static int64_t chunk_steps(const struct run *r, int64_t pairs, int k)
{
    int n = r->dpo.chunks;
    if (r->train.steps)
        return sdpo_begin(r->train.steps, n, k + 1) - sdpo_begin(r->train.steps, n, k);
    return run_steps(r, sdpo_begin(pairs, n, k + 1) - sdpo_begin(pairs, n, k));
}

int dpo_plan(struct trainer *t, struct err *err)
{
    const struct run *r = &t->run;
    struct dpo_chunks *c = &t->chunks;
    int64_t samples = data_samples(t->data);
    bool chunks = r->train.objective == RUN_DPO && r->dpo.chunks > 1;
    c->n = chunks ? r->dpo.chunks : 1;
    c->at = -1;
    if (samples < c->n)
        return err_set(err, ERR_INPUT,
                       "%s: expected at least one pair for each of the %d of "
                       "dpo.chunks, found %" PRId64,
                       r->data.train[0].path, c->n, samples);
    c->step = mem_array((int64_t)c->n + 1, sizeof *c->step, err);
    if (!c->step)
        return -1;
    for (int k = 0; k < c->n; k++)
        c->step[k + 1] =
            c->step[k] + (chunks ? chunk_steps(r, samples, k) : run_steps(r, samples));
    t->steps = c->step[c->n];
    return 0;
}

bool dpo_chunk_ends(const struct trainer *t)
{
    const struct dpo_chunks *c = &t->chunks;
    return c->at + 1 < c->n && t->at.step == c->step[c->at + 1];
}

/* The model at the chunk's first step is in the engine, or is in a checkpoint. */
struct chunk_model {
    struct trainer *t;
    int64_t step;
    const char *weights;
    bool loaded; /* another one's weights went into the engine */
};

static int load_chunk_model(void *context, struct err *err)
{
    struct chunk_model *m = context;
    struct trainer *t = m->t;
    if (t->at.step == m->step)
        return 0;
    char *path = checkpoints_path(t->checkpoints, m->step, err);
    if (comm_agree(t->world, !path, err)) {
        free(path);
        return -1;
    }
    struct ckpt *k = ckpt_open(t->world, path, err);
    struct layer_map map = {0};
    int failed = !k;
    if (!failed) {
        char name[32];
        snprintf(name, sizeof name, "seal %016" PRIx64, ckpt_identity(k));
        if (strcmp(name, m->weights) != 0)
            failed = err_set(err, ERR_INPUT, "%s: is another checkpoint", path);
    }
    failed = failed || layer_map_identity(&map, t->start.shape.layers, err);
    failed = comm_agree(t->world, failed, err) ||
             weights_load(t->engine, k, path, &map, false, err);
    m->loaded = true;
    layer_map_fini(&map);
    ckpt_close(k);
    free(path);
    return failed ? err_prefix(err, "the reference of this chunk of dpo.chunks is "
                                    "neither in a file nor can it be made")
                  : 0;
}

/* The seal of the checkpoint of the chunk's first step: of the one just saved, or as
 * later checkpoints of the chunk record it. Owned. */
static char *chunk_weights_of(struct trainer *t, int64_t step, struct err *err)
{
    if (t->at.step != step) {
        const char *recorded = ckpt_info_value(ckpt_info(t->start.ckpt), chunk_weights);
        return recorded ? mem_printf(err, "%s", recorded)
                        : (err_set(err, ERR_INPUT, "%s: has no %s to go on with",
                                   t->start.path, chunk_weights),
                           NULL);
    }
    if (t->start.resumed && ckpt_info(t->start.ckpt)->step == step)
        return mem_printf(err, "seal %016" PRIx64, ckpt_identity(t->start.ckpt));
    char *path = checkpoints_path(t->checkpoints, step, err), *weights = NULL;
    struct ckpt *k = path ? ckpt_open(comm_self(), path, err) : NULL;
    if (k)
        weights = mem_printf(err, "seal %016" PRIx64, ckpt_identity(k));
    ckpt_close(k);
    free(path);
    return weights;
}

/* The reference of the chunk's pairs, into those of the set. */
static int chunk_reference(struct trainer *t, int chunk, const char *weights,
                           bool *loaded, struct err *err)
{
    int64_t all = data_samples(t->data);
    int64_t first = sdpo_begin(all, t->chunks.n, chunk);
    int64_t n = sdpo_begin(all, t->chunks.n, chunk + 1) - first;
    const int64_t *pair = t->chunks.pair + first;
    char part[64];
    snprintf(part, sizeof part, "chunk %d of %d", chunk + 1, t->chunks.n);
    struct chunk_model m = {t, t->chunks.step[chunk], weights, false};
    struct pair_reference x =
        dpo_reference_of(t, data_set_at(t->data, 0), t->run.data.train[0].path);
    struct pair_sums *of_chunk = mem_array(n, sizeof *of_chunk, err);
    struct pair_sums *sums = mem_array(all, sizeof *sums, err);
    x.spec.pair = pair;
    x.pairs = n;
    x.weights = weights;
    x.part = part;
    x.load = load_chunk_model;
    x.context = &m;
    int failed = comm_agree(t->world, !of_chunk || !sums, err) ||
                 pair_reference(&x, of_chunk, NULL, err);
    for (int64_t i = 0; !failed && i < n; i++)
        sums[pair[i]] = of_chunk[i];
    if (failed)
        mem_free(sums);
    else
        data_give_reference(t->data, 0, sums);
    mem_free(of_chunk);
    *loaded = m.loaded;
    return failed ? -1 : 0;
}

static int enter_later_chunk(struct trainer *t, int chunk, struct err *err)
{
    bool loaded = false;
    char *weights = chunk_weights_of(t, t->chunks.step[chunk], err);
    int failed = !weights || ckpt_info_set(&t->start.info, chunk_weights, weights, err);
    failed = comm_agree(t->world, failed, err) ||
             chunk_reference(t, chunk, weights, &loaded, err);
    free(weights);
    if (!failed && loaded)
        failed = trainer_load(t, err);
    if (!failed && t->at.step == t->chunks.step[chunk]) {
        engine_forget(t->engine);
        t->at.adam_t = 0;
    }
    return failed;
}

int dpo_enter(struct trainer *t, struct err *err)
{
    struct dpo_chunks *c = &t->chunks;
    int chunk = 0;
    while (chunk + 1 < c->n && t->at.step >= c->step[chunk + 1])
        chunk++;
    c->at = chunk;
    if (c->n == 1)
        return 0;
    int64_t all = data_samples(t->data), first = sdpo_begin(all, c->n, chunk);
    int64_t pairs = sdpo_begin(all, c->n, chunk + 1) - first;
    if (t->at.step < t->steps)
        log_line(t->log,
                 "chunk %d of %d: %" PRId64 " pairs, steps %" PRId64 " to %" PRId64,
                 chunk + 1, c->n, pairs, c->step[chunk] + 1, c->step[chunk + 1]);
    int64_t position = c->step[chunk] * t->run.train.global_batch;
    if (chunk > 0 && enter_later_chunk(t, chunk, err))
        return -1;
    return comm_agree(t->world,
                      data_narrow(t->data, position, pairs, c->pair + first, err), err);
}
