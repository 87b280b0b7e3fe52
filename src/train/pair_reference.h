/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_PAIR_REFERENCE_H
#define DUSK_TRAIN_PAIR_REFERENCE_H

/* What a reference model gives to the answers of pairs: read from a file if there is
 * one of the same weights, pairs, template and precision, else computed by forward
 * passes of the engine and kept in that file (io/reference.h). A run that is killed
 * meanwhile goes on where it was. */

#include "src/base/log.h"
#include "src/train/pair_logps.h"

struct pair_reference {
    const struct log *log;
    struct pair_logps_spec spec;
    int64_t pairs;       /* of spec.pair, or of the whole set */
    const char *name;    /* of the set, for messages */
    const char *weights; /* which model, as reference_key has it */
    const char *part;    /* which pairs of the set: "" for all */
    bool sharing;        /* the engine's: it enters by rounding */
    const char *folder;  /* where the file lies, named by its key */
    const char *file;    /* NULL, or its path: refused if it was made of other things */
    /* Called once, and only if the sums are to be computed: brings the reference's
     * weights into the engine. -1 with err set on every rank. Collective. */
    int (*load)(void *context, struct err *err);
    void *context;
};

/* sums [pairs], the same on all ranks; *computed (NULL is fine): were they? -1 with err
 * set on every rank; ERR_STOPPED: a signal came (src/train/stop.h), what is done is
 * kept. Collective over the engine's world. */
int pair_reference(const struct pair_reference *r, struct pair_sums *sums,
                   bool *computed, struct err *err);

#endif
