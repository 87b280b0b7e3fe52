/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_MERGE_H
#define DUSK_IO_MERGE_H

/* Merges of checkpoints of one shape and tokenizer, tensor by tensor (a layer's own,
 * not the stack): the weighted mean, or SLERP of two. io/mix.h has the formulas.
 *
 * Streaming: 3 MB a rank, and for each model 1 MB, its tokenizer and its table of
 * checksums (8 bytes for 64 KiB), whatever their size. SLERP reads everything
 * twice: inner products first. The same bytes from any number of ranks. */

#include <stdbool.h>
#include <stdint.h>

#include "mpi/comm.h"
#include "src/base/dtype.h"
#include "src/base/log.h"

enum { MERGE_MODELS_MAX = 64 };
enum merge_method { MERGE_LINEAR, MERGE_SLERP };

struct merge_options {
    const char *const *checkpoint; /* [models], 2..MERGE_MODELS_MAX; SLERP: 2 */
    int models;
    const char *output;
    enum merge_method method;
    const double *weight; /* linear: [weights], as many as models; NULL: equal ones */
    int weights;
    bool raw;         /* linear: the weights as they are, not divided by their sum */
    double t;         /* SLERP: 0 gives the first model, 1 the second */
    bool keep;        /* dtypes of the first model, else */
    enum dtype dtype; /* this one for all */
    bool force;       /* replace output if it exists */
};

struct merge_result {
    int tensors, lines;        /* lines: tensors that SLERP mixed linearly */
    int64_t parameters, bytes; /* of the result's weights */
};

/* Reads fp32, sums fp32, rounds once. The result takes shape, tokenizer and dtypes
 * (also those that single layers had in the Hugging Face file) from the first model;
 * its source names method, weights, models and their seals; optimizers' state is left
 * behind. NaN and Inf of the result are told to the log as warnings.
 *
 * ERR_USAGE: options that cannot be. ERR_INPUT: models that do not fit, by the first
 * difference; for SLERP also NaN or Inf, which would spoil the whole tensor. -1 with
 * err set on every rank, nothing left behind. `result` may be NULL. Collective. */
int merge(struct comm *c, const struct log *log, const struct merge_options *o,
          struct merge_result *result, struct err *err);

#endif
