/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded: makes calls fail that write a run's checkpoints, as a bad disk would.
 *
 *   FAIL_IO        where to log each failure: the call's name and number
 *   FAIL_IO_ERRNO  what it fails with; 0: it writes one bit wrong and says nothing
 *   FAIL_IO_RANK   only on this rank of Open MPI
 *   FAIL_IO_AT     the N-th call fails, and none after it; without it the 1st call,
 * then the 2nd after that, then the 3rd after that, ... : where nothing is called
 * between a failure and the next checkpoint, each of these fails one call later than
 * the one before FAIL_IO_MOST   none after so many */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char folder[] = "/checkpoints/";
static int calls, failures;

static int here(void)
{
    const char *rank = getenv("FAIL_IO_RANK"), *own = getenv("OMPI_COMM_WORLD_RANK");
    return getenv("FAIL_IO") && (!rank || (own && strcmp(rank, own) == 0));
}

static int is_checkpoint(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 2);
    if (n < 0)
        return 0;
    strcpy(path + n, "/"); /* so that the folder itself counts */
    return strstr(path, folder) != NULL;
}

/* Is it this call's turn? */
static int fails(const char *name)
{
    const char *at = getenv("FAIL_IO_AT"), *most = getenv("FAIL_IO_MOST");
    calls++;
    if (most && failures >= atoi(most))
        return 0;
    if (at ? failures || calls != atoi(at) : calls <= failures)
        return 0;
    FILE *f = fopen(getenv("FAIL_IO"), "a");
    if (f) {
        fprintf(f, "%s %d\n", name, calls);
        fclose(f);
    }
    calls = 0;
    failures++;
    return 1;
}

/* May the call go on to the system? */
static int passes(const char *name)
{
    const char *why = getenv("FAIL_IO_ERRNO");
    if (!fails(name))
        return 1;
    errno = why ? atoi(why) : EIO;
    return errno == 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static ssize_t write_wrong(int fd, const void *data, size_t bytes, off_t at)
{
    char *copy = malloc(bytes);
    memcpy(copy, data, bytes);
    copy[bytes / 2] ^= 4;
    ssize_t n = REAL(pwrite)(fd, copy, bytes, at);
    free(copy);
    return n;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at)
{
    int before = failures;
    if (here() && is_checkpoint(fd) && !passes("pwrite"))
        return -1;
    return failures > before ? write_wrong(fd, data, bytes, at)
                             : REAL(pwrite)(fd, data, bytes, at);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t at)
{
    return pwrite(fd, data, bytes, at);
}

int fallocate(int fd, int mode, off_t at, off_t bytes)
{
    return here() && is_checkpoint(fd) && !passes("fallocate")
               ? -1
               : REAL(fallocate)(fd, mode, at, bytes);
}

int fsync(int fd)
{
    return here() && is_checkpoint(fd) && !passes("fsync") ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    return here() && is_checkpoint(fd) && !passes("fdatasync") ? -1
                                                               : REAL(fdatasync)(fd);
}

int mkdir(const char *path, mode_t mode)
{
    return here() && strstr(path, folder) && !passes("mkdir") ? -1
                                                              : REAL(mkdir)(path, mode);
}

int rename(const char *from, const char *to)
{
    return here() && strstr(to, folder) && !passes("rename") ? -1
                                                             : REAL(rename)(from, to);
}

int symlink(const char *target, const char *path)
{
    return here() && strstr(path, folder) && !passes("symlink")
               ? -1
               : REAL(symlink)(target, path);
}
