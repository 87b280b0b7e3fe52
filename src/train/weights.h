/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_WEIGHTS_H
#define DUSK_TRAIN_WEIGHTS_H

/* Weights and moments between an engine and checkpoints. Every rank reads and writes
 * the pieces that it owns (mpi/shard.h), so that each byte of the model is read once
 * per job, whatever the layout; the other replicas get them over the data axis. */

#include <stdbool.h>
#include <stdint.h>

#include "io/ckpt.h"
#include "src/param/layer_map.h"
#include "src/train/engine.h"

/* Checkpoints hold the fp32 masters, so that a run of either precision takes those of
 * the other: fp32 from bf16 goes on with the exact masters, bf16 from fp32 rounds what
 * it computes with and keeps the rest; but of a frozen tensor (train.freeze) bf16 has
 * and saves what it computes with, no more. They pass through a buffer of 8 MiB. */

/* Loads the model, layer i from the file's layer map->source[i], verifying checksums;
 * with `optimizer` both moments too, through the same map, but those of frozen tensors.
 * A NaN or Inf among the weights is ERR_INPUT naming file and tensor. -1 with err set
 * on every rank (the engine's weights are then undefined). Collective over the engine's
 * world. */
int weights_load(struct engine *e, struct ckpt *k, const char *path,
                 const struct layer_map *map, bool optimizer, struct err *err);

/* Normal(0, std) matrices, norms 1: the same values for any layout. Collective. */
void weights_random(struct engine *e, uint64_t seed, double std);

/* Writes the owned pieces of the model and both moments, zeros for frozen tensors. -1
 * with err set on this rank only; ckpt_commit agrees. Local. */
int weights_save(struct engine *e, struct ckpt_writer *w, struct err *err);

#endif
