/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_ATTENTION_SCORES_H
#define DUSK_MODEL_ATTENTION_SCORES_H

/* What attention does with the scores of one panel: TILE_COLS lanes, each a query, by
 * some keys. Arrays of scores are [keys, TILE_COLS], a key a line: maxima and sums run
 * down the lines, so that all of it is vector code without sums across a vector, and
 * each lane's sums have one order. Private to attention; its formulas are there. */

#include <stdint.h>

#include "src/base/dtype.h"

/* Sets scores to -inf where key0 + line > last[lane] or < first[lane]. */
void attention_scores_mask(int keys, int key0, const int *first, const int *last,
                           float *s);

/* What lanes have seen so far of their scores. All [TILE_COLS]. */
struct attention_running {
    float *max; /* of the scores; -inf before the first */
    float *sum; /* of exp(scale (s - max)) */
};

/* One step of online softmax: p = exp(scale (s - max)) with the new max; factor
 * [TILE_COLS] is what sums over older keys are to be multiplied with. p is
 * [keys, TILE_COLS] floats, or for bf16 (keys even) [keys / 2, TILE_COLS] words of two
 * keys each. NaN scores make p and sum NaN. */
void attention_scores_softmax(enum dtype dtype, int keys, float scale, const float *s,
                              struct attention_running r, float *factor, void *p);

/* Probabilities and their gradient, from scores and dp, for the products that follow,
 * in two layouts: a line of ld elements a key (p, ds); and as p above (ds_steps). */
struct attention_gradients {
    void *p, *ds;
    int64_t ld;
    void *ds_steps;
};

/* p = exp(scale s - lse), ds = p (dp - delta), lse and delta [TILE_COLS]. */
void attention_scores_gradient(enum dtype dtype, int keys, float scale, const float *s,
                               const float *dp, const float *lse, const float *delta,
                               struct attention_gradients to);

#endif
