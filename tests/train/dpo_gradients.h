/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_TRAIN_DPO_GRADIENTS_H
#define DUSK_TESTS_TRAIN_DPO_GRADIENTS_H

/* The gradients of the oracle's pairs by TRL, beside those of a run. Failures print a
 * line and abort. */

#include "tests/train/dpo_run.h"

struct dpo_gradients {
    struct facts *stats;   /* sum, norm and largest entry of each tensor, 7 losses */
    struct arrays *sparse; /* up to 64 entries of them */
    struct arrays *whole;  /* of one loss on one policy */
};
struct dpo_gradients dpo_gradients_load(void);
void dpo_gradients_free(struct dpo_gradients *g);

/* What is compared with a limit. */
enum { DPO_FIGURES, DPO_ENTRIES, DPO_WHOLE, DPO_GRADIENTS };

/* Compares the first moments, which are to be the gradient of the mean loss over all
 * pairs; norm is the step's. Keeps the largest share of each limit in worst
 * [DPO_GRADIENTS]. false: the oracle has none of this loss. Collective over r->c. */
bool dpo_gradients_check(const struct dpo_gradients *g, struct dpo_run *r,
                         const char *policy, const char *loss, double norm,
                         double *worst);

#endif
