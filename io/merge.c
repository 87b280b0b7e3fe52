/* SPDX-License-Identifier: Apache-2.0 */
#include "io/merge.h"

#include "io/ckpt.h"
#include "io/hf_chunks.h"
#include "io/hf_nonfinite.h"
#include "io/merge_plan.h"
#include "io/mix.h"
#include "src/base/mem.h"
#include "src/base/progress.h"

#include <math.h>
#include <string.h>

static const double gigabyte = 1e9;

struct job {
    struct comm *c;
    const struct merge_options *o;
    struct ckpt *model[MERGE_MODELS_MAX];
    struct ckpt_info info; /* of the result; owned */
    struct ckpt_writer *writer;
    struct model_shape shape;
    int tensors;
    int64_t *elements;    /* [tensors] */
    int64_t *first_chunk; /* [tensors + 1]: of each tensor, among all chunks */
    float weight[MERGE_MODELS_MAX], total; /* linear; total of the weights */
    struct mix_slerp *slerp;               /* [tensors]; NULL: linear */
    int64_t *found, *made;      /* [tensors]: values not finite; by narrowing */
    float *first, *other, *sum; /* [HF_CHUNK] */
    uint32_t *differ;           /* [HF_CHUNK] */
    void *narrow;               /* HF_CHUNK of any dtype */
    struct progress progress;   /* bytes read, by all ranks if they keep pace */
    double done;
};

static int open_models(struct job *j, struct err *err)
{
    for (int i = 0; i < j->o->models; i++) {
        j->model[i] = ckpt_open(j->c, j->o->checkpoint[i], err);
        if (!j->model[i])
            return -1;
    }
    return 0;
}

/* The weights as sums take them, fp32, and their total, which mergekit sums in fp32. */
static void take_weights(struct job *j)
{
    for (int i = 0; i < j->o->models; i++) {
        j->weight[i] = j->o->weight ? (float)j->o->weight[i] : 1;
        j->total += j->weight[i];
    }
}

static int allocate(struct job *j, struct err *err)
{
    j->tensors = table_count(&j->shape);
    j->elements = mem_array(j->tensors, sizeof *j->elements, err);
    j->first_chunk = mem_array(j->tensors + 1, sizeof *j->first_chunk, err);
    j->found = mem_array(j->tensors, sizeof *j->found, err);
    j->made = mem_array(j->tensors, sizeof *j->made, err);
    j->first = mem_array(HF_CHUNK, sizeof *j->first, err);
    j->other = mem_array(HF_CHUNK, sizeof *j->other, err);
    j->sum = mem_array(HF_CHUNK, sizeof *j->sum, err);
    j->differ = mem_array(HF_CHUNK, sizeof *j->differ, err);
    j->narrow = mem_array(HF_CHUNK, sizeof(float), err);
    bool slerp = j->o->method == MERGE_SLERP;
    if (slerp)
        j->slerp = mem_array(j->tensors, sizeof *j->slerp, err);
    if (!j->elements || !j->first_chunk || !j->found || !j->made || !j->first ||
        !j->other || !j->sum || !j->differ || !j->narrow || (slerp && !j->slerp))
        return -1;
    for (int i = 0; i < j->tensors; i++) {
        j->elements[i] = table_at(&j->shape, i).elements;
        j->first_chunk[i + 1] =
            j->first_chunk[i] + (j->elements[i] + HF_CHUNK - 1) / HF_CHUNK;
    }
    return 0;
}

static int prepare(struct job *j, struct err *err)
{
    struct ckpt *const *models = j->model;
    j->shape = ckpt_info(models[0])->shape;
    take_weights(j);
    int rc = merge_check_models(models, j->o->models, err);
    if (rc == 0)
        rc = merge_make_info(&j->info, models, j->o, err);
    if (rc == 0)
        rc = allocate(j, err);
    return comm_agree(j->c, rc < 0, err);
}

