/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OPTIM_LR_H
#define DUSK_OPTIM_LR_H

/* Learning-rate schedules, equal to those of transformers (optimization.py):
 * constant_with_warmup, linear, cosine (with min_lr), warmup_stable_decay. Pure, local.
 */

#include <stdint.h>

enum lr_schedule { LR_CONSTANT, LR_LINEAR, LR_COSINE, LR_WSD };
enum lr_decay_shape { LR_DECAY_COSINE, LR_DECAY_LINEAR, LR_DECAY_SQRT };

struct lr {
    enum lr_schedule schedule;
    enum lr_decay_shape decay_shape; /* wsd only */
    double peak, min;                /* rates; min: cosine and wsd */
    int64_t steps, warmup, decay;    /* optimizer steps; decay: wsd only */
};

/* The rate of step k (0 is the first update). k >= steps: min (0 for linear, peak for
 * constant). Warm-up rises from 0 (wsd: from min) and step 0 of it has that rate. */
double lr_at(const struct lr *lr, int64_t k);

#endif
