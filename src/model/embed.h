/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_EMBED_H
#define DUSK_MODEL_EMBED_H

/* The token embedding: row t of x is row ids[t] of the table [V, D]. Both use all
 * threads. Local. */

#include <stdint.h>

/* Overwrites x [rows, D]; each id in [0, V). */
void embed_forward(int rows, int dim, const int32_t *ids, const float *table, float *x);

/* dtable[ids[t]] += dx[t], in row order. */
void embed_backward(int rows, int dim, const int32_t *ids, const float *dx,
                    float *dtable);

#endif
