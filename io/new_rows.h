/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_NEW_ROWS_H
#define DUSK_IO_NEW_ROWS_H

/* Rows that embed_tokens or lm_head [V, D] of a checkpoint gets for new tokens. */

#include <stdbool.h>
#include <stdint.h>

#include "io/ckpt.h"
#include "mpi/comm.h"

enum new_rows_init {
    NEW_ROWS_MEAN,  /* the mean of the old rows, m [D], in each */
    NEW_ROWS_ZERO,  /* zeros */
    NEW_ROWS_NORMAL /* m + s z, z normal (0, 1), s^2 the mean of the old rows' squared
                     * distances from m, over all V x D values */
};

struct new_rows {
    int64_t elements; /* n x D */
    void *data;       /* in the stored dtype; owned */
};                    /* {0} is empty */

/* n rows of a role. Rank 0 reads the tensor once, in pieces, and sums each column from
 * the first row to the last in double; a value is rounded once, to the stored dtype, so
 * that the rows do not depend on the ranks. `seed` is of the normal ones. -1 on every
 * rank with err set (ERR_INPUT: the old rows hold NaN or Inf) and nothing to free.
 * Collective over c. */
int new_rows_make(struct new_rows *r, struct comm *c, struct ckpt *source,
                  enum tensor_role role, int n, enum new_rows_init init, uint64_t seed,
                  struct err *err);
void new_rows_fini(struct new_rows *r);

#endif
