/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_EVALUATE_CHECKPOINT_H
#define DUSK_TRAIN_EVALUATE_CHECKPOINT_H

/* Loss of a checkpoint on a token or record set, or its figures on a set of pairs
 * beside a reference, from files to figures. */

#include "src/base/log.h"
#include "src/train/evaluate.h"
#include "src/train/pair_logps.h"

struct evaluate_options {
    const char *checkpoint, *tokens;
    int seq_len;  /* inputs of a window; 0: the model's max positions, at most 2,048.
                     Of records: the longest allowed; 0: the set's */
    int pipeline; /* data = ranks / pipeline */
    int batch;    /* windows or records of a micro-batch */
    enum dtype dtype;      /* to compute in: F32 or BF16 */
    int64_t limit;         /* windows, records or pairs, 0: all */
    const char *reference; /* a checkpoint: the set holds pairs; NULL: it does not */
    struct preference_settings preference; /* of pairs */
};

struct evaluate_report {
    struct evaluation result;
    int seq_len, layers;
    bool records;
    struct pair_figures pairs; /* with a reference; `result` is empty then */
    double load_s, run_s;
};

/* -1 with err set on every rank. Collective over world. */
int evaluate_checkpoint(struct comm *world, const struct log *log,
                        const struct evaluate_options *o,
                        struct evaluate_report *report, struct err *err);

#endif
