/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/checkpoints.h"

#include "src/base/file.h"
#include "src/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char prefix[] = "step-";
enum { DIGITS = 8 };

/* The step that a folder's name says, -1 for another name. */
static int64_t step_of(const char *name)
{
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return -1;
    const char *digits = name + sizeof prefix - 1;
    size_t n = strspn(digits, "0123456789");
    if (n < DIGITS || n > 18 || digits[n] != '\0')
        return -1;
    return strtoll(digits, NULL, 10);
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

int checkpoints_list(struct checkpoints *list, const char *dir, struct err *err)
{
    *list = (struct checkpoints){0};
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT ? 0 : err_set_errno(err, 1, "%s: cannot list", dir);
    int room = 0;
    for (struct dirent *e; (e = readdir(d));) {
        int64_t step = step_of(e->d_name);
        if (step < 0)
            continue;
        if (list->n == room) {
            room = 2 * room + 16;
            int64_t *more = realloc(list->step, (size_t)room * sizeof *more);
            if (!more) {
                closedir(d);
                checkpoints_fini(list);
                return err_set(err, ERR_OTHER, "%s: no memory to list it", dir);
            }
            list->step = more;
        }
        list->step[list->n++] = step;
    }
    closedir(d);
    if (list->n)
        qsort(list->step, (size_t)list->n, sizeof *list->step, newest_first);
    return 0;
}

void checkpoints_fini(struct checkpoints *list)
{
    free(list->step);
    *list = (struct checkpoints){0};
}

char *checkpoints_path(const char *dir, int64_t step, struct err *err)
{
    return mem_printf(err, "%s/%s%0*" PRId64, dir, prefix, DIGITS, step);
}

int checkpoints_link(const char *dir, const char *name, int64_t step, struct err *err)
{
    char target[64];
    snprintf(target, sizeof target, "%s%0*" PRId64, prefix, DIGITS, step);
    char *link = mem_printf(err, "%s/%s", dir, name);
    char *fresh = mem_printf(err, "%s/%s.tmp-%ld", dir, name, (long)getpid());
    int failed = !link || !fresh;
    if (!failed) {
        unlink(fresh);
        if (symlink(target, fresh) || rename(fresh, link)) {
            failed = err_set_errno(err, 0, "%s: cannot point it at %s", link, target);
            unlink(fresh);
        } else {
            failed = file_sync_folder_of(link, err);
        }
    }
    free(link);
    free(fresh);
    return failed ? -1 : 0;
}

static int remove_step(const char *dir, int64_t step, struct err *err)
{
    char *path = checkpoints_path(dir, step, err);
    char *gone = path ? mem_printf(err, "%s.tmp-delete", path) : NULL;
    int failed = !gone;
    if (!failed && rename(path, gone))
        failed = err_set_errno(err, 0, "%s: cannot delete", path);
    if (!failed)
        failed = file_remove_tree(gone, err);
    free(path);
    free(gone);
    return failed ? -1 : 0;
}

int checkpoints_surplus(struct checkpoints *list, const char *dir,
                        const struct retention *r, struct err *err)
{
    *list = (struct checkpoints){0};
    if (r->keep == 0)
        return 0;
    if (checkpoints_list(list, dir, err))
        return -1;
    int past = 0, n = 0; /* checkpoints up to the newest so far; surplus ones */
    for (int i = 0; i < list->n; i++) {
        int64_t step = list->step[i];
        bool forever = r->keep_every > 0 && step % r->keep_every == 0;
        if (step <= r->newest && past++ >= r->keep && !forever && step != r->best)
            list->step[n++] = step;
    }
    list->n = n;
    return 0;
}

int checkpoints_remove(const char *dir, const struct checkpoints *list, struct err *err)
{
    for (int i = list->n - 1; i >= 0; i--)
        if (remove_step(dir, list->step[i], err))
            return -1;
    return 0;
}

int checkpoints_clean(const char *dir, const struct log *log, struct err *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT ? 0 : err_set_errno(err, 0, "%s: cannot list", dir);
    int failed = 0;
    for (struct dirent *e; !failed && (e = readdir(d));) {
        if (!strstr(e->d_name, ".tmp-"))
            continue;
        char *path = file_join(dir, e->d_name, err);
        failed = !path || file_remove_tree(path, err);
        if (!failed)
            log_line(log, "removed %s, left by a save that was killed", path);
        free(path);
    }
    closedir(d);
    return failed ? -1 : 0;
}
