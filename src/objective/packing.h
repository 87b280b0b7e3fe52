/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OBJECTIVE_PACKING_H
#define DUSK_OBJECTIVE_PACKING_H

/* Which documents share a row of max_length tokens: best-fit decreasing, TRL's packing
 * strategy "bfd" on the whole set at once (TRL packs slices of 1000 documents). Pure,
 * local; every rank that asks gets the same packs.
 *
 * Documents longer than max_length are cut to it, empty ones are dropped. The longest
 * goes first, of equal ones (after the cut) the one with the lowest index. It goes into
 * the pack with the least room that holds it, among packs of equal room into the one
 * that came to that room first, else into a new pack. Packs stand in the order in which
 * they were opened, so the longest documents are in the first: shuffle packs.
 *
 * Best-fit decreasing needs at most 11/9 of the least number of packs, and 4 (D. S.
 * Johnson, 1973). */

#include <stdint.h>

#include "src/base/err.h"

struct packing {
    int32_t packs;
    int32_t documents;   /* in packs */
    int32_t *pack_begin; /* [packs + 1]: pack p holds document[pack_begin[p]] up to, not
                            with, document[pack_begin[p + 1]], at least one */
    int32_t *document;  /* [documents]: indices, in the order in which they lie in their
                           pack, end to end from its token 0; the first min(length,
                           max_length) tokens of each */
    int64_t tokens;     /* in packs */
    int64_t cut_tokens; /* thrown away */
    int32_t cut_documents, empty_documents;
};

/* Packs documents 0 .. documents - 1 of length[i] >= 0 tokens; max_length >= 1. Time:
 * O(documents + max_length). Memory: 4 bytes a document and 4 a pack stay; while it
 * works 12 a document, 4 a pack and 8.2 a token of max_length with these (10 million
 * documents: 160 MB at most). packing_fini frees.
 * -1 with *p empty: no memory (ERR_OTHER); more than 2147483646 documents (ERR_INPUT).
 */
int packing_init(struct packing *p, const int32_t *length, int64_t documents,
                 int32_t max_length, struct err *err);
void packing_fini(struct packing *p); /* empty is fine */

#endif
