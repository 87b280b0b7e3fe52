/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_EMBED_H
#define DUSK_MODEL_EMBED_H

/* The token embedding: row t of x is row ids[t] of the table [V, D]. Table, x and dx
 * are of the dtype. Both use all threads. Local. */

#include <stdint.h>

#include "src/base/dtype.h"

/* Overwrites x [rows, D]; each id in [0, V). */
void embed_forward(int rows, int dim, enum dtype dtype, const int32_t *ids,
                   const void *table, void *x);

/* dtable[ids[t]] += dx[t], in row order. */
void embed_backward(int rows, int dim, enum dtype dtype, const int32_t *ids,
                    const void *dx, float *dtable);

#endif
