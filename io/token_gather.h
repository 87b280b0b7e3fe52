/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TOKEN_GATHER_H
#define DUSK_IO_TOKEN_GATHER_H

/* From encoded chunks to the arrays of token sets. Document g of the input goes to the
 * validation set if a uniform number drawn for (seed, g) is below `valid`; within a set
 * documents keep their order. Every rank fills an equal share of each array's blocks,
 * fetching ids from the spill files of all ranks. */

#include <stdint.h>

#include "io/sealed.h"
#include "io/token_spill.h"
#include "io/token_stage.h"

struct token_totals {
    int64_t documents, ids, text_bytes;
};

struct token_gather {
    const struct token_stage *stage;
    size_t id_bytes;
    int ranks;
    int64_t chunks;
    const struct spill_chunk *chunk; /* [chunks]; chunk i is in the spill of rank
                                        i modulo ranks */
    double valid;
    uint64_t seed;
    int64_t *document;              /* [chunks + 1] first document of each, of all */
    struct token_totals *before[2]; /* [chunks + 1] of each set, in the chunks before;
                                       the last is the whole set */
};

/* chunk is known on all ranks and borrowed. -1 on every rank with err set. Collective
 * over c. */
int token_gather_init(struct token_gather *g, struct comm *c,
                      const struct token_stage *stage, size_t id_bytes, int64_t chunks,
                      const struct spill_chunk *chunk, double valid, uint64_t seed,
                      struct err *err);
void token_gather_fini(struct token_gather *g);

struct token_totals token_gather_totals(const struct token_gather *g, int set);

/* This rank's share of both arrays of set 0 (train) or 1 (valid), into a file made by
 * token_set_create. Local. */
int token_gather_write(const struct token_gather *g, int set, int rank,
                       struct sealed_writer *w, struct err *err);

#endif
