/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OBJECTIVE_SDPO_H
#define DUSK_OBJECTIVE_SDPO_H

/* Stepwise DPO (arXiv 2403.19270): the pairs in chunks from easy to hard, learnt one
 * after the other. A pair is easy where the start model already gives the chosen answer
 * much more than the rejected one. The paper has no code: order and cut are ours. Pure,
 * local. */

#include "src/objective/pairs.h"

/* Pairs [0, n) by chosen minus rejected under the start model, largest first, equal
 * ones by number; NaN comes last. order [n]. -1: no memory. */
int sdpo_order(int64_t n, const struct pair_sums *start, int64_t *order,
               struct err *err);

/* The first of chunk k's pairs in that order, of n in `chunks` of sizes as equal as can
 * be: chunk k is [sdpo_begin(k), sdpo_begin(k + 1)). The same for steps. */
int64_t sdpo_begin(int64_t n, int chunks, int k);

#endif
