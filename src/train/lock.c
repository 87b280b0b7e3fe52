/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/lock.h"

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_BYTES = 1024 };

struct holder {
    char job[64]; /* Slurm's job id, "-" without one */
    int restarts; /* how often Slurm has requeued it */
    char host[256];
    long pid;
    unsigned long long born; /* clock ticks since boot, from /proc; 0: not known */
    char start[32];          /* wall clock, for people */
};

static void describe_self(struct holder *h)
{
    *h = (struct holder){.pid = (long)getpid()};
    const char *job = getenv("SLURM_JOB_ID"), *restarts = getenv("SLURM_RESTART_COUNT");
    snprintf(h->job, sizeof h->job, "%s", job && *job ? job : "-");
    h->restarts = restarts ? atoi(restarts) : 0;
    gethostname(h->host, sizeof h->host - 1);
    h->born = process_born(h->pid);
    time_t now = time(NULL);
    struct tm tm;
    strftime(h->start, sizeof h->start, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
}

static const char format_out[] =
    "job %s restarts %d host %s pid %ld born %llu start %s\n";
static const char format_in[] =
    "job %63s restarts %d host %255s pid %ld born %llu start %31s";

static int parse(const char *text, struct holder *h)
{
    *h = (struct holder){0};
    return sscanf(text, format_in, h->job, &h->restarts, h->host, &h->pid, &h->born,
                  h->start) == 6
               ? 0
               : -1;
}

/* Does Slurm still know this job? Unknown counts as yes. */
static bool slurm_knows(const char *job)
{
    char command[160], line[64] = "";
    if (strspn(job, "0123456789") != strlen(job))
        return true;
    snprintf(command, sizeof command,
             "squeue -h -o %%T -j %s 2>/dev/null || echo invalid", job);
    FILE *f = popen(command, "r");
    if (!f)
        return true;
    char *got = fgets(line, sizeof line, f);
    pclose(f);
    if (!got)
        return false; /* squeue worked and lists no such job */
    if (strncmp(line, "invalid", 7) == 0)
        return true; /* no squeue, or it could not be asked */
    return strncmp(line, "COMPLETED", 9) != 0 && strncmp(line, "FAILED", 6) != 0 &&
           strncmp(line, "CANCELLED", 9) != 0 && strncmp(line, "TIMEOUT", 7) != 0;
}

static bool is_stale(const struct holder *h, const struct holder *self)
{
    if (strcmp(h->job, "-") != 0 && strcmp(h->job, self->job) == 0 &&
        self->restarts > h->restarts)
        return true;
    if (strcmp(h->host, self->host) == 0) {
        if (kill((pid_t)h->pid, 0) != 0 && errno == ESRCH)
            return true;
        unsigned long long born = process_born(h->pid);
        return born && h->born && born != h->born;
    }
    return strcmp(h->job, "-") != 0 && strcmp(h->job, self->job) != 0 &&
           !slurm_knows(h->job);
}

/* Decides under an fcntl lock of the file, so that of two that find a stale holder only
 * one takes over. Returns 0 with our line written. */
static int take_open(int fd, const char *path, const struct holder *self, bool fresh,
                     const struct log *log, bool *took_over, struct err *err)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    fcntl(fd, F_SETLKW, &whole); /* where the file system has no locks: best effort */
    char text[LOCK_BYTES] = "";
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    struct holder h;
    if (n > 0 && parse(text, &h) == 0) {
        if (!is_stale(&h, self))
            return err_set(err, ERR_USAGE,
                           "%s: the run is held by process %ld on %s (job %s, since "
                           "%s); wait for it, or remove this file if it is dead",
                           path, h.pid, h.host, h.job, h.start);
        log_line(log,
                 "lock: taking over from process %ld on %s (job %s, since %s), "
                 "which is gone",
                 h.pid, h.host, h.job, h.start);
        *took_over = true;
    } else if (!fresh) {
        log_line(log, "lock: taking over %s, which names no holder", path);
        *took_over = true;
    }
    int bytes = snprintf(text, sizeof text, format_out, self->job, self->restarts,
                         self->host, self->pid, self->born, self->start);
    if (ftruncate(fd, 0) || file_pwrite(fd, path, text, (size_t)bytes, 0, err) ||
        fsync(fd))
        return err_set_errno(err, 0, "%s: cannot write the lock", path);
    return 0;
}

int lock_take(struct lock *lock, const char *path, const struct log *log,
              bool *took_over, struct err *err)
{
    *lock = (struct lock){0};
    *took_over = false;
    struct holder self;
    describe_self(&self);
    bool fresh = true;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (fd < 0 && errno == EEXIST) {
        fresh = false;
        fd = open(path, O_RDWR);
    }
    if (fd < 0)
        return err_set_errno(err, 0, "%s: cannot take the lock", path);
    int failed = take_open(fd, path, &self, fresh, log, took_over, err);
    close(fd);
    if (failed)
        return -1;
    lock->path = mem_printf(err, "%s", path);
    return lock->path ? 0 : -1;
}

void lock_release(struct lock *lock)
{
    if (lock->path)
        unlink(lock->path);
    free(lock->path);
    lock->path = NULL;
}
