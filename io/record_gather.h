/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_RECORD_GATHER_H
#define DUSK_IO_RECORD_GATHER_H

/* From encoded chunks to the arrays of a record set. On its way a token is one number,
 * 2 id + counted, and each part of a record a document of the spill files
 * (io/token_spill.h). Every rank fills an equal share of each array's blocks, fetching
 * from the spill files of all ranks.
 *
 * Memory: 4 bytes a part and 8 a record on every rank. */

#include <stdint.h>

#include "io/record_set.h"
#include "io/token_spill.h"
#include "io/token_stage.h"

/* Of a number 2 id + counted, ids below vocab: 2 or 4. */
size_t record_value_bytes(int vocab);

struct record_gather {
    const struct token_stage *stage;
    int ranks, parts, vocab;
    int64_t chunks;
    const struct spill_chunk *chunk; /* [chunks]; chunk i is in the spill of rank
                                        i modulo ranks */
    int64_t records, tokens;
    int64_t *first;  /* [chunks + 1] first record of each */
    int32_t *length; /* [records x parts] tokens */
    int64_t *at;     /* [records] where its numbers begin in the rank's spill, bytes */
};

/* chunk is known on all ranks and borrowed. -1 on every rank with err set, nothing to
 * free. Collective over c. */
int record_gather_init(struct record_gather *g, struct comm *c,
                       const struct token_stage *stage, int vocab, int parts,
                       int64_t chunks, const struct spill_chunk *chunk,
                       struct err *err);
void record_gather_fini(struct record_gather *g);

/* This rank's share of all arrays, into a file made by record_set_create. order
 * [records]: the records in the order of their packs, pack_end [packs] as in the file;
 * NULL: as they came, not packed. Local. */
int record_gather_write(const struct record_gather *g, const int32_t *order,
                        const int32_t *pack_end, int64_t packs, int rank,
                        struct sealed_writer *w, struct err *err);

#endif
