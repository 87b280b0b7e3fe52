/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_DATA_H
#define DUSK_TRAIN_DATA_H

/* The training data of a run: token or record sets blended by weight, in an order that
 * is a pure function of (seed, position); a position is the number of samples seen. A
 * sample is a window of a token set; of a record set, a record, a pack or a pair. */

#include <stdbool.h>
#include <stdint.h>

#include "mpi/comm.h"
#include "src/config/run.h"
#include "src/objective/pairs.h"
#include "src/param/shape.h"
#include "src/train/data_set.h"

struct data;

/* Opens every set of run->data.train and checks it: of the kind that train.objective
 * learns from, made with the model's tokenizer (hex hash, "" if the model has none),
 * ids below its vocabulary, samples of at most seq_len tokens, at least one. Owned;
 * NULL on every rank with err set (ERR_INPUT). Collective over c. */
struct data *data_create(struct comm *c, const struct run *run,
                         const struct model_shape *shape, const char *tokenizer,
                         struct err *err);
void data_destroy(struct data *d); /* NULL is fine. Local. */

/* Which samples of the step that begins at `position` each of the `replicas` takes:
 * order [global_batch], numbers within the step, replica by replica; those of a
 * micro-batch stand together. Windows and packs keep their order, records are ordered
 * by length (src/objective/sft.h). ERR_INPUT. Local. */
int data_order(struct data *d, int64_t position, int replicas, int32_t *order,
               struct err *err);

/* Samples position + order[0, n) into tokens [n][engine_slot_words]: windows, or slots
 * of src/objective/sft.h or pairs.h. ERR_INPUT. Local. */
int data_read(struct data *d, int64_t position, int n, const int32_t *order,
              int32_t *tokens, struct err *err);

/* What identifies the data and its order, for the comparison on resume: sets by their
 * seals, not by their paths. Borrowed. */
const char *data_identity(const struct data *d);

/* Samples in all sets, and the epoch that sample `position` belongs to in its set. */
int64_t data_samples(const struct data *d);
int64_t data_epoch(const struct data *d, int64_t position);

/* The i-th set if it is one of records, else NULL. Borrowed. */
const struct record_set *data_records(const struct data *d, int i);

/* The i-th set. Borrowed. */
struct data_set *data_set_at(struct data *d, int i);

/* Pairs: what the reference gives to those of the i-th set, [pairs]: taken over
 * (mem_free). Before the first data_read; NULL: zeros. */
void data_give_reference(struct data *d, int i, struct pair_sums *sums);

/* From `position` on, the samples are pairs pair[0, n) of the one set in place of all
 * of it, in the same kind of order. -1 with err set (no memory). Local. */
int data_narrow(struct data *d, int64_t position, int64_t n, const int64_t *pair,
                struct err *err);

#endif
