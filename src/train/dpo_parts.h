/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_DPO_PARTS_H
#define DUSK_TRAIN_DPO_PARTS_H

/* What dpo.c (settings, references of sets, validation) and dpo_chunks.c (the course of
 * the run, sDPO) share. */

#include "src/train/dpo.h"
#include "src/train/pair_reference.h"
#include "src/train/setup.h"

/* All of a set of the run, called `name`, but for the model: weights, load, context. */
struct pair_reference dpo_reference_of(struct trainer *t, struct data_set *set,
                                       const char *name);

#endif
