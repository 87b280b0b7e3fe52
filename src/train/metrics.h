/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_METRICS_H
#define DUSK_TRAIN_METRICS_H

/* metrics.jsonl: one JSON object a line, for machines. On resume it is cut back to the
 * checkpoint's step, so that each step stands in it once. Rank 0 alone. Local. */

#include <stdint.h>
#include <stdio.h>

#include "src/base/err.h"
#include "src/base/json.h"

struct metrics {
    FILE *file;       /* NULL: closed */
    char *path;       /* owned */
    struct json line; /* its memory serves every line */
};

/* Opens path, keeping only the lines whose "step" is <= step (a torn last line is
 * dropped); the cut is atomic. ERR_IO. */
int metrics_open(struct metrics *m, const char *path, int64_t step, struct err *err);

/* An empty line to fill with one object, until the next call. */
struct json *metrics_line(struct metrics *m);

/* Appends the filled line and flushes. ERR_IO. */
int metrics_write(struct metrics *m, struct err *err);
void metrics_close(struct metrics *m); /* not open is fine */

#endif
