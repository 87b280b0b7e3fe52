/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_CHECKPOINTS_H
#define DUSK_TRAIN_CHECKPOINTS_H

/* The checkpoints of a run: folders step-%08d in one directory, and a link `latest` to
 * the newest. Rank 0 alone looks and deletes. All local. */

#include <stdbool.h>
#include <stdint.h>

#include "src/base/err.h"
#include "src/base/log.h"

struct checkpoints {
    int n;
    int64_t *step; /* [n] newest first; owned */
};

/* Lists step-%08d folders; a missing directory has none. Temporary names do not count.
 */
int checkpoints_list(struct checkpoints *list, const char *dir, struct err *err);
void checkpoints_fini(struct checkpoints *list);

/* "DIR/step-00000120"; owned (free), NULL with err set. */
char *checkpoints_path(const char *dir, int64_t step, struct err *err);

/* Points DIR/latest at the step (relative, by rename). */
int checkpoints_set_latest(const char *dir, int64_t step, struct err *err);

/* Deletes all but the newest `keep` (0: all stay) and every keep_every-th step (0:
 * none); a folder is renamed out of the way before its files go. */
int checkpoints_retain(const char *dir, int64_t keep, int64_t keep_every,
                       struct err *err);

/* Removes what a killed save or deletion left (names with .tmp-), naming each in the
 * log. Only for the holder of the run's lock who took over from a dead one. */
int checkpoints_clean(const char *dir, const struct log *log, struct err *err);

#endif
