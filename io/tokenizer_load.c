/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tokenizer_load.h"

#include "io/spm_model.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char model_file[] = "tokenizer.model";

/* HDF5's signature lies at 0, 512, 1024, 2048, ...: behind a user block. */
static int is_checkpoint(const char *path, bool *checkpoint, struct err *err)
{
    static const char signature[8] = "\211HDF\r\n\032\n";
    struct stat st;
    char bytes[sizeof signature];
    if (stat(path, &st))
        return err_set_errno(err, 1, "%s: cannot open", path);
    *checkpoint = S_ISDIR(st.st_mode);
    if (*checkpoint)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, 1, "%s: cannot open", path);
    for (off_t at = 0; at <= 65536 && !*checkpoint; at = at ? 2 * at : 512)
        *checkpoint = pread(fd, bytes, sizeof bytes, at) == (ssize_t)sizeof bytes &&
                      memcmp(bytes, signature, sizeof bytes) == 0;
    close(fd);
    return 0;
}

struct tokenizer *tokenizer_of_files(const struct ckpt_info *info, const char *name,
                                     struct err *err)
{
    const struct ckpt_file *f = ckpt_info_file(info, model_file);
    struct added_tokens added;
    if (!f) {
        err_set(err, ERR_INPUT, "%s: the checkpoint has no %s", name, model_file);
        return NULL;
    }
    if (added_tokens_read(&added, info->file, info->files,
                          spm_model_pieces(f->data, f->bytes), info->shape.vocab,
                          err)) {
        err_prefix(err, "%s", name);
        return NULL;
    }
    struct tokenizer *t =
        tokenizer_create_added(f->data, f->bytes, added.token, added.n, name, err);
    added_tokens_fini(&added);
    return t;
}

static struct tokenizer *from_checkpoint(struct comm *c, const char *path,
                                         struct err *err)
{
    struct ckpt *k = ckpt_open(c, path, err);
    if (!k)
        return NULL;
    struct tokenizer *t = NULL;
    if (ckpt_info_file(ckpt_info(k), model_file))
        t = tokenizer_of_files(ckpt_info(k), path, err);
    else
        err_set(err, ERR_INPUT,
                "%s: the checkpoint has no %s; give one with --tokenizer", path,
                model_file);
    ckpt_close(k);
    return t;
}

static struct tokenizer *from_model(struct comm *c, const char *path, struct err *err)
{
    struct tokenizer *t = NULL;
    size_t bytes = 0;
    char *model = NULL;
    if (comm_root(c))
        model = file_read(path, SPM_MODEL_BYTES, &bytes, err);
    if (comm_agree(c, comm_root(c) && !model, err))
        return NULL;
    comm_bcast(c, &bytes, sizeof bytes, 0);
    if (!comm_root(c))
        model = mem_array((int64_t)bytes, 1, err);
    if (comm_agree(c, !model, err)) {
        free(model);
        return NULL;
    }
    comm_bcast(c, model, bytes, 0);
    t = tokenizer_create(model, bytes, path, err);
    free(model);
    return t;
}

struct tokenizer *tokenizer_load(struct comm *c, const char *path, struct err *err)
{
    bool checkpoint = false;
    int failed = comm_root(c) ? is_checkpoint(path, &checkpoint, err) : 0;
    if (comm_agree(c, failed, err))
        return NULL;
    comm_bcast(c, &checkpoint, sizeof checkpoint, 0);
    struct tokenizer *t =
        checkpoint ? from_checkpoint(c, path, err) : from_model(c, path, err);
    if (comm_agree(c, !t, err)) {
        tokenizer_destroy(t);
        return NULL;
    }
    return t;
}
