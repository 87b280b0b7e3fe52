/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "io/ckpt_parts.h"

#include "src/base/check.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAMES_TRIED = 10000 };

struct ckpt_writer {
    struct comm *c;
    char *path;      /* of the file or the folder */
    char *temporary; /* rank 0: the folder's name until commit, or NULL */
    struct sealed_writer *sealed;
    struct ckpt_plan plan;
    enum dtype dtype[ROLES];
    void *buffer; /* CKPT_CONVERT_ELEMENTS of 2 bytes, made at need */
};

static void writer_free(struct ckpt_writer *w)
{
    struct err ignored;
    if (w->temporary)
        file_remove_tree(w->temporary, &ignored);
    ckpt_plan_fini(&w->plan);
    mem_free(w->buffer);
    free(w->temporary);
    free(w->path);
    free(w);
}

/* PATH.tmp-PID-N, a new folder. */
static int make_temporary(struct ckpt_writer *w, bool replace, struct err *err)
{
    struct stat st;
    if (lstat(w->path, &st) == 0 && !S_ISDIR(st.st_mode))
        return err_set(err, ERR_USAGE, "%s: exists and is not a folder", w->path);
    if (lstat(w->path, &st) == 0 && !replace)
        return err_set(err, ERR_USAGE, "%s: exists; --force replaces it", w->path);
    for (int i = 0; i < NAMES_TRIED; i++) {
        char *name = mem_printf(err, "%s.tmp-%ld-%d", w->path, (long)getpid(), i);
        if (!name)
            return -1;
        if (mkdir(name, 0777) == 0) {
            w->temporary = name;
            return 0;
        }
        int e = errno;
        free(name);
        errno = e;
        if (e != EEXIST)
            return err_set_errno(err, 0, "%s: cannot create", w->path);
    }
    return err_set(err, ERR_IO, "%s: %d names %s.tmp-* are taken: remove them", w->path,
                   NAMES_TRIED, w->path);
}

/* Shape and dtypes are rank 0's; the others need them to find arrays. */
static int share_info(struct ckpt_writer *w, const struct ckpt_info *info,
                      struct err *err)
{
    struct ckpt_info seen = {0};
    if (comm_root(w->c)) {
        seen.shape = info->shape;
        seen.optimizer = info->optimizer;
        memcpy(seen.dtype, info->dtype, sizeof seen.dtype);
    }
    comm_bcast(w->c, &seen.shape, sizeof seen.shape, 0);
    comm_bcast(w->c, &seen.optimizer, sizeof seen.optimizer, 0);
    comm_bcast(w->c, seen.dtype, sizeof seen.dtype, 0);
    memcpy(w->dtype, seen.dtype, sizeof w->dtype);
    return ckpt_plan_init(&w->plan, comm_root(w->c) ? info : &seen, err);
}

/* The tokenizer's files are rank 0's to write. */
static int write_files(struct ckpt_writer *w, const struct ckpt_info *info,
                       struct err *err)
{
    for (int i = 0; i < info->files; i++)
        if (sealed_write(w->sealed, w->plan.files + i, 0, 0, info->file[i].data,
                         info->file[i].bytes, err) < 0)
            return -1;
    return 0;
}

/* Name of the file to write, owned, the same on all ranks; NULL with err set. */
static char *file_name(struct ckpt_writer *w, bool folder, bool replace,
                       struct err *err)
{
    int rc = 0;
    char *name = NULL;
    if (comm_root(w->c) && folder)
        rc = make_temporary(w, replace, err);
    if (comm_root(w->c) && rc == 0)
        name = folder ? file_join(w->temporary, "state.h5", err)
                      : mem_printf(err, "%s", w->path);
    if (comm_agree(w->c, comm_root(w->c) && !name, err) < 0)
        return NULL;
    comm_bcast_string(w->c, &name, 0);
    return name;
}

