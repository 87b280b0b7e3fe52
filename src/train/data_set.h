/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_DATA_SET_H
#define DUSK_TRAIN_DATA_SET_H

/* One file of training or held-out data, of whichever kind it is, opened and held
 * against the model. */

#include "io/record_set.h"
#include "io/token_set.h"
#include "src/objective/pairs.h"
#include "src/param/shape.h"

struct data_set { /* one of both */
    struct token_set *tokens;
    struct record_set *records;
};

/* Opens PATH: a record set if it says so, else it must be a token set. It must be made
 * with the model's tokenizer (hex hash, "" if there is none), its ids below the model's
 * vocabulary; `pairs`: it must hold pairs, else none. -1 on every rank with err set
 * (ERR_INPUT naming path, expected, found); data_set_close in either case. Collective
 * over c. */
int data_set_open(struct data_set *s, struct comm *c, const char *path,
                  const struct model_shape *shape, const char *tokenizer, bool pairs,
                  struct err *err);
void data_set_close(struct data_set *s); /* {0} is fine. Local. */

uint64_t data_set_identity(const struct data_set *s);

/* Do all records (a prompt with either answer) fit into seq_len tokens, and with
 * `packing`, is it a set of packs of seq_len? ERR_INPUT naming path, expected, found. A
 * token set fits always. Local, the same on all ranks. */
int data_set_fits(const struct data_set *s, int seq_len, bool packing, struct err *err);

/* Record `record` into a slot of src/objective/sft.h, or with `packing` pack `record`.
 * scratch keeps its memory. ERR_INPUT: what the set's reader refuses, or more than
 * seq_len tokens. Local. */
int data_set_read_record(struct data_set *s, int64_t record, bool packing, int seq_len,
                         struct record_tokens *scratch, int32_t *slot, struct err *err);

/* Pair `pair` with the reference's sums into a slot of src/objective/pairs.h. As above.
 */
int data_set_read_pair(struct data_set *s, int64_t pair, int seq_len,
                       struct pair_sums reference, struct record_tokens *scratch,
                       int32_t *slot, struct err *err);

#endif
