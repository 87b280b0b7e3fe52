/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CONFIG_RULES_H
#define DUSK_CONFIG_RULES_H

/* What no single key can say: combinations of keys that must hold together. Local. */

#include "src/config/run.h"
#include "src/config/tree.h"

/* Fills in what follows from other keys (heads of a random model), then checks. root
 * tells the places. 0, or -1 with err set (ERR_USAGE). */
int rules_check(struct run *r, const struct tree_node *root, struct err *err);

#endif
