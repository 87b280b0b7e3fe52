/* SPDX-License-Identifier: Apache-2.0 */
#include "io/input_plan.h"

#include "src/base/mem.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAMES_BYTES = 2000 };

/* Can this rank read the file, and how long is it? */
static int probe(const char *path, int64_t *bytes, struct err *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), failed = 0;
    if (fd < 0)
        return err_set_errno(err, 1, "%s: cannot open", path);
    if (fstat(fd, &st))
        failed = err_set_errno(err, 1, "%s: cannot stat", path);
    else if (!S_ISREG(st.st_mode))
        failed = err_set(err, ERR_INPUT, "%s: expected a regular file", path);
    else
        *bytes = st.st_size;
    close(fd);
    return failed;
}

static int plan_file(struct input_plan *p, int file, int64_t root_bytes,
                     enum text_rule rule, int64_t chunk_bytes, struct err *err)
{
    const char *path = p->files[file];
    if (p->file_bytes[file] != root_bytes)
        return err_set(err, ERR_INPUT,
                       "%s: rank 0 sees %lld bytes, this rank %lld; all must see the "
                       "same file",
                       path, (long long)root_bytes, (long long)p->file_bytes[file]);
    if (rule == TEXT_FILE && root_bytes > TEXT_DOCUMENT_BYTES)
        return err_set(err, ERR_INPUT,
                       "%s:1: expected documents of at most 64 MiB, found %lld bytes",
                       path, (long long)root_bytes);
    p->bytes += root_bytes;
    return text_chunks_append(&p->chunk, &p->chunks, file, root_bytes, rule,
                              chunk_bytes ? chunk_bytes : TEXT_CHUNK_BYTES, err);
}

int input_plan_init(struct input_plan *p, struct comm *c, const char *const *files,
                    int files_n, const enum text_rule *rule, int64_t chunk_bytes,
                    struct err *err)
{
    *p = (struct input_plan){.files = files, .files_n = files_n};
    size_t bytes = (size_t)files_n * sizeof *p->file_bytes;
    int64_t *root_bytes = mem_array(files_n, sizeof *root_bytes, err);
    int failed = !root_bytes ||
                 !(p->file_bytes = mem_array(files_n, sizeof *p->file_bytes, err));
    for (int i = 0; i < files_n && !failed; i++)
        failed = probe(files[i], &p->file_bytes[i], err);
    if (!(failed = comm_agree(c, failed, err))) {
        memcpy(root_bytes, p->file_bytes, bytes);
        comm_bcast(c, root_bytes, bytes, 0);
        for (int i = 0; i < files_n && !failed; i++)
            failed = plan_file(p, i, root_bytes[i], rule[i], chunk_bytes, err);
        failed = comm_agree(c, failed, err);
    }
    mem_free(root_bytes);
    if (failed)
        input_plan_fini(p);
    return failed ? -1 : 0;
}

void input_plan_fini(struct input_plan *p)
{
    mem_free(p->file_bytes);
    free(p->chunk);
    *p = (struct input_plan){0};
}

char *input_names(const char *const *files, int files_n, struct err *err)
{
    char *all = mem_printf(err, "%s", "");
    for (int i = 0; i < files_n && all; i++) {
        const char *slash = strrchr(files[i], '/');
        const char *name = slash ? slash + 1 : files[i];
        bool cut = strlen(all) + strlen(name) > NAMES_BYTES;
        char *more = cut ? mem_printf(err, "%s, ... (%d files)", all, files_n)
                         : mem_printf(err, "%s%s%s", all, i ? ", " : "", name);
        free(all);
        all = more;
        if (cut)
            break;
    }
    return all;
}
