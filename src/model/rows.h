/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_ROWS_H
#define DUSK_MODEL_ROWS_H

/* The rows of one micro-batch and which of them see which.
 *
 * All tensors of activations are flat rows of tokens, [rows, D]. A segment is a run of
 * rows that attend to each other causally and to nothing else: row t of a segment sees
 * rows max(0, t - window + 1) .. t of it. For pretraining a segment is one sequence;
 * for packed data it will be one document. Positions feed the rotary embedding. */

struct rows {
    int rows;
    int segments;
    const int *segment_begin; /* [segments + 1], rising, first 0, last = rows */
    const int *position;      /* [rows], each < max_positions */
};

#endif
