/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_CKPT_STATS_H
#define DUSK_IO_CKPT_STATS_H

/* Figures of a checkpoint's tensors: mean, rms, largest value, NaN and Inf.
 *
 * Streaming: half a MB a rank, and 16 bytes for every 131,072 elements. Sums are in
 * double, over fixed blocks, and added up in the order of the blocks: the same bits
 * from any number of ranks. */

#include <stdint.h>

#include "io/ckpt.h"
#include "mpi/comm.h"
#include "src/base/log.h"

struct ckpt_stat {
    double mean, rms; /* of the finite values; 0 if there are none */
    double max_abs;   /* largest finite |x| */
    int64_t nan, inf; /* how many values are */
};

/* stat[n], of tensors of the model t[n]. Checksums are verified. The log shows
 * progress under the name `what`. -1 with err set on every rank. Collective over c. */
int ckpt_stats(struct comm *c, const struct log *log, const char *what, struct ckpt *k,
               const struct tensor *t, int n, struct ckpt_stat *stat, struct err *err);

#endif
