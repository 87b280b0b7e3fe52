/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_DATA_H
#define DUSK_TRAIN_DATA_H

/* The training data of a run: token sets blended by weight, in an order that is a pure
 * function of (seed, position); a position is the number of samples seen. */

#include <stdbool.h>
#include <stdint.h>

#include "mpi/comm.h"
#include "src/config/run.h"
#include "src/param/shape.h"

struct data;

/* Opens every set of run->data.train and checks it: made with the model's tokenizer
 * (hex hash, "" if the model has none), ids below its vocabulary, at least one window
 * of seq_len. Owned; NULL on every rank with err set (ERR_INPUT). Collective over c. */
struct data *data_create(struct comm *c, const struct run *run,
                         const struct model_shape *shape, const char *tokenizer,
                         struct err *err);
void data_destroy(struct data *d); /* NULL is fine. Local. */

/* Windows of samples [position, position + n): tokens [n][seq_len + 1]. Local. */
int data_read(struct data *d, int64_t position, int n, int32_t *tokens,
              struct err *err);

/* What identifies the data and its order, for the comparison on resume: sets by their
 * seals, not by their paths. Borrowed. */
const char *data_identity(const struct data *d);

/* Windows in all sets, and the epoch that sample `position` belongs to in its set. */
int64_t data_windows(const struct data *d);
int64_t data_epoch(const struct data *d, int64_t position);

/* Is this set made for this model? ERR_INPUT naming path, expected, found. Local. */
struct token_set;
int data_check_set(const struct token_set *set, const char *path,
                   const struct model_shape *shape, const char *tokenizer,
                   struct err *err);

#endif
