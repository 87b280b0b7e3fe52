/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_RECORD_SHAPES_H
#define DUSK_TRAIN_RECORD_SHAPES_H

/* Which shape of records each file has: that of its first record. */

#include "io/input_plan.h"
#include "src/base/log.h"
#include "src/train/record_maker.h"

/* shape[plan->files_n]: enum record_shape, -1 where a file has no line, or only bad
 * ones and skip_bad. `given` (-1: none) is that of all; else rank 0 looks and the log
 * names what it found. A bad line is ERR_INPUT with file and line, but with skip_bad;
 * files of pairs and of records together are ERR_USAGE. Collective over c. */
int record_shapes_find(struct comm *c, const struct log *log,
                       const struct input_plan *plan, struct record_maker *maker,
                       int given, bool skip_bad, int *shape, struct err *err);

/* Nothing but spaces? Local. */
bool text_is_blank(const struct text_document *d);

/* Puts file and line of an offset in front of the error; -1. Local. */
int text_line_error(const char *path, int64_t offset, struct err *err);

#endif
