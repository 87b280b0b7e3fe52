/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_CHECKPOINTS_H
#define DUSK_TRAIN_CHECKPOINTS_H

/* The checkpoints of a run: folders step-%08d in one directory, a link `latest` to the
 * newest, and with checkpoint.best a link `best`. Rank 0 alone looks and deletes. All
 * local. */

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

/* Points DIR/NAME ("latest", "best") at the step (relative, by rename). */
int checkpoints_link(const char *dir, const char *name, int64_t step, struct err *err);

/* Which of the checkpoints stay when that of step `newest` has been saved. */
struct retention {
    int64_t newest;
    int64_t keep;       /* it and the keep - 1 before it; 0: all */
    int64_t keep_every; /* every keep_every-th step; 0: none */
    int64_t best;       /* this step too; -1: none */
};

/* Lists the others. Those of steps after `newest` stay and do not count: they are of a
 * run that was gone back from, and may be damaged. */
int checkpoints_surplus(struct checkpoints *list, const char *dir,
                        const struct retention *r, struct err *err);

/* Deletes all of the list, oldest first; a folder is renamed out of the way before its
 * files go. */
int checkpoints_remove(const char *dir, const struct checkpoints *list,
                       struct err *err);

/* Removes what a killed save or deletion left (names with .tmp-), naming each in the
 * log. Only for the holder of the run's lock. */
int checkpoints_clean(const char *dir, const struct log *log, struct err *err);

#endif
