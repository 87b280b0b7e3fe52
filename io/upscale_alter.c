/* SPDX-License-Identifier: Apache-2.0 */
#include "io/upscale_alter.h"

#include "io/ckpt_stats.h"
#include "io/hf_chunks.h"
#include "io/mix.h"
#include "src/base/check.h"
#include "src/base/mem.h"
#include "src/base/progress.h"
#include "src/base/rng.h"

#include <stdlib.h>

struct upscale_alter {
    struct ckpt *source;
    const struct upscale_plan *plan;
    const struct ckpt_info *result;
    int tensors;
    struct tensor *tensor; /* [tensors], of the result */
    int64_t *elements;     /* [tensors] */
    double *rms;           /* [source layers x ROLES]: of those that get noise */
    float *x, *y, *sum;    /* [HF_CHUNK] */
    uint32_t *differ;      /* [HF_CHUNK] */
    void *narrow;          /* HF_CHUNK of any dtype */
};

void upscale_alter_destroy(struct upscale_alter *a)
{
    if (!a)
        return;
    mem_free(a->tensor);
    mem_free(a->elements);
    mem_free(a->rms);
    mem_free(a->x);
    mem_free(a->y);
    mem_free(a->sum);
    mem_free(a->differ);
    mem_free(a->narrow);
    free(a);
}

static int allocate(struct upscale_alter *a, struct err *err)
{
    const struct model_shape *s = &a->result->shape;
    a->tensor = mem_array(table_count(s), sizeof *a->tensor, err);
    a->elements = mem_array(table_count(s), sizeof *a->elements, err);
    a->rms = mem_array((int64_t)a->plan->source_layers * ROLES, sizeof *a->rms, err);
    a->x = mem_array(HF_CHUNK, sizeof *a->x, err);
    a->y = mem_array(HF_CHUNK, sizeof *a->y, err);
    a->sum = mem_array(HF_CHUNK, sizeof *a->sum, err);
    a->differ = mem_array(HF_CHUNK, sizeof *a->differ, err);
    a->narrow = mem_array(HF_CHUNK, sizeof(float), err);
    if (!a->tensor || !a->elements || !a->rms || !a->x || !a->y || !a->sum ||
        !a->differ || !a->narrow)
        return -1;
    for (int i = 0; i < table_count(s); i++) {
        struct tensor t = table_at(s, i);
        if (t.layer < 0 || !upscale_altered(a->plan, t.layer, t.role))
            continue;
        a->elements[a->tensors] = t.elements;
        a->tensor[a->tensors++] = t;
    }
    return 0;
}

static double *rms_of(const struct upscale_alter *a, int source_layer,
                      enum tensor_role role)
{
    return &a->rms[(size_t)source_layer * ROLES + role];
}

/* rms of every tensor of the source of which a copy gets noise. Collective over c. */
static int measure(struct upscale_alter *a, struct comm *c, const struct log *log,
                   struct err *err)
{
    const struct model_shape *s = &ckpt_info(a->source)->shape;
    struct tensor *list = mem_array(a->tensors, sizeof *list, err);
    struct ckpt_stat *stat = mem_array(a->tensors, sizeof *stat, err);
    int n = 0, rc = comm_agree(c, !list || !stat, err);
    for (int i = 0; rc == 0 && i < a->tensors; i++) {
        const struct tensor *t = &a->tensor[i];
        int from = a->plan->layer[t->layer].source;
        if (!upscale_noisy(a->plan, t->layer, t->role) || *rms_of(a, from, t->role) > 0)
            continue;
        *rms_of(a, from, t->role) = 1; /* listed */
        list[n++] = table_find(s, t->role, from);
    }
    if (rc == 0 && n)
        rc = ckpt_stats(c, log, "upscale: parameters measured", a->source, list, n,
                        stat, err);
    for (int i = 0; rc == 0 && i < n; i++)
        *rms_of(a, list[i].layer, list[i].role) = stat[i].rms;
    mem_free(list);
    mem_free(stat);
    return rc;
}