/* A chunk of a model in fp32. */
static int read_chunk(struct job *j, int model, const struct hf_chunks *k, float *to,
                      struct err *err)
{
    struct tensor t = table_at(&j->shape, k->tensor);
    if (ckpt_read(j->model[model], CKPT_MODEL, t.role, t.layer, k->begin, k->n, to,
                  err) < 0)
        return -1;
    enum dtype stored = ckpt_info(j->model[model])->dtype[t.role];
    j->done += (double)k->n * (double)dtype_bytes(stored) * comm_size(j->c);
    progress_at(&j->progress, j->done);
    return 0;
}

/* ---- SLERP's first pass: one angle for each tensor ---- */

/* Inner products of this rank's chunks: product[chunk], [aa, bb, ab]. */
static int multiply_share(struct job *j, struct mix_products *product, struct err *err)
{
    struct hf_chunks k;
    hf_chunks_begin(&k, j->elements, j->tensors, comm_rank(j->c), comm_size(j->c));
    while (hf_chunks_next(&k)) {
        if (read_chunk(j, 0, &k, j->first, err) < 0 ||
            read_chunk(j, 1, &k, j->other, err) < 0)
            return -1;
        product[j->first_chunk[k.tensor] + k.begin / HF_CHUNK] =
            mix_multiply(j->first, j->other, k.n);
    }
    return 0;
}

/* Weights of one tensor, from the products of its chunks. */
static int find_angle(struct job *j, int tensor, const struct mix_products *product,
                      struct err *err)
{
    struct mix_products p = {0};
    for (int64_t i = j->first_chunk[tensor]; i < j->first_chunk[tensor + 1]; i++) {
        p.aa += product[i].aa;
        p.bb += product[i].bb;
        p.ab += product[i].ab;
    }
    if (!isfinite(p.aa) || !isfinite(p.bb)) {
        struct tensor t = table_at(&j->shape, tensor);
        char name[96];
        tensor_hf_name(&t, name, sizeof name);
        return err_set(err, ERR_INPUT,
                       "%s: %s holds NaN or Inf: it has no direction for slerp; "
                       "--method linear keeps them to their elements",
                       ckpt_path(j->model[isfinite(p.aa) ? 1 : 0]), name);
    }
    j->slerp[tensor] = mix_slerp(&p, j->o->t);
    return 0;
}

/* Each chunk is one rank's, and chunks are added up in their order: the same angles
 * from any number of ranks. Collective. */
static int find_angles(struct job *j, struct err *err)
{
    int64_t chunks = j->first_chunk[j->tensors];
    struct mix_products *product = mem_array(chunks, sizeof *product, err);
    int rc = product ? multiply_share(j, product, err) : -1;
    rc = comm_agree(j->c, rc < 0, err);
    if (rc == 0) {
        _Static_assert(sizeof *product == 3 * sizeof(double), "three doubles");
        comm_sum_f64(j->c, (double *)product, 3 * chunks);
        for (int i = 0; rc == 0 && i < j->tensors; i++)
            rc = find_angle(j, i, product, err); /* alike on all ranks */
    }
    mem_free(product);
    return rc;
}

/* ---- the sums ---- */

/* Narrows the sums to the dtype of the result, that of the layer if it has its own, and
 * writes them as the stack is stored; counts what is not finite. */
static int write_chunk(struct job *j, const struct hf_chunks *k, struct err *err)
{
    struct tensor t = table_at(&j->shape, k->tensor);
    const enum dtype *own = j->info.layer_dtype[t.role];
    enum dtype stored = j->info.dtype[t.role];
    enum dtype to = own ? own[t.layer] : stored;
    int64_t before = nonfinite_count(DTYPE_F32, j->sum, k->n);
    dtype_from_f32(to, j->sum, k->n, j->narrow);
    int64_t after = nonfinite_count(to, j->narrow, k->n);
    j->found[k->tensor] += after;
    j->made[k->tensor] += after - before;
    if (to == stored)
        return ckpt_write_raw(j->writer, CKPT_MODEL, t.role, t.layer, k->begin, k->n,
                              j->narrow, err);
    dtype_to_f32(to, j->narrow, k->n, j->sum);
    return ckpt_write(j->writer, CKPT_MODEL, t.role, t.layer, k->begin, k->n, j->sum,
                      err);
}

