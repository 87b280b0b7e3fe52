/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OBJECTIVE_PRETRAIN_H
#define DUSK_OBJECTIVE_PRETRAIN_H

/* From windows of a token stream to the rows of a micro-batch: each token is an input
 * and predicts the next one, every prediction counts. Local. */

#include <stdint.h>

#include "src/base/err.h"
#include "src/model/rows.h"

/* Rows of one micro-batch with what goes in and what should come out. */
struct batch {
    struct rows rows;
    int32_t *ids;                  /* [rows] inputs */
    int32_t *target;               /* [rows] the id to predict, < 0: not counted */
    int *segment_begin, *position; /* behind `rows` */
    int *sample; /* [segments] whose each is, numbered within the micro-batch */
    int *prefix; /* [segments] what pairs_fill puts behind rows.prefix */
    int max_rows, max_segments;
};

/* Room for max_rows rows in max_segments segments. batch_fini frees. -1: no memory. */
int batch_init(struct batch *b, int max_rows, int max_segments, struct err *err);
void batch_fini(struct batch *b);

/* Fills b from `windows` windows of the stream, one segment each. Window i has
 * length[i] inputs (length NULL: seq_len each) and starts at tokens + i * (seq_len +
 * 1), with its last target one further. windows 0 gives no rows. */
void pretrain_fill(struct batch *b, int windows, int seq_len, const int *length,
                   const int32_t *tokens);

/* Counted targets of the rows. */
int64_t batch_counted(const struct batch *b);

#endif
