/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_import.h"

#include "io/hf_chunks.h"
#include "io/hf_nonfinite.h"
#include "io/hf_source.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/progress.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double gigabyte = 1e9;

struct import_job {
    struct comm *c;
    const struct log *log;
    const struct hf_import_options *o;
    struct hf_source source;
    struct hf_order order;   /* on disk */
    enum dtype dtype[ROLES]; /* as stored */
    struct ckpt_writer *writer;
    int64_t *found, *made; /* values not finite, by tensor; made: by narrowing */
    int fd, shard;         /* the shard that is open; -1 */
    unsigned char *raw;
    float *wide;
};

/* A stack takes the widest dtype of its layers, or the one asked for. */
static void choose_dtypes(struct import_job *im)
{
    const struct hf_source *s = &im->source;
    bool seen[ROLES] = {false};
    for (int i = 0; i < s->tensors; i++) {
        enum tensor_role r = table_at(&s->shape, i).role;
        enum dtype t = im->o->keep ? s->place[i].dtype : im->o->dtype;
        im->dtype[r] = seen[r] ? dtype_widest(im->dtype[r], t) : t;
        seen[r] = true;
    }
}

/* Each layer's own dtype, where a stack had to widen some. */
static int fill_layer_dtypes(const struct import_job *im, struct ckpt_info *info,
                             struct err *err)
{
    const struct hf_source *s = &im->source;
    for (int i = 0; i < s->tensors; i++) {
        struct tensor t = table_at(&s->shape, i);
        if (!im->o->keep || !role_per_layer(t.role) || info->layer_dtype[t.role] ||
            s->place[i].dtype == im->dtype[t.role])
            continue;
        enum dtype *own = mem_array(s->shape.layers, sizeof *info->layer_dtype[0], err);
        if (!own)
            return -1;
        for (int layer = 0; layer < s->shape.layers; layer++)
            own[layer] = s->place[table_find(&s->shape, t.role, layer).index].dtype;
        info->layer_dtype[t.role] = own;
    }
    return 0;
}

static char *describe_source(const struct hf_source *s, const char *folder,
                             struct err *err)
{
    char *real = realpath(folder, NULL);
    const char *name = real ? strrchr(real, '/') : NULL;
    char *text =
        mem_printf(err, "Hugging Face folder %s, %s, %d tensors",
                   name ? name + 1 : folder, arch_name(s->shape.arch), s->tensors);
    free(real);
    return text;
}

/* On rank 0; the source's files go over to the info, which the caller frees. */
static int make_info(struct import_job *im, struct ckpt_info *info, struct err *err)
{
    struct hf_source *s = &im->source;
    info->shape = s->shape;
    memcpy(info->dtype, im->dtype, sizeof info->dtype);
    info->files = s->files;
    info->file = s->file;
    s->files = 0;
    s->file = NULL;
    info->source = describe_source(s, im->o->folder, err);
    return info->source ? fill_layer_dtypes(im, info, err) : -1;
}

