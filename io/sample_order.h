/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_SAMPLE_ORDER_H
#define DUSK_IO_SAMPLE_ORDER_H

/* Which window of which set is sample p of a run: a pure function of (seed, p), without
 * a stored permutation, so that resuming is one integer and no rank count enters.
 *
 * Sets are blended by weight in a fixed cycle of SAMPLE_CYCLE places, spread evenly
 * (smooth weighted round-robin over largest-remainder quotas). The n-th sample of a set
 * is window w of epoch n / N, N its number of windows: in stream order, or shuffled by
 * rng_permute keyed with (seed, set, epoch). Window w covers inputs [wT, wT + T) of the
 * stream and, one further, their targets; N = (tokens - 1) / T. Local. */

#include <stdint.h>
#include <stdbool.h>

#include "src/base/err.h"

enum { SAMPLE_CYCLE = 10000 };

struct sample_order;

struct sample {
    int set;
    int64_t window, epoch;
};

/* windows[sets] >= 1 each, weights[sets] > 0. Owned; NULL with err set (ERR_USAGE: a
 * weight below one place in the cycle, a set shorter than one window). */
struct sample_order *sample_order_create(int sets, const int64_t *windows,
                                         const double *weights, bool shuffle,
                                         uint64_t seed, struct err *err);
void sample_order_destroy(struct sample_order *o);
struct sample sample_order_at(const struct sample_order *o, int64_t position);

#endif
