/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_TICKER_H
#define DUSK_TRAIN_TICKER_H

/* What a person sees of a training run: on a terminal a bar that redraws, in a log a
 * plain line every `every` steps, both with loss, rate, gradient norm, tokens/s and
 * time left; in a log also what there is to note of the step. A NULL or silent log
 * shows nothing. Local. */

#include <stdbool.h>
#include <stdint.h>

#include "src/base/log.h"

struct ticker {
    const struct log *log; /* borrowed */
    bool terminal;
    int64_t every, steps, first;
    double start_s;
    bool drawn; /* a bar stands on the line */
};

struct ticker_step {
    int64_t step; /* after this many updates */
    double loss, lr, grad_norm, tokens_per_s;
    const char *note; /* in a log a line of its own below; NULL: none */
};

void ticker_begin(struct ticker *t, const struct log *log, int64_t every, int64_t first,
                  int64_t steps);
void ticker_step(struct ticker *t, const struct ticker_step *s);

/* Leaves the bar's line, so that another line can be printed. */
void ticker_pause(struct ticker *t);

/* "1:02:03" or "2:03"; size >= 24. */
void ticker_time(double seconds, char *text, size_t size);

#endif