static int open_shard(struct import_job *im, int shard, struct err *err)
{
    if (shard == im->shard)
        return 0;
    if (im->fd >= 0)
        close(im->fd);
    im->shard = -1;
    im->fd = open(im->source.shard[shard], O_RDONLY | O_CLOEXEC);
    if (im->fd < 0)
        return err_set_errno(err, 1, "%s", im->source.shard[shard]);
    posix_fadvise(im->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    im->shard = shard;
    return 0;
}

/* One chunk from disk to the checkpoint, converted only if its dtype is not the
 * stack's. */
static int convert(struct import_job *im, const struct hf_chunks *k, struct err *err)
{
    struct tensor t = table_at(&im->source.shape, im->order.index[k->tensor]);
    const struct hf_place *p = &im->source.place[t.index];
    enum dtype to = im->dtype[t.role];
    int64_t size = (int64_t)dtype_bytes(p->dtype);
    if (open_shard(im, p->shard, err) ||
        file_pread(im->fd, im->source.shard[p->shard], im->raw, (size_t)(k->n * size),
                   p->offset + k->begin * size, err))
        return -1;
    int64_t found = nonfinite_count(p->dtype, im->raw, k->n);
    if (p->dtype != to) {
        dtype_to_f32(p->dtype, im->raw, k->n, im->wide);
        dtype_from_f32(to, im->wide, k->n, im->raw);
        int64_t after = nonfinite_count(to, im->raw, k->n);
        im->made[t.index] += after - found;
        found = after;
    }
    im->found[t.index] += found;
    return ckpt_write_raw(im->writer, CKPT_MODEL, t.role, t.layer < 0 ? 0 : t.layer,
                          k->begin, k->n, im->raw, err);
}

static int convert_share(struct import_job *im, struct err *err)
{
    struct hf_chunks k;
    struct progress progress;
    int rc = 0, ranks = comm_size(im->c);
    double done = 0;
    hf_chunks_begin(&k, im->order.elements, im->source.tensors, comm_rank(im->c),
                    ranks);
    progress_begin(&progress, im->log, "import", "GB", im->order.bytes, gigabyte);
    while (rc == 0 && hf_chunks_next(&k)) {
        rc = convert(im, &k, err);
        enum dtype t = im->source.place[im->order.index[k.tensor]].dtype;
        done += (double)k.n * (double)dtype_bytes(t) * ranks; /* all keep this pace */
        progress_at(&progress, done);
    }
    if (rc == 0)
        progress_end(&progress);
    else
        progress_stop(&progress);
    if (im->fd >= 0)
        close(im->fd);
    return rc;
}

static int prepare(struct import_job *im, struct err *err)
{
    struct hf_source *s = &im->source;
    int failed = 0;
    if (comm_root(im->c))
        failed = hf_source_read(s, im->o->folder, im->o->ignore_extra, im->log, err);
    if (comm_agree(im->c, failed, err) || hf_source_share(im->c, s, err))
        return -1;
    choose_dtypes(im);
    im->found = mem_array(s->tensors, sizeof *im->found, err);
    im->made = mem_array(s->tensors, sizeof *im->made, err);
    im->raw = mem_array(HF_CHUNK, sizeof(float), err);
    im->wide = mem_array(HF_CHUNK, sizeof(float), err);
    failed = !im->found || !im->made || !im->raw || !im->wide ||
             hf_order_init(&im->order, &s->shape, s->place, err);
    return comm_agree(im->c, failed, err);
}

static int create(struct import_job *im, struct err *err)
{
    struct ckpt_info info = {0};
    int failed = comm_root(im->c) && make_info(im, &info, err);
    int rc = comm_agree(im->c, failed, err);
    if (rc == 0) {
        im->writer = ckpt_create(im->c, im->o->output, false, im->o->force, &info, err);
        rc = im->writer ? 0 : -1;
    }
    ckpt_info_fini(&info);
    return rc;
}

static void fini(struct import_job *im)
{
    hf_source_fini(&im->source);
    hf_order_fini(&im->order);
    mem_free(im->found);
    mem_free(im->made);
    mem_free(im->raw);
    mem_free(im->wide);
}

int hf_import(struct comm *c, const struct log *log, const struct hf_import_options *o,
              struct err *err)
{
    struct import_job im = {.c = c, .log = log, .o = o, .fd = -1, .shard = -1};
    int rc = -1;
    if (prepare(&im, err) || create(&im, err))
        goto out;
    if (comm_agree(c, convert_share(&im, err), err)) {
        ckpt_abort(im.writer);
        goto out;
    }
    rc = ckpt_commit(im.writer, err);
    if (rc)
        goto out;
    comm_sum_i64(c, im.found, im.source.tensors);
    comm_sum_i64(c, im.made, im.source.tensors);
    nonfinite_warn(log, "import", &im.source.shape, im.found, im.made);
out:
    fini(&im);
    return rc;
}
