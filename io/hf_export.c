/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_export.h"

#include "io/ckpt.h"
#include "io/hf_chat.h"
#include "io/hf_chunks.h"
#include "io/hf_config.h"
#include "io/hf_folder.h"
#include "io/hf_layout.h"
#include "io/hf_nonfinite.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/progress.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double gigabyte = 1e9;
enum { FILE_ROOM = 64, SMALL_FILES_BYTES = 1 << 20 };

struct export_job {
    struct comm *c;
    const struct log *log;
    const struct hf_export_options *o;
    struct ckpt *ckpt;
    const struct ckpt_info *info;
    enum dtype *dtype; /* of each tensor, as it will be written */
    struct hf_layout layout;
    struct hf_order order;
    struct hf_folder folder; /* on rank 0 */
    char *temporary;         /* its path, on all */
    int64_t *found, *made;   /* values not finite, by tensor; made: by narrowing */
    int fd, shard;           /* the file that is open; -1 */
    char *path;              /* its name */
    unsigned char *raw;
    float *wide;
};

static int choose_dtypes(struct export_job *ex, struct err *err)
{
    const struct ckpt_info *info = ex->info;
    int n = table_count(&info->shape);
    ex->dtype = mem_array(n, sizeof *ex->dtype, err);
    if (!ex->dtype)
        return -1;
    for (int i = 0; i < n; i++) {
        struct tensor t = table_at(&info->shape, i);
        const enum dtype *own = info->layer_dtype[t.role];
        ex->dtype[i] = !ex->o->keep          ? ex->o->dtype
                       : own && t.layer >= 0 ? own[t.layer]
                                             : info->dtype[t.role];
    }
    return 0;
}

static int prepare(struct export_job *ex, struct err *err)
{
    const struct model_shape *s = &ex->info->shape;
    int n = table_count(s);
    ex->found = mem_array(n, sizeof *ex->found, err);
    ex->made = mem_array(n, sizeof *ex->made, err);
    ex->raw = mem_array(HF_CHUNK, sizeof(float), err);
    ex->wide = mem_array(HF_CHUNK, sizeof(float), err);
    int failed = !ex->found || !ex->made || !ex->raw || !ex->wide ||
                 choose_dtypes(ex, err) ||
                 hf_layout_init(&ex->layout, s, ex->dtype, ex->o->shard_bytes, err) ||
                 hf_order_init(&ex->order, s, ex->layout.place, err);
    return comm_agree(ex->c, failed, err);
}

static int put_config(struct export_job *ex, struct err *err)
{
    const struct ckpt_file *f = ckpt_info_file(ex->info, "config.json");
    int n = table_count(&ex->info->shape);
    bool uniform = true;
    for (int i = 1; i < n; i++)
        uniform = uniform && ex->dtype[i] == ex->dtype[0];
    char *text = hf_config_write(f ? (const char *)f->data : NULL, f ? f->bytes : 0,
                                 &ex->info->shape, uniform ? &ex->dtype[0] : NULL, err);
    if (!text)
        return -1;
    int rc = hf_folder_put(&ex->folder, "config.json", text, strlen(text), err);
    free(text);
    return rc;
}

/* The checkpoint's file f (NULL: it has none), with what training has learnt. */
static int put_file(struct export_job *ex, const char *name, const struct ckpt_file *f,
                    struct err *err)
{
    char *text;
    if (hf_chat_file(ex->info, name, &text, err))
        return -1;
    if (!text && !f)
        return 0;
    int rc = hf_folder_put(&ex->folder, name, text ? text : (const char *)f->data,
                           text ? strlen(text) : f->bytes, err);
    free(text);
    return rc;
}

/* Everything but the weights: rank 0. */
static int put_small_files(struct export_job *ex, struct err *err)
{
    char name[FILE_ROOM];
    if (put_config(ex, err))
        return -1;
    for (int i = 0; i < ex->info->files; i++) {
        const struct ckpt_file *f = &ex->info->file[i];
        if (strcmp(f->name, "config.json") != 0 && put_file(ex, f->name, f, err))
            return -1;
    }
    const char *missing = hf_chat_missing(ex->info);
    if (missing && put_file(ex, missing, NULL, err))
        return -1;
    for (int i = 0; i < ex->layout.shards; i++) {
        const struct hf_shard *shard = &ex->layout.shard[i];
        hf_layout_file(&ex->layout, i, name, sizeof name);
        if (hf_folder_put(&ex->folder, name, shard->header, shard->header_bytes, err))
            return -1;
    }
    if (ex->layout.shards == 1)
        return 0;
    char *index = hf_layout_index(&ex->layout, err);
    int rc = index ? hf_folder_put(&ex->folder, "model.safetensors.index.json", index,
                                   strlen(index), err)
                   : -1;
    free(index);
    return rc;
}

static int create(struct export_job *ex, struct err *err)
{
    int failed = 0;
    if (comm_root(ex->c)) {
        int64_t bytes = ex->layout.tensor_bytes + SMALL_FILES_BYTES;
        for (int i = 0; i < ex->info->files; i++)
            bytes += (int64_t)ex->info->file[i].bytes;
        failed =
            hf_folder_create(&ex->folder, ex->o->output, ex->o->force, bytes, err) ||
            put_small_files(ex, err);
        ex->temporary = ex->folder.temporary;
    }
    if (comm_agree(ex->c, failed, err))
        return -1;
    comm_bcast_string(ex->c, &ex->temporary, 0);
    return 0;
}

