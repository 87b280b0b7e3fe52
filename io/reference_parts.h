/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_REFERENCE_PARTS_H
#define DUSK_IO_REFERENCE_PARTS_H

/* What the sources of io/reference.h share; nobody else includes it.
 *
 *   reference.c       keys, the finished file
 *   reference_part.c  the file in the making: PATH.part, the writer */

#include "io/reference.h"

enum { REFERENCE_SIDES = 2, REFERENCE_PAIR_BYTES = REFERENCE_SIDES * sizeof(double) };
#define REFERENCE_MAX_PAIRS (INT64_MAX / 64)

uint64_t reference_hash(const struct reference_key *k); /* of all fields, XXH3-64 */

/* Texts of its own for `to`, to be freed by reference_key_fini in any case. -1 with err
 * set (no memory). */
int reference_key_copy(struct reference_key *to, const struct reference_key *from,
                       struct err *err);
void reference_key_fini(struct reference_key *k);

/* Makes or replaces PATH from sums[pairs][2], whole or not at all. */
int reference_write(const char *path, const struct reference_key *k, const double *sums,
                    struct err *err);

#endif
