/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_UPSCALE_ALTER_H
#define DUSK_IO_UPSCALE_ALTER_H

/* Writes the tensors of an up-scaled model that are no copies (io/upscale_plan.h):
 *
 *   zeroed      zeros
 *   averaged    (x + y) / 2 in fp32, where the bits differ (io/mix.h), x of the layer
 *               and y of its counterpart
 *   noisy       x, or the average, + init_noise x rms x z: rms of the tensor of the
 *               source, z normal (0, 1) of the seed and the element's place in the
 * result
 *
 * Values are fp32 and rounded once, to the dtype of the layer. Streaming: 2.5 MB a rank
 * beside the checkpoints' own. The same bytes from any number of ranks. */

#include "io/ckpt.h"
#include "io/upscale_plan.h"
#include "src/base/log.h"

struct upscale_alter;

/* Measures what the noise needs. All but c and log are borrowed until destroy; `result`
 * describes the new model. Owned; NULL on every rank with err set. Collective over c.
 */
struct upscale_alter *upscale_alter_create(struct comm *c, const struct log *log,
                                           struct ckpt *source,
                                           const struct upscale_plan *plan,
                                           const struct ckpt_info *result,
                                           struct err *err);
void upscale_alter_destroy(struct upscale_alter *a); /* NULL is fine. Local. */

/* Writes one rank's share of the altered tensors. Local. */
int upscale_alter_write(struct upscale_alter *a, struct ckpt_writer *w, int rank,
                        int ranks, const struct log *log, struct err *err);

#endif
