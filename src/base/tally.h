/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_TALLY_H
#define DUSK_BASE_TALLY_H

/* Seconds by kind of work, for whoever wants to know where a step goes. The owner hands
 * a tally to the gemm context, which the model's operations share; without one, nobody
 * looks at the clock. Kinds do not nest: attention's own tile products are attention.
 * Written by the thread that starts the work. Local. */

#include "src/base/clock.h"

enum tally_kind { TALLY_GEMM, TALLY_ATTENTION, TALLY_PACKING, TALLY_KINDS };

struct tally {
    double seconds[TALLY_KINDS];
};

/* tally may be NULL in both. */
static inline double tally_begin(const struct tally *tally)
{
    return tally ? clock_s() : 0.0;
}

static inline void tally_end(struct tally *tally, enum tally_kind kind, double begin_s)
{
    if (tally)
        tally->seconds[kind] += clock_s() - begin_s;
}

#endif