struct upscale_alter *upscale_alter_create(struct comm *c, const struct log *log,
                                           struct ckpt *source,
                                           const struct upscale_plan *plan,
                                           const struct ckpt_info *result,
                                           struct err *err)
{
    struct upscale_alter *a = calloc(1, sizeof *a);
    CHECK(a, "no memory for an up-scaling");
    *a = (struct upscale_alter){.source = source, .plan = plan, .result = result};
    if (comm_agree(c, allocate(a, err) < 0, err) < 0 || measure(a, c, log, err) < 0) {
        upscale_alter_destroy(a);
        return NULL;
    }
    return a;
}

static int read_source(struct upscale_alter *a, const struct tensor *t, int layer,
                       const struct hf_chunks *k, float *to, struct err *err)
{
    return ckpt_read(a->source, CKPT_MODEL, t->role, layer, k->begin, k->n, to, err);
}

/* a->sum: the layer's own values, or their mean with its counterpart's. */
static int read_values(struct upscale_alter *a, const struct tensor *t,
                       const struct hf_chunks *k, struct err *err)
{
    const struct upscale_layer *l = &a->plan->layer[t->layer];
    if (l->mean_with < 0)
        return read_source(a, t, l->source, k, a->sum, err);
    if (read_source(a, t, l->source, k, a->x, err) < 0 ||
        read_source(a, t, l->mean_with, k, a->y, err) < 0)
        return -1;
    mix_first(1, a->x, k->n, a->sum, a->differ);
    mix_next(1, a->y, a->x, k->n, a->sum, a->differ);
    mix_mean(2, a->x, a->differ, k->n, a->sum);
    return 0;
}

/* Streams of the noise, one a tensor, apart from those of io/new_rows.h. */
static uint64_t stream_of(const struct tensor *t)
{
    return ((uint64_t)t->layer + 1) << 32 | (uint64_t)t->role;
}

static void add_noise(struct upscale_alter *a, const struct tensor *t,
                      const struct hf_chunks *k)
{
    const struct upscale_choices *c = &a->plan->choices;
    int from = a->plan->layer[t->layer].source;
    double deviation = c->init_noise * *rms_of(a, from, t->role);
    uint64_t stream = stream_of(t);
    for (int64_t i = 0; i < k->n; i++) {
        double z = rng_normal(c->seed, stream, (uint64_t)(k->begin + i));
        a->sum[i] = (float)((double)a->sum[i] + deviation * z);
    }
}

static int write_chunk(struct upscale_alter *a, struct ckpt_writer *w,
                       const struct hf_chunks *k, struct err *err)
{
    const struct tensor *t = &a->tensor[k->tensor];
    if (upscale_zeroed(a->plan, t->layer, t->role))
        return ckpt_write(w, CKPT_MODEL, t->role, t->layer, k->begin, k->n, NULL, err);
    if (read_values(a, t, k, err) < 0)
        return -1;
    if (upscale_noisy(a->plan, t->layer, t->role))
        add_noise(a, t, k);
    const enum dtype *own = a->result->layer_dtype[t->role];
    if (own && own[t->layer] != a->result->dtype[t->role]) {
        dtype_from_f32(own[t->layer], a->sum, k->n, a->narrow);
        dtype_to_f32(own[t->layer], a->narrow, k->n, a->sum);
    }
    return ckpt_write(w, CKPT_MODEL, t->role, t->layer, k->begin, k->n, a->sum, err);
}

int upscale_alter_write(struct upscale_alter *a, struct ckpt_writer *w, int rank,
                        int ranks, const struct log *log, struct err *err)
{
    struct hf_chunks k;
    struct progress progress;
    double total = 0, done = 0;
    int rc = 0;
    for (int i = 0; i < a->tensors; i++)
        total += (double)a->elements[i];
    progress_begin(&progress, log, "upscale: parameters altered", "M", total, 1e6);
    hf_chunks_begin(&k, a->elements, a->tensors, rank, ranks);
    while (rc == 0 && hf_chunks_next(&k)) {
        rc = write_chunk(a, w, &k, err);
        done += (double)k.n * ranks;
        progress_at(&progress, done);
    }
    progress_end(&progress);
    return rc;
}
