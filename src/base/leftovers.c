/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/leftovers.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Of a file, or of the files in a folder, in bytes. */
static double size_of(int folder, const char *name)
{
    struct stat st;
    double bytes = 0;
    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW))
        return 0;
    if (!S_ISDIR(st.st_mode))
        return (double)st.st_size;
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d && fd >= 0)
        close(fd);
    for (struct dirent *e; d && (e = readdir(d));)
        if (!dots(e->d_name) &&
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            bytes += (double)st.st_size;
    if (d)
        closedir(d);
    return bytes;
}

/* "a/b" is "b" in "a"; a slash at the end does not count. */
int leftovers_warn(const struct log *log, const char *path)
{
    char folder[4096];
    size_t n = strlen(path);
    int found = 0;
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (!log || !log->to || n >= sizeof folder)
        return 0;
    memcpy(folder, path, n);
    folder[n] = '\0';
    char *slash = strrchr(folder, '/');
    const char *name = path + (slash ? slash + 1 - folder : 0);
    size_t length = n - (size_t)(name - path);
    if (slash)
        slash[slash == folder] = '\0';
    DIR *d = opendir(slash ? folder : ".");
    for (struct dirent *e; d && (e = readdir(d));)
        if (strncmp(e->d_name, name, length) == 0 &&
            strncmp(e->d_name + length, ".tmp-", 5) == 0) {
            log_warning(log,
                        "%.*s%s is there (%.3g GB): of a run that was killed, or one "
                        "under way; remove it if none is",
                        (int)(name - path), path, e->d_name,
                        size_of(dirfd(d), e->d_name) / 1e9);
            found++;
        }
    if (d)
        closedir(d);
    return found;
}
