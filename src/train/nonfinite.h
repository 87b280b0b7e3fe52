/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_NONFINITE_H
#define DUSK_TRAIN_NONFINITE_H

/* Where the NaN or Inf of a step comes from. */

#include <stddef.h>
#include <stdint.h>

#include "src/train/engine.h"

/* Looks through the weights, runs the step's pass again with a look at the stream
 * behind every layer and at the losses, and then at the gradients, from the head down.
 * Writes to `text`, the same on all ranks, the first place where a value is NaN or Inf,
 * with the tensor that it is in or, for a layer, its tensor of the largest weight. The
 * arguments of engine_pass, micro_batches of them; the gradients are dropped.
 * Collective over the engine's world. */
void nonfinite_find(struct engine *e, const struct batch *batches, int micro_batches,
                    const struct engine_objective *objective, double *nll, char *text,
                    size_t size);

#endif
