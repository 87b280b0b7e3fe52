/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_LAYOUT_H
#define DUSK_TRAIN_LAYOUT_H

/* What a rank of an engine holds and in which order it works: the schedules of training
 * and of forward passes, the stages placed on the same ranks in both, the layers of
 * each stage. The engine is built from it, and the memory plan of any rank. Pure,
 * local. */

#include "src/train/engine.h"

struct layout {
    struct schedule train;   /* zeroed where nothing trains */
    struct schedule forward; /* ENGINE_FORWARD_MICRO_BATCHES */
    int stages, chunks;      /* of a pipeline, of a rank */
    int *split;              /* [stages] layers of each */
    struct stage_part *part; /* [chunks] what the rank holds, in rising stage order */
};

/* Of the rank at `place` of a pipeline. spec: borrowed, and so is its schedule_file by
 * the layout. 0, or -1 with err set and *l zeroed (ERR_USAGE for what cannot be). */
int layout_init(struct layout *l, const struct engine_spec *spec, int place,
                struct err *err);
void layout_fini(struct layout *l);

/* What the chunk-th stage of the rank is made of, for training or forward passes; its
 * lender and packing are the caller's. */
struct stage_spec layout_stage(const struct layout *l, const struct engine_spec *spec,
                               int chunk, int place, bool training);

#endif
