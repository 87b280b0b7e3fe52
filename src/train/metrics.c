/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/metrics.h"

#include "src/base/file.h"
#include "src/base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    if (!m->path)
        return -1;
    m->file = fopen(path, "a");
    if (!m->file) {
        err_set_errno(err, 0, "%s: cannot open", path);
        metrics_close(m);
        return -1;
    }
    return 0;
}

struct json *metrics_line(struct metrics *m)
{
    json_clear(&m->line);
    return &m->line;
}

int metrics_write(struct metrics *m, struct err *err)
{
    if (fprintf(m->file, "%s\n", m->line.text) < 0 || fflush(m->file))
        return err_set_errno(err, 0, "%s: cannot write", m->path);
    return 0;
}

void metrics_close(struct metrics *m)
{
    if (m->file)
        fclose(m->file);
    json_fini(&m->line);
    free(m->path);
    *m = (struct metrics){0};
}
