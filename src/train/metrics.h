/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_METRICS_H
#define DUSK_TRAIN_METRICS_H

/* metrics.jsonl: one JSON object a line, for machines. On resume it is cut back to the
 * checkpoint's step, so that each step stands in it once. Rank 0 alone. Local. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/err.h"
#include "src/base/json.h"

struct metrics {
    bool open;
    int file;
    char *path;       /* owned */
    struct json line; /* its memory serves every line */
    char *waiting;    /* owned: what is not written yet */
    size_t waiting_bytes, waiting_room;
};

/* Opens path, keeping only the lines whose "step" is <= step (a torn last line is
 * dropped); the cut is atomic. ERR_IO. */
int metrics_open(struct metrics *m, const char *path, int64_t step, struct err *err);

/* An empty line to fill with one object, until the next call. */
struct json *metrics_line(struct metrics *m);

/* Appends the filled line. If that fails (ERR_IO) it waits in memory and is written
 * first by the next call; metrics_flush tries it again at once. */
int metrics_write(struct metrics *m, struct err *err);
int metrics_flush(struct metrics *m, struct err *err);

/* Is there a line of this step whose first key after "step" is `key`? */
int metrics_holds(const struct metrics *m, int64_t step, const char *key, bool *holds,
                  struct err *err);
void metrics_close(struct metrics *m); /* not open is fine */

#endif
