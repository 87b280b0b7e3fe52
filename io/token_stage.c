/* SPDX-License-Identifier: Apache-2.0 */
#include "io/token_stage.h"

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/rng.h"

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char suffix[] = ".h5", mark[] = ".tmp-";

static char *valid_name(const char *output, struct err *err)
{
    size_t n = strlen(output), cut = strlen(suffix);
    if (n > cut && strcmp(output + n - cut, suffix) == 0)
        n -= cut;
    return mem_printf(err, "%.*s.valid%s", (int)n, output, suffix);
}

static uint64_t random_part(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return rng_u64((uint64_t)t.tv_sec, (uint64_t)t.tv_nsec, (uint64_t)getpid());
}

char *token_stage_spill_of(const struct token_stage *s, int rank, struct err *err)
{
    return mem_printf(err, "%s-ids-%d", s->prefix, rank);
}

static int make_names(struct token_stage *s, int rank, uint64_t random, struct err *err)
{
    if (!(s->prefix = mem_printf(err, "%s%s%016llx", s->output[0], mark,
                                 (unsigned long long)random)) ||
        !(s->spill = token_stage_spill_of(s, rank, err)) ||
        !(s->failed = mem_printf(err, "%s-failed", s->prefix)))
        return -1;
    for (int i = 0; i < 1 + s->valid; i++)
        if (!(s->partial[i] =
                  mem_printf(err, "%s-%s", s->prefix, i ? "valid" : "train")))
            return -1;
    return 0;
}

static int check_output(const char *path, bool force, struct err *err)
{
    struct stat st;
    if (lstat(path, &st)) {
        if (errno == ENOENT)
            return 0;
        return err_set_errno(err, 0, "%s: cannot write there", path);
    }
    if (S_ISDIR(st.st_mode))
        return err_set(err, ERR_USAGE,
                       "%s: expected the name of a file, found a folder", path);
    if (!force)
        return err_set(err, ERR_USAGE, "%s: exists; --force replaces it", path);
    return 0;
}

/* Splits a path at its last '/': *name in path; the folder is owned (free). */
static char *folder_of(const char *path, const char **name, struct err *err)
{
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    if (!slash)
        return mem_printf(err, ".");
    return mem_printf(err, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

static int remove_leftovers(const char *output, struct err *err)
{
    const char *name;
    int failed = 0;
    char *folder = folder_of(output, &name, err);
    if (!folder)
        return -1;
    size_t n = strlen(name);
    DIR *dir = opendir(folder);
    if (!dir) {
        failed = err_set_errno(err, 0, "%s: cannot open the output's folder", folder);
        goto done;
    }
    for (struct dirent *e; (e = readdir(dir)) && !failed;) {
        if (strncmp(e->d_name, name, n) || strncmp(e->d_name + n, mark, strlen(mark)))
            continue;
        char *path = file_join(folder, e->d_name, err);
        failed = !path || (unlink(path) && errno != ENOENT &&
                           err_set_errno(err, 0,
                                         "%s: cannot remove it, left by an "
                                         "earlier run",
                                         path));
        free(path);
    }
    closedir(dir);
done:
    free(folder);
    return failed ? -1 : 0;
}

int token_stage_begin(struct token_stage *s, struct comm *c, const char *output,
                      bool valid, bool force, struct err *err)
{
    uint64_t random = random_part();
    int failed = 0;
    *s = (struct token_stage){.valid = valid};
    comm_bcast(c, &random, sizeof random, 0);
    if (!(s->output[0] = mem_printf(err, "%s", output)) ||
        (valid && !(s->output[1] = valid_name(output, err))) ||
        make_names(s, comm_rank(c), random, err))
        failed = 1;
    if (!failed && comm_root(c))
        failed = check_output(s->output[0], force, err) ||
                 (valid && check_output(s->output[1], force, err)) ||
                 remove_leftovers(output, err);
    if (comm_agree(c, failed, err)) {
        token_stage_end(s, c);
        return -1;
    }
    return 0;
}

static int rename_partials(struct token_stage *s, struct err *err)
{
    bool had_valid = s->valid && access(s->output[1], F_OK) == 0;
    if (s->valid && rename(s->partial[1], s->output[1]))
        return err_set_errno(err, 0, "%s: cannot rename to it", s->output[1]);
    if (rename(s->partial[0], s->output[0])) {
        err_set_errno(err, 0, "%s: cannot rename to it", s->output[0]);
        if (s->valid && !had_valid)
            unlink(s->output[1]);
        return -1;
    }
    return file_sync_folder_of(s->output[0], err);
}

int token_stage_publish(struct token_stage *s, struct comm *c, struct err *err)
{
    return comm_agree(c, comm_root(c) && rename_partials(s, err), err);
}

static void remove_and_free(char **path, bool remove)
{
    if (*path && remove)
        unlink(*path);
    free(*path);
    *path = NULL;
}

void token_stage_end(struct token_stage *s, struct comm *c)
{
    comm_barrier(c); /* nobody reads the others' spill files any more */
    remove_and_free(&s->spill, true);
    remove_and_free(&s->failed, true);
    for (int i = 0; i < 2; i++) {
        remove_and_free(&s->partial[i], comm_root(c));
        remove_and_free(&s->output[i], false);
    }
    remove_and_free(&s->prefix, false);
    comm_barrier(c); /* now nothing of this run is left, wherever it is looked for */
}
