/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_HF_NONFINITE_H
#define DUSK_IO_HF_NONFINITE_H

/* Counts NaN and Inf in stored weights: those whose exponent bits are all ones. */

#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/log.h"
#include "src/param/table.h"

/* Local. */
int64_t nonfinite_count(enum dtype t, const void *values, int64_t n);

/* One warning a tensor (at most ten, then how many more): found[i] values of tensor i
 * of the table are NaN or Inf, made[i] of them by rounding to a narrower dtype. Both
 * [table_count]. Local. */
void nonfinite_warn(const struct log *log, const char *what,
                    const struct model_shape *s, const int64_t *found,
                    const int64_t *made);

#endif