static int create(struct ckpt_writer *w, bool folder, bool replace,
                  const struct ckpt_info *info, struct err *err)
{
    struct ckpt_attrs attrs = {0};
    bool root = comm_root(w->c);
    int rc = share_info(w, info, err);
    if (rc == 0 && root)
        rc = ckpt_attrs_init(&attrs, info, 0, err);
    char *name = NULL;
    if (comm_agree(w->c, rc < 0, err) == 0)
        name = file_name(w, folder, replace, err);
    if (name)
        w->sealed = sealed_create(w->c, name, replace, w->plan.array, w->plan.arrays,
                                  attrs.attr, attrs.n, err);
    free(name);
    ckpt_attrs_fini(&attrs);
    if (!w->sealed)
        return -1;
    rc = root ? write_files(w, info, err) : 0;
    if (comm_agree(w->c, rc < 0, err) < 0) {
        sealed_abort(w->sealed);
        return -1;
    }
    return 0;
}

struct ckpt_writer *ckpt_create(struct comm *c, const char *path, bool folder,
                                bool replace, const struct ckpt_info *info,
                                struct err *err)
{
    struct ckpt_writer *w = calloc(1, sizeof *w);
    CHECK(w, "no memory for a writer");
    w->c = c;
    w->path = strdup(path);
    CHECK(w->path, "no memory for a path");
    if (create(w, folder, replace, info, err) < 0) {
        writer_free(w);
        return NULL;
    }
    return w;
}

int ckpt_write_raw(struct ckpt_writer *w, enum ckpt_set set, enum tensor_role role,
                   int layer, int64_t begin, int64_t n, const void *src,
                   struct err *err)
{
    int array = w->plan.index[set][role];
    CHECK(array >= 0, "the checkpoint has no %s", role_name(role));
    size_t size = dtype_bytes(set == CKPT_MODEL ? w->dtype[role] : DTYPE_F32);
    return sealed_write(w->sealed, array, role_per_layer(role) ? layer : 0,
                        begin * (int64_t)size, src, (size_t)n * size, err);
}

int ckpt_write(struct ckpt_writer *w, enum ckpt_set set, enum tensor_role role,
               int layer, int64_t begin, int64_t n, const float *src, struct err *err)
{
    enum dtype t = set == CKPT_MODEL ? w->dtype[role] : DTYPE_F32;
    if (t == DTYPE_F32 || !src)
        return ckpt_write_raw(w, set, role, layer, begin, n, src, err);
    if (!w->buffer)
        w->buffer = mem_array(CKPT_CONVERT_ELEMENTS, sizeof(uint16_t), err);
    if (!w->buffer)
        return -1;
    for (int64_t done = 0, m; done < n; done += m) {
        m = n - done < CKPT_CONVERT_ELEMENTS ? n - done : CKPT_CONVERT_ELEMENTS;
        dtype_from_f32(t, src + done, m, w->buffer);
        if (ckpt_write_raw(w, set, role, layer, begin + done, m, w->buffer, err) < 0)
            return -1;
    }
    return 0;
}

/* Old and new change places in one step where the file system can; else the old one
 * steps aside first. */
static int replace_folder(const char *temporary, const char *path, struct err *err)
{
    struct stat st;
    if (lstat(path, &st) < 0) {
        if (rename(temporary, path) < 0)
            return err_set_errno(err, 0, "%s: cannot rename %s to it", path, temporary);
        return 0;
    }
    if (renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_EXCHANGE) == 0)
        return file_remove_tree(temporary, err);
    char *aside = mem_printf(err, "%s.old", temporary);
    if (!aside)
        return -1;
    int rc = 0;
    if (rename(path, aside) < 0)
        rc = err_set_errno(err, 0, "%s: cannot rename it to %s", path, aside);
    else if (rename(temporary, path) < 0) {
        rc = err_set_errno(err, 0, "%s: cannot rename %s to it", path, temporary);
        rename(aside, path);
    } else
        rc = file_remove_tree(aside, err);
    free(aside);
    return rc;
}

static int commit_folder(struct ckpt_writer *w, struct err *err)
{
    if (!w->temporary)
        return 0;
    if (replace_folder(w->temporary, w->path, err) < 0)
        return -1;
    free(w->temporary);
    w->temporary = NULL;
    return file_sync_folder_of(w->path, err);
}

int ckpt_commit(struct ckpt_writer *w, struct err *err)
{
    int rc = sealed_commit(w->sealed, err);
    if (rc == 0)
        rc = comm_agree(w->c, commit_folder(w, err) < 0, err);
    writer_free(w);
    return rc;
}

void ckpt_abort(struct ckpt_writer *w)
{
    sealed_abort(w->sealed);
    writer_free(w);
}
