/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_PARAM_SPLIT_H
#define DUSK_PARAM_SPLIT_H

/* Which layers each pipeline stage holds. Stage 0 also holds the embedding, the last
 * stage the final norm and the head; their cost counts in the split. Pure, local. */

#include "src/param/shape.h"

/* Fills layers[stages], each >= 1, summing to s->layers, so that the slowest stage's
 * floating-point operations for one sequence of seq_len tokens are least: layers are
 * equal jobs, so giving each in turn to the stage that stays least loaded (the earlier
 * one of equals) is optimal. 0, or -1 with err set (ERR_USAGE) if there are more stages
 * than layers. */
int split_auto(const struct model_shape *s, int stages, int seq_len, int *layers,
               struct err *err);

/* Checks a split by hand: `given` entries, one a stage, each >= 1 (0 is allowed for a
 * first or last stage that then holds only embedding or head), summing to s->layers. */
int split_check(const struct model_shape *s, int stages, const int *layers, int given,
                struct err *err);

/* Fills layers[stages] by hand where `given` has entries, else automatically. */
int split_layers(const struct model_shape *s, int stages, int seq_len, const int *given,
                 int given_n, int *layers, struct err *err);

/* Forward FLOPs of one sequence: one layer; the head. */
double split_layer_flops(const struct model_shape *s, int seq_len);
double split_head_flops(const struct model_shape *s, int seq_len);

#endif
