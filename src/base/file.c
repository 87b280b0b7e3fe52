/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/file.h"

#include "src/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Linux moves at most 2^31 - 4096 bytes a call. Writes are cut finer: in calls of 1 MiB
 * and more ext4 fills the page cache with large folios, several times slower than cp's
 * calls of 128 KiB (measured on Linux 6 in a virtual machine). */
enum { CALL_BYTES_MAX = 1 << 30, WRITE_BYTES_MAX = 1 << 18 };

int file_pread(int fd, const char *path, void *data, size_t bytes, int64_t offset,
               struct err *err)
{
    char *to = data;
    size_t done = 0;
    while (done < bytes) {
        size_t ask = bytes - done < CALL_BYTES_MAX ? bytes - done : CALL_BYTES_MAX;
        ssize_t n = pread(fd, to + done, ask, (off_t)(offset + (int64_t)done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, 1, "%s: cannot read at byte %lld", path,
                                 (long long)offset + (long long)done);
        if (n == 0)
            return err_set(err, ERR_INPUT,
                           "%s: the file is cut: expected %zu bytes at byte %lld, it "
                           "ends after %zu of them",
                           path, bytes, (long long)offset, done);
        done += (size_t)n;
    }
    return 0;
}

int file_pwrite(int fd, const char *path, const void *data, size_t bytes,
                int64_t offset, struct err *err)
{
    const char *from = data;
    size_t done = 0;
    while (done < bytes) {
        size_t ask = bytes - done < WRITE_BYTES_MAX ? bytes - done : WRITE_BYTES_MAX;
        ssize_t n = pwrite(fd, from + done, ask, (off_t)(offset + (int64_t)done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0) /* no progress and no reason given: do not spin */
            errno = EIO;
        if (n <= 0)
            return err_set_errno(err, 0, "%s: cannot write at byte %lld", path,
                                 (long long)offset + (long long)done);
        done += (size_t)n;
    }
    return 0;
}

/* Reads to the end, so that pipes and /dev/stdin work too. */
static char *read_all(int fd, const char *path, size_t limit, size_t *bytes,
                      struct err *err)
{
    size_t used = 0, room = 1 << 16;
    char *text = malloc(room + 1);
    while (text) {
        ssize_t n = read(fd, text + used, room - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_set_errno(err, 1, "%s: cannot read", path);
            break;
        }
        if (n == 0) {
            text[used] = '\0';
            *bytes = used;
            return text;
        }
        used += (size_t)n;
        if (used > limit) {
            err_set(err, ERR_INPUT, "%s: expected at most %zu bytes, found more", path,
                    limit);
            break;
        }
        if (used == room) {
            room *= 2;
            char *grown = realloc(text, room + 1);
            if (!grown) {
                err_set(err, ERR_OTHER, "%s: no memory for %zu bytes", path, room);
                break;
            }
            text = grown;
        }
    }
    if (!text)
        err_set(err, ERR_OTHER, "%s: no memory", path);
    free(text);
    return NULL;
}

char *file_read(const char *path, size_t limit, size_t *bytes, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        err_set_errno(err, 1, "%s", path);
        return NULL;
    }
    char *text = read_all(fd, path, limit, bytes, err);
    close(fd);
    return text;
}

static int write_synced(const char *path, const void *data, size_t bytes,
                        struct err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return err_set_errno(err, 0, "%s: cannot create", path);
    int rc = file_pwrite(fd, path, data, bytes, 0, err);
    if (rc == 0 && fsync(fd) < 0)
        rc = err_set_errno(err, 0, "%s: cannot sync", path);
    if (close(fd) < 0 && rc == 0)
        rc = err_set_errno(err, 0, "%s: cannot close", path);
    if (rc < 0)
        unlink(path);
    return rc;
}

int file_write_atomic(const char *path, const void *data, size_t bytes, struct err *err)
{
    char *temporary = mem_printf(err, "%s.tmp-%ld", path, (long)getpid());
    if (!temporary)
        return -1;
    unlink(temporary); /* of a dead process with our number */
    int rc = write_synced(temporary, data, bytes, err);
    if (rc == 0 && rename(temporary, path) < 0) {
        rc = err_set_errno(err, 0, "%s: cannot rename the finished file to this name",
                           path);
        unlink(temporary);
    }
    if (rc == 0)
        rc = file_sync_folder_of(path, err);
    free(temporary);
    return rc;
}

int file_sync_folder_of(const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    char *folder =
        slash ? mem_printf(err, "%.*s", n ? (int)n : 1, path) : mem_printf(err, ".");
    if (!folder)
        return -1;
    int rc = 0, fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* EINVAL: a file system whose folders need no sync */
    if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL))
        rc = err_set_errno(err, 0, "%s: cannot sync the folder", folder);
    if (fd >= 0)
        close(fd);
    free(folder);
    return rc;
}

static int make_folder(const char *path, struct err *err)
{
    if (mkdir(path, 0777) == 0)
        return 0;
    int e = errno;
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) /* whatever mkdir said */
        return 0;
    errno = e;
    return err_set_errno(err, 0, "%s: cannot make the folder", path);
}

int file_make_folders(const char *path, struct err *err)
{
    char *part = mem_printf(err, "%s", path);
    if (!part)
        return -1;
    int rc = 0;
    for (char *p = part + 1; rc == 0 && *part && *p; p++)
        if (*p == '/' && p[-1] != '/') {
            *p = '\0';
            rc = make_folder(part, err);
            *p = '/';
        }
    if (rc == 0)
        rc = make_folder(part, err);
    free(part);
    return rc;
}

static int remove_entries(int fd, const char *path, struct err *err);

static int remove_at(int folder, const char *name, const char *path, struct err *err)
{
    if (unlinkat(folder, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM) /* Linux says the first, POSIX the second */
        return err_set_errno(err, 0, "%s: cannot remove", path);
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, 0, "%s: cannot remove", path);
    if (remove_entries(fd, path, err) < 0)
        return -1;
    if (unlinkat(folder, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return err_set_errno(err, 0, "%s: cannot remove", path);
    return 0;
}

/* Takes fd. */
static int remove_entries(int fd, const char *path, struct err *err)
{
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return err_set_errno(err, 0, "%s: cannot list", path);
    }
    int rc = 0;
    struct dirent *e;
    while (rc == 0 && (e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        char *child = mem_printf(err, "%s/%s", path, e->d_name);
        rc = child ? remove_at(dirfd(d), e->d_name, child, err) : -1;
        free(child);
    }
    closedir(d);
    return rc;
}

int file_remove_tree(const char *path, struct err *err)
{
    return remove_at(AT_FDCWD, path, path, err);
}

char *file_join(const char *dir, const char *name, struct err *err)
{
    size_t n = strlen(dir);
    if (name[0] == '/' || n == 0)
        return mem_printf(err, "%s", name);
    return mem_printf(err, "%s%s%s", dir, dir[n - 1] == '/' ? "" : "/", name);
}
