/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/dpo.h"

#include "io/ckpt.h"
#include "src/base/mem.h"
#include "src/objective/sdpo.h"
#include "src/train/checkpoints.h"
#include "src/train/pair_reference.h"
#include "src/train/setup.h"
#include "src/train/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The checkpoint's record of the model that its chunk's reference is. */
static const char chunk_weights[] = "dpo.chunk_weights";

int dpo_settings(const struct run *run, struct preference_settings *s, struct err *err)
{
    *s = (struct preference_settings){0};
    if (run->train.objective != RUN_DPO)
        return 0;
    char *loss = run_value(run, "dpo.loss", err);
    *s = (struct preference_settings){.beta = run->dpo.beta,
                                      .label_smoothing = run->dpo.label_smoothing,
                                      .rpo_alpha = run->dpo.rpo_alpha,
                                      .discopop_tau = run->dpo.discopop_tau};
    int failed = !loss;
    if (!failed) {
        char *name = loss + (*loss == '"');
        name[strcspn(name, "\"")] = '\0';
        failed = preference_find(name, &s->loss, err) || preference_check(s, err);
        if (failed)
            err_prefix(err, "dpo");
    }
    free(loss);
    return failed ? -1 : 0;
}

/* ---- the course of the run ---- */

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

/* ---- models that are references ---- */

/* One that a run file names: a checkpoint through a layer map, or random weights. */
struct model {
    struct trainer *t;
    const char *path;   /* NULL: random */
    const char *layers; /* NULL: as they are */
    struct ckpt *ckpt;
    struct layer_map map;
    char *weights; /* what pair_reference calls it; owned */
};

static void model_close(struct model *m)
{
    ckpt_close(m->ckpt);
    layer_map_fini(&m->map);
    free(m->weights);
}

/* Is it of the run's shape and tokenizer? */
static int compare(const struct model *m, struct err *err)
{
    const struct ckpt_info *info = ckpt_info(m->ckpt);
    struct model_shape shape = info->shape;
    char theirs[TOKENIZER_HASH_ROOM], ours[TOKENIZER_HASH_ROOM];
    shape.layers = m->map.layers;
    shape.bos_id = m->t->start.shape.bos_id;
    shape.eos_id = m->t->start.shape.eos_id;
    const char *field = shape_difference(&shape, &m->t->start.shape);
    if (field)
        return err_set(err, ERR_INPUT,
                       "%s: the reference has another %s than the run's model", m->path,
                       field);
    if (ckpt_tokenizer_hash(info, theirs, sizeof theirs, err) ||
        ckpt_tokenizer_hash(&m->t->start.info, ours, sizeof ours, err))
        return -1;
    if (strcmp(theirs, ours) != 0)
        return err_set(err, ERR_INPUT,
                       "%s: the reference's tokenizer is %s, the run's model has %s",
                       m->path, *theirs ? theirs : "none", *ours ? ours : "none");
    return 0;
}

static int name_weights(struct model *m, struct err *err)
{
    const struct run *r = &m->t->run;
    if (m->path)
        m->weights =
            mem_printf(err, "seal %016" PRIx64 "%s%s", ckpt_identity(m->ckpt),
                       m->layers ? ", layers " : "", m->layers ? m->layers : "");
    else
        m->weights = mem_printf(err, "random, seed %" PRIu64 ", init_std %.17g",
                                r->run.seed, r->model.init_std);
    return m->weights ? 0 : -1;
}

static int model_open(struct model *m, struct err *err)
{
    if (m->path) {
        m->ckpt = ckpt_open(m->t->world, m->path, err);
        if (!m->ckpt)
            return -1;
        int layers = ckpt_info(m->ckpt)->shape.layers;
        int failed = m->layers ? layer_map_parse(&m->map, m->layers, layers, err)
                               : layer_map_identity(&m->map, layers, err);
        if (failed || compare(m, err))
            return comm_agree(m->t->world, 1, err);
    }
    return comm_agree(m->t->world, name_weights(m, err), err);
}

static int model_load(void *context, struct err *err)
{
    struct model *m = context;
    const struct run *r = &m->t->run;
    if (m->path)
        return weights_load(m->t->engine, m->ckpt, m->path, &m->map, false, err);
    weights_random(m->t->engine, r->run.seed, r->model.init_std);
    return 0;
}

/* ---- references of sets ---- */

