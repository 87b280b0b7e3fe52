/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/metrics.h"

#include "src/base/file.h"
#include "src/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WAITING_BYTES = 1 << 16 }; /* of a step, and more if the disk fails */

static const char step_key[] = "{\"step\": ";

/* Keeps, in place, the whole lines of steps up to `step`; returns the bytes kept. */
static size_t keep_lines(char *text, size_t bytes, int64_t step)
{
    size_t kept = 0;
    for (size_t at = 0; at < bytes;) {
        char *newline = memchr(text + at, '\n', bytes - at);
        if (!newline)
            break; /* a line that a kill cut */
        size_t n = (size_t)(newline - (text + at)) + 1;
        if (strncmp(text + at, step_key, sizeof step_key - 1) == 0 &&
            strtoll(text + at + sizeof step_key - 1, NULL, 10) <= step) {
            memmove(text + kept, text + at, n);
            kept += n;
        }
        at += n;
    }
    return kept;
}

int metrics_open(struct metrics *m, const char *path, int64_t step, struct err *err)
{
    *m = (struct metrics){0};
    if (access(path, F_OK) == 0) {
        size_t bytes;
        char *text = file_read(path, (size_t)1 << 40, &bytes, err);
        if (!text)
            return -1;
        size_t kept = keep_lines(text, bytes, step);
        int failed = kept < bytes && file_write_atomic(path, text, kept, err);
        free(text);
        if (failed)
            return -1;
    }
    m->path = mem_printf(err, "%s", path);
    m->waiting = malloc(WAITING_BYTES);
    m->waiting_room = WAITING_BYTES;
    if (m->path && !m->waiting)
        err_set(err, ERR_OTHER, "%s: no memory", path);
    if (m->path && m->waiting) {
        m->file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        m->open = m->file >= 0;
        if (m->open)
            return 0;
        err_set_errno(err, 0, "%s: cannot open", path);
    }
    metrics_close(m);
    return -1;
}

struct json *metrics_line(struct metrics *m)
{
    json_clear(&m->line);
    return &m->line;
}

int metrics_flush(struct metrics *m, struct err *err)
{
    size_t done = 0;
    int failed = 0;
    while (!failed && done < m->waiting_bytes) {
        ssize_t n = write(m->file, m->waiting + done, m->waiting_bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EIO;
        if (n <= 0)
            failed = err_set_errno(err, 0, "%s: cannot write", m->path);
        else
            done += (size_t)n;
    }
    m->waiting_bytes -= done;
    memmove(m->waiting, m->waiting + done, m->waiting_bytes);
    return failed ? -1 : 0;
}

int metrics_write(struct metrics *m, struct err *err)
{
    size_t bytes = strlen(m->line.text);
    while (m->waiting_bytes + bytes + 1 > m->waiting_room) {
        char *more = realloc(m->waiting, 2 * m->waiting_room);
        if (!more)
            return err_set(err, ERR_OTHER, "%s: no memory for what cannot be written",
                           m->path);
        m->waiting = more;
        m->waiting_room *= 2;
    }
    memcpy(m->waiting + m->waiting_bytes, m->line.text, bytes);
    m->waiting[m->waiting_bytes + bytes] = '\n';
    m->waiting_bytes += bytes + 1;
    return metrics_flush(m, err);
}

int metrics_holds(const struct metrics *m, int64_t step, const char *key, bool *holds,
                  struct err *err)
{
    size_t bytes;
    char begin[192], *text = file_read(m->path, (size_t)1 << 40, &bytes, err);
    if (!text)
        return -1;
    int n =
        snprintf(begin, sizeof begin, "%s%" PRId64 ", \"%s\": ", step_key, step, key);
    *holds = false;
    for (const char *at = text; at && !*holds; at = at ? at + 1 : NULL) {
        *holds = strncmp(at, begin, (size_t)n) == 0;
        at = strchr(at, '\n');
    }
    free(text);
    return 0;
}

void metrics_close(struct metrics *m)
{
    if (m->open)
        close(m->file);
    json_fini(&m->line);
    free(m->path);
    free(m->waiting);
    *m = (struct metrics){0};
}
