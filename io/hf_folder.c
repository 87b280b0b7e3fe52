/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* renameat2 */
#include "io/hf_folder.h"

#include "src/base/file.h"
#include "src/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { NAMES_TRIED = 100 };

struct content {
    bool any, config, folder;
};

static int look_into(const char *path, struct content *in, struct err *err)
{
    DIR *d = opendir(path);
    if (!d)
        return err_set_errno(err, 0, "%s: cannot list", path);
    *in = (struct content){0};
    struct dirent *e;
    struct stat st;
    while ((e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        in->any = true;
        in->config = in->config || strcmp(e->d_name, "config.json") == 0;
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
            S_ISDIR(st.st_mode))
            in->folder = true;
    }
    closedir(d);
    return 0;
}

/* May what lies at the path be replaced? --force must not cost somebody's home. */
static int check_old(const char *path, bool force, struct err *err)
{
    struct stat st;
    struct content in = {0};
    if (stat(path, &st))
        return errno == ENOENT ? 0 : err_set_errno(err, 0, "%s", path);
    if (!S_ISDIR(st.st_mode))
        return err_set(err, ERR_USAGE, "%s: expected a folder to write, found a file",
                       path);
    if (look_into(path, &in, err))
        return -1;
    if (!in.any)
        return 0;
    if (!force)
        return err_set(err, ERR_USAGE, "%s exists; --force replaces it", path);
    if (!in.config || in.folder)
        return err_set(err, ERR_USAGE,
                       "%s exists and is no model folder (%s); remove it yourself, or "
                       "choose another",
                       path, in.folder ? "there is a folder in it" : "no config.json");
    return 0;
}

static int check_space(const char *folder, int64_t bytes, struct err *err)
{
    struct statvfs fs;
    if (statvfs(folder, &fs) || fs.f_blocks == 0)
        return 0; /* a file system that does not say; writing will tell */
    double free_bytes = (double)(geteuid() == 0 ? fs.f_bfree : fs.f_bavail) *
                        (double)(fs.f_frsize ? fs.f_frsize : fs.f_bsize);
    if ((double)bytes > free_bytes)
        return err_set(err, ERR_IO,
                       "%s: no space: %.3f GB are needed on its file system, %.3f GB "
                       "are free",
                       folder, (double)bytes / 1e9, free_bytes / 1e9);
    return 0;
}

/* The path as it will be renamed: links resolved, no slash at the end. Owned. */
static char *settle(const char *path, struct err *err)
{
    char *real = realpath(path, NULL);
    if (real)
        return real;
    char *text = mem_printf(err, "%s", path);
    for (size_t n = text ? strlen(text) : 0; n > 1 && text[n - 1] == '/'; n--)
        text[n - 1] = '\0';
    return text;
}

static int make_temporary(struct hf_folder *f, struct err *err)
{
    for (int i = 0; i < NAMES_TRIED; i++) {
        f->temporary = mem_printf(err, "%s.tmp-%ld-%d", f->path, (long)getpid(), i);
        if (!f->temporary)
            return -1;
        if (mkdir(f->temporary, 0777) == 0)
            return 0;
        int e = errno;
        free(f->temporary);
        f->temporary = NULL;
        errno = e;
        if (e != EEXIST)
            break;
    }
    return err_set_errno(err, 0, "%s: cannot make a folder beside it", f->path);
}

int hf_folder_create(struct hf_folder *f, const char *path, bool force, int64_t bytes,
                     struct err *err)
{
    *f = (struct hf_folder){0};
    f->path = settle(path, err);
    if (f->path && check_old(f->path, force, err) == 0 && make_temporary(f, err) == 0 &&
        check_space(f->temporary, bytes, err) == 0)
        return 0;
    hf_folder_abort(f);
    return -1;
}

int hf_folder_put(const struct hf_folder *f, const char *name, const void *data,
                  size_t bytes, struct err *err)
{
    if (!name[0] || name[0] == '.' || strchr(name, '/'))
        return err_set(err, ERR_INPUT, "\"%.100s\" is not the name of a file", name);
    char *path = file_join(f->temporary, name, err);
    if (!path)
        return -1;
    int rc = -1, fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        err_set_errno(err, 0, "%s: cannot create", path);
    else
        rc = file_pwrite(fd, path, data, bytes, 0, err);
    if (rc == 0 && fsync(fd))
        rc = err_set_errno(err, 0, "%s: cannot sync", path);
    if (fd >= 0 && close(fd) && rc == 0)
        rc = err_set_errno(err, 0, "%s: cannot close", path);
    free(path);
    return rc;
}

/* For file systems that cannot swap: between two renames the old folder lies under
 * `aside`. */
static int swap_in_steps(const struct hf_folder *f, const char *aside)
{
    if (rename(f->path, aside))
        return -1;
    if (rename(f->temporary, f->path) == 0)
        return rename(aside, f->temporary);
    int e = errno;
    if (rename(aside, f->path) == 0)
        errno = e;
    return -1;
}

/* The finished folder takes the name; an old one ends under the temporary name. */
static int take_name(const struct hf_folder *f, bool *old, struct err *err)
{
    *old = false;
    if (rename(f->temporary, f->path) == 0)
        return 0;
    if (errno != ENOTEMPTY && errno != EEXIST)
        return err_set_errno(err, 0, "%s: cannot rename the finished folder to this",
                             f->path);
    char *aside = mem_printf(err, "%s-old", f->temporary);
    if (!aside)
        return -1;
    int rc = renameat2(AT_FDCWD, f->temporary, AT_FDCWD, f->path, RENAME_EXCHANGE);
    if (rc && (errno == EINVAL || errno == ENOSYS))
        rc = swap_in_steps(f, aside);
    if (rc)
        rc = err_set_errno(err, 0, "%s: cannot replace it", f->path);
    *old = rc == 0;
    free(aside);
    return rc;
}

static int sync_folder(const char *path, struct err *err)
{
    char *inside = file_join(path, "x", err);
    int rc = inside ? file_sync_folder_of(inside, err) : -1;
    free(inside);
    return rc;
}

int hf_folder_commit(struct hf_folder *f, const struct log *log, struct err *err)
{
    bool old = false;
    struct err of_old = {0};
    int rc = sync_folder(f->temporary, err);
    if (rc == 0)
        rc = take_name(f, &old, err);
    if (rc) {
        hf_folder_abort(f);
        return -1;
    }
    rc = file_sync_folder_of(f->path, err);
    if (old && file_remove_tree(f->temporary, &of_old))
        log_warning(log, "the old folder is replaced, but some of it stays: %s",
                    of_old.text);
    free(f->temporary);
    free(f->path);
    *f = (struct hf_folder){0};
    return rc;
}

void hf_folder_abort(struct hf_folder *f)
{
    struct err ignored = {0};
    if (f->temporary)
        file_remove_tree(f->temporary, &ignored);
    free(f->temporary);
    free(f->path);
    *f = (struct hf_folder){0};
}