static struct pair_reference reference_of(struct trainer *t, struct data_set *set,
                                          const char *name)
{
    const struct run *r = &t->run;
    return (struct pair_reference){.log = t->log,
                                   .spec = {.engine = t->engine,
                                            .set = set,
                                            .seq_len = r->data.seq_len,
                                            .batch = r->train.micro_batch},
                                   .pairs = record_set_info(set->records)->records,
                                   .name = name,
                                   .part = "",
                                   .sharing = r->dpo.prefix_sharing,
                                   .folder = t->folder};
}

/* One set under model m; sums [pairs] are the caller's (mem_free). */
static struct pair_sums *set_reference(struct model *m, struct data_set *set,
                                       const char *name, const char *file,
                                       struct err *err)
{
    struct pair_reference x = reference_of(m->t, set, name);
    struct pair_sums *sums = mem_array(x.pairs, sizeof *sums, err);
    x.weights = m->weights;
    x.file = file;
    x.load = model_load;
    x.context = m;
    if (comm_agree(m->t->world, !sums, err) || pair_reference(&x, sums, NULL, err)) {
        mem_free(sums);
        return NULL;
    }
    return sums;
}

static int all_references(struct model *m, struct err *err)
{
    struct trainer *t = m->t;
    const struct run *r = &t->run;
    struct pair_sums *sums = NULL;
    for (int i = 0; i < r->data.train_sets; i++) {
        sums = set_reference(m, data_set_at(t->data, i), r->data.train[i].path,
                             r->dpo.cache, err);
        if (!sums)
            return -1;
        data_give_reference(t->data, i, sums);
    }
    if (t->chunks.n > 1) {
        int64_t pairs = data_samples(t->data);
        t->chunks.pair = mem_array(pairs, sizeof *t->chunks.pair, err);
        if (comm_agree(t->world,
                       !t->chunks.pair || sdpo_order(pairs, sums, t->chunks.pair, err),
                       err))
            return -1;
    }
    for (int i = 0; i < r->data.valid_sets; i++) {
        t->valid_reference[i] =
            set_reference(m, &t->valid[i], r->data.valid[i].path, NULL, err);
        if (!t->valid_reference[i])
            return -1;
    }
    return 0;
}

int dpo_setup(struct trainer *t, struct err *err)
{
    const struct run *r = &t->run;
    if (r->train.objective != RUN_DPO)
        return 0;
    int failed = preference_stats_init(&t->pairs.stats, r->train.global_batch, err);
    if (!failed) {
        t->valid_reference =
            mem_array(r->data.valid_sets, sizeof *t->valid_reference, err);
        failed = !t->valid_reference;
    }
    if (comm_agree(t->world, failed, err))
        return -1;
    if (strcmp(r->dpo.reference, "none") == 0)
        return 0;
    bool init = strcmp(r->dpo.reference, "init") == 0;
    struct model m = {.t = t,
                      .path = init ? r->model.init : r->dpo.reference,
                      .layers = init ? r->model.layers : NULL};
    failed = model_open(&m, err) || all_references(&m, err);
    model_close(&m);
    return failed ? -1 : 0;
}

/* ---- sDPO ---- */

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
        const char *recorded = ckpt_info_value(&t->start.info, chunk_weights);
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
        reference_of(t, data_set_at(t->data, 0), t->run.data.train[0].path);
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

/* ---- validation ---- */

int dpo_validate(struct trainer *t, int i, int64_t limit, struct pair_figures *figures,
                 struct err *err)
{
    struct pair_logps_spec spec =
        reference_of(t, &t->valid[i], t->run.data.valid[i].name).spec;
    int64_t n = record_set_info(t->valid[i].records)->records;
    n = limit && limit < n ? limit : n;
    struct pair_logps *logps = mem_array(n, sizeof *logps, err);
    int failed =
        comm_agree(t->world, !logps, err) || pair_logps(&spec, 0, n, logps, err);
    if (!failed)
        failed = comm_agree(t->world,
                            pair_figures(&t->pairs.settings, n, logps,
                                         t->valid_reference[i], figures, err),
                            err);
    mem_free(logps);
    return failed ? -1 : 0;
}

void dpo_fini(struct trainer *t)
{
    preference_stats_fini(&t->pairs.stats);
    for (int i = 0; t->valid_reference && i < t->run.data.valid_sets; i++)
        mem_free(t->valid_reference[i]);
    mem_free(t->valid_reference);
    mem_free(t->chunks.step);
    mem_free(t->chunks.pair);
}