static int mix_chunk(struct job *j, const struct hf_chunks *k, struct err *err)
{
    const struct mix_slerp *slerp = j->slerp ? &j->slerp[k->tensor] : NULL;
    const float *weight = slerp ? slerp->weight : j->weight;
    if (read_chunk(j, 0, k, j->first, err) < 0)
        return -1;
    mix_first(weight[0], j->first, k->n, j->sum, j->differ);
    for (int i = 1; i < j->o->models; i++) {
        if (read_chunk(j, i, k, j->other, err) < 0)
            return -1;
        mix_next(weight[i], j->other, j->first, k->n, j->sum, j->differ);
    }
    if (slerp ? slerp->line : !j->o->raw)
        mix_mean(slerp ? 1 : j->total, j->first, j->differ, k->n, j->sum);
    return write_chunk(j, k, err);
}

/* This rank's run of chunks. Local. */
static int mix_share(struct job *j, struct err *err)
{
    struct hf_chunks k;
    hf_chunks_begin(&k, j->elements, j->tensors, comm_rank(j->c), comm_size(j->c));
    while (hf_chunks_next(&k))
        if (mix_chunk(j, &k, err) < 0)
            return -1;
    return 0;
}

/* Of all models once. */
static double bytes_read(const struct job *j)
{
    double bytes = 0;
    for (int m = 0; m < j->o->models; m++)
        for (int i = 0; i < j->tensors; i++) {
            enum dtype t = ckpt_info(j->model[m])->dtype[table_at(&j->shape, i).role];
            bytes += (double)j->elements[i] * (double)dtype_bytes(t);
        }
    return bytes;
}

/* Both passes and the file; nothing is left of it on failure. Collective. */
static int stream(struct job *j, const struct log *log, struct err *err)
{
    j->writer = ckpt_create(j->c, j->o->output, false, j->o->force, &j->info, err);
    if (!j->writer)
        return -1;
    double passes = j->slerp ? 2 : 1;
    progress_begin(&j->progress, log, "merge: read", "GB", passes * bytes_read(j),
                   gigabyte);
    int rc = j->slerp ? find_angles(j, err) : 0;
    if (rc == 0)
        rc = comm_agree(j->c, mix_share(j, err) < 0, err);
    if (rc < 0) {
        progress_stop(&j->progress);
        ckpt_abort(j->writer);
        return -1;
    }
    progress_end(&j->progress);
    return ckpt_commit(j->writer, err);
}

static void report(struct job *j, const struct log *log, struct merge_result *r)
{
    comm_sum_i64(j->c, j->found, j->tensors);
    comm_sum_i64(j->c, j->made, j->tensors);
    nonfinite_warn(log, "merge", &j->shape, j->found, j->made);
    if (!r)
        return;
    *r = (struct merge_result){.tensors = j->tensors,
                               .parameters = table_elements(&j->shape)};
    for (int i = 0; i < j->tensors; i++) {
        enum dtype t = j->info.dtype[table_at(&j->shape, i).role];
        r->bytes += j->elements[i] * (int64_t)dtype_bytes(t);
        r->lines += j->slerp && j->slerp[i].line;
    }
}

static void fini(struct job *j)
{
    for (int i = 0; i < j->o->models; i++)
        ckpt_close(j->model[i]);
    ckpt_info_fini(&j->info);
    mem_free(j->elements);
    mem_free(j->first_chunk);
    mem_free(j->slerp);
    mem_free(j->found);
    mem_free(j->made);
    mem_free(j->first);
    mem_free(j->other);
    mem_free(j->sum);
    mem_free(j->differ);
    mem_free(j->narrow);
}

int merge(struct comm *c, const struct log *log, const struct merge_options *o,
          struct merge_result *result, struct err *err)
{
    if (merge_check_options(o, err) < 0)
        return -1;
    struct job j = {.c = c, .o = o};
    int rc = open_models(&j, err);
    if (rc == 0)
        rc = prepare(&j, err);
    if (rc == 0)
        rc = stream(&j, log, err);
    if (rc == 0)
        report(&j, log, result);
    fini(&j);
    return rc;
}
