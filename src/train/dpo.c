/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/dpo_parts.h"

#include "io/ckpt.h"
#include "src/base/mem.h"
#include "src/objective/sdpo.h"
#include "src/train/setup.h"
#include "src/train/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

struct pair_reference dpo_reference_of(struct trainer *t, struct data_set *set,
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
    struct pair_reference x = dpo_reference_of(m->t, set, name);
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

/* ---- validation ---- */

int dpo_validate(struct trainer *t, int i, int64_t limit,
                 int (*shown)(void *context, double done, double total),
                 struct pair_figures *figures, struct err *err)
{
    struct pair_logps_spec spec =
        dpo_reference_of(t, &t->valid[i], t->run.data.valid[i].name).spec;
    int64_t n = record_set_info(t->valid[i].records)->records;
    n = limit && limit < n ? limit : n;
    spec.shown = shown;
    spec.context = t;
    struct pair_logps *logps = mem_array(n, sizeof *logps, err);
    int failed = comm_agree(t->world, !logps, err);
    if (!failed)
        failed = pair_logps(&spec, 0, n, logps, err);
    if (!failed)
        failed = comm_agree(t->world,
                            pair_figures(&t->pairs.settings, n, logps,
                                         t->valid_reference[i], figures, err),
                            err);
    mem_free(logps);
    return failed;
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