static int close_shard(struct export_job *ex, struct err *err)
{
    int rc = 0;
    if (ex->fd < 0)
        return 0;
    if (fsync(ex->fd))
        rc = err_set_errno(err, 0, "%s: cannot sync", ex->path);
    if (close(ex->fd) && rc == 0)
        rc = err_set_errno(err, 0, "%s: cannot close", ex->path);
    free(ex->path);
    ex->path = NULL;
    ex->fd = ex->shard = -1;
    return rc;
}

static int open_shard(struct export_job *ex, int shard, struct err *err)
{
    char name[FILE_ROOM];
    if (shard == ex->shard)
        return 0;
    if (close_shard(ex, err))
        return -1;
    hf_layout_file(&ex->layout, shard, name, sizeof name);
    ex->path = file_join(ex->temporary, name, err);
    if (!ex->path)
        return -1;
    ex->fd = open(ex->path, O_WRONLY | O_CLOEXEC);
    if (ex->fd < 0) {
        err_set_errno(err, 0, "%s: cannot open", ex->path);
        free(ex->path);
        ex->path = NULL;
        return -1;
    }
    ex->shard = shard;
    return 0;
}

/* One chunk from the checkpoint to its file, converted only if the dtypes differ. */
static int convert(struct export_job *ex, const struct hf_chunks *k, struct err *err)
{
    struct tensor t = table_at(&ex->info->shape, ex->order.index[k->tensor]);
    const struct hf_place *p = &ex->layout.place[t.index];
    enum dtype from = ex->info->dtype[t.role];
    int64_t size = (int64_t)dtype_bytes(p->dtype);
    if (ckpt_read_raw(ex->ckpt, CKPT_MODEL, t.role, t.layer, k->begin, k->n, ex->raw,
                      err))
        return -1;
    int64_t found = nonfinite_count(from, ex->raw, k->n);
    if (from != p->dtype) {
        dtype_to_f32(from, ex->raw, k->n, ex->wide);
        dtype_from_f32(p->dtype, ex->wide, k->n, ex->raw);
        int64_t after = nonfinite_count(p->dtype, ex->raw, k->n);
        ex->made[t.index] += after - found;
        found = after;
    }
    ex->found[t.index] += found;
    if (open_shard(ex, p->shard, err))
        return -1;
    return file_pwrite(ex->fd, ex->path, ex->raw, (size_t)(k->n * size),
                       p->offset + k->begin * size, err);
}

static int convert_share(struct export_job *ex, struct err *err)
{
    struct hf_chunks k;
    struct progress progress;
    struct err of_close;
    int rc = 0, ranks = comm_size(ex->c);
    double done = 0;
    hf_chunks_begin(&k, ex->order.elements, ex->order.tensors, comm_rank(ex->c), ranks);
    progress_begin(&progress, ex->log, "export", "GB", ex->order.bytes, gigabyte);
    while (rc == 0 && hf_chunks_next(&k)) {
        rc = convert(ex, &k, err);
        enum dtype t = ex->layout.place[ex->order.index[k.tensor]].dtype;
        done += (double)k.n * (double)dtype_bytes(t) * ranks; /* all keep this pace */
        progress_at(&progress, done);
    }
    if (close_shard(ex, &of_close) && rc == 0) {
        *err = of_close;
        rc = -1;
    }
    if (rc == 0)
        progress_end(&progress);
    else
        progress_stop(&progress);
    return rc;
}

static void fini(struct export_job *ex)
{
    if (comm_root(ex->c))
        hf_folder_abort(&ex->folder); /* nothing left of it after a commit */
    else
        free(ex->temporary);
    hf_layout_fini(&ex->layout);
    hf_order_fini(&ex->order);
    mem_free(ex->dtype);
    mem_free(ex->found);
    mem_free(ex->made);
    mem_free(ex->raw);
    mem_free(ex->wide);
    ckpt_close(ex->ckpt);
}

int hf_export(struct comm *c, const struct log *log, const struct hf_export_options *o,
              struct err *err)
{
    struct export_job ex = {.c = c, .log = log, .o = o, .fd = -1, .shard = -1};
    int rc = -1;
    ex.ckpt = ckpt_open(c, o->checkpoint, err);
    if (!ex.ckpt)
        return -1;
    ex.info = ckpt_info(ex.ckpt);
    if (prepare(&ex, err) || create(&ex, err) ||
        comm_agree(c, convert_share(&ex, err), err))
        goto out;
    int failed = comm_root(c) && hf_folder_commit(&ex.folder, log, err);
    rc = comm_agree(c, failed, err);
    if (rc)
        goto out;
    comm_sum_i64(c, ex.found, ex.order.tensors);
    comm_sum_i64(c, ex.made, ex.order.tensors);
    nonfinite_warn(log, "export", &ex.info->shape, ex.found, ex.made);
out:
    fini(&ex);
    return rc;
}
