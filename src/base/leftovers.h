/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_LEFTOVERS_H
#define DUSK_BASE_LEFTOVERS_H

/* What a killed process left beside its result: files appear under their name complete
 * or not at all, so that a kill leaves PATH.tmp-*, which may be large. Whether its
 * process still lives, perhaps on another host, cannot be told from the name: it is
 * named, not removed. */

#include "src/base/log.h"

/* One warning for each PATH.tmp-* that is there, with its size (a folder's: of the
 * files in it). Returns how many. A silent log looks at nothing. Local. */
int leftovers_warn(const struct log *log, const char *path);

#endif
