/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_UPSCALE_H
#define DUSK_IO_UPSCALE_H

/* Depth up-scaling of a checkpoint file: a new one whose layers are a remap of the
 * source's, by copy, or by link (HDF5 virtual datasets; no weight is copied). A copy
 * may get new tokens (io/add_tokens.h): embed_tokens and lm_head grow by their rows;
 * and its layers may be averaged at the joints, or inserted copies be zeroed in part or
 * made noisy (io/upscale_plan.h). Streaming, the same bytes from any number of ranks.
 */

#include <stdbool.h>
#include <stdint.h>

#include "io/new_rows.h"
#include "io/upscale_plan.h"
#include "mpi/comm.h"
#include "src/base/log.h"

struct upscale_options {
    const char *checkpoint, *output;
    const char *layers; /* "0:24,8:32"; or NULL and */
    int drop;           /* SOLAR's m; or 0 and */
    bool solar;         /* m = n / 4 of n layers; or false: all layers as they are */
    bool link, force;
    struct upscale_choices choices; /* {0}: none. Not for links: ERR_USAGE */
    const char *add_tokens;         /* "A,B"; NULL: none. Not for links: ERR_USAGE */
    enum new_rows_init init;
    uint64_t seed; /* of new rows */
};

struct upscale_result {
    int source_layers, layers;
    char ranges[256];          /* "0:24,8:32", cut if longer; "": all as they are */
    int vocab, added;          /* rows of the result; new ones among them */
    int averaged, inserted;    /* layers: averaged over a joint; inserted copies */
    bool keeps_function;       /* computes what the source does (upscale_plan.h) */
    int64_t parameters, bytes; /* of the result's weights, linked ones too */
};

/* The optimizer's state is not carried over. `result` may be NULL. -1 with err set on
 * every rank, nothing left behind. Collective. */
int upscale(struct comm *c, const struct log *log, const struct upscale_options *o,
            struct upscale_result *result, struct err *err);

#endif
