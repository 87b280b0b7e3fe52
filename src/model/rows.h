/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_ROWS_H
#define DUSK_MODEL_ROWS_H

/* The rows of one micro-batch and which of them see which.
 *
 * All tensors of activations are flat rows of tokens, [rows, D]. A segment is a run of
 * rows that attend to each other causally and to nothing else: row t of a segment sees
 * rows max(0, t - window + 1) .. t of it. For pretraining a segment is one sequence;
 * for packed data one document. Positions feed the rotary embedding.
 *
 * A segment may branch off the one before it: with a prefix of P rows it also sees the
 * first P rows of that segment, as if they stood right in front of its own. Row t then
 * has place P + t and sees the places max(0, P + t - window + 1) .. P + t, so that a
 * pair of answers to one prompt needs the prompt's rows only once: the first answer
 * behind the prompt is one segment, and the second one is its branch. Positions are the
 * caller's: to branch off is to count on from the prefix. */

struct rows {
    int rows;
    int segments;
    const int *segment_begin; /* [segments + 1], rising, first 0, last = rows */
    const int *position;      /* [rows], each < max_positions */
    /* [segments], or NULL: none. prefix[s] is at most the rows of segment s - 1, whose
     * own prefix is 0 unless prefix[s] is; prefix[0] is 0. */
    const int *prefix;
};

#endif
