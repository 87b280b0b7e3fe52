/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_PRODUCTS_H
#define DUSK_TRAIN_PRODUCTS_H

/* The choices behind a run's matrix products that can change bits: the CPU level of the
 * kernels, and, for libraries whose sums depend on it, how much of the weights is
 * packed. They are made once, are the same on all ranks, lie in the run's folder
 * (train.products in run.yaml) and in its checkpoints, and a resumed run keeps them. */

#include "src/base/log.h"
#include "src/config/run.h"
#include "src/gemm/gemm.h"
#include "src/model/stage.h"
#include "src/train/start.h"

/* The gemm context of the run: train.products, or where that is auto the level of the
 * checkpoint resumed from, or else the lowest CPU's; run->train.products then says
 * which. A level named in the run file that a CPU lacks is refused (ERR_USAGE); one
 * that the checkpoint had is replaced (start_check warns). Owned; NULL on every rank
 * with err set. Collective over world. */
struct gemm *products_create(struct comm *world, const struct log *log, struct run *run,
                             const struct start *s, struct err *err);

/* The packing to try first: the checkpoint's where it matters, else both copies. */
enum stage_packing products_packing(const struct start *s, const struct gemm *g);

/* Notes level and packing in s->info for the run's checkpoints; warns where the packing
 * is not the checkpoint's and that matters. -1 with err set. Local. */
int products_record(struct start *s, const struct gemm *g, enum stage_packing packing,
                    struct err *err);

#endif
