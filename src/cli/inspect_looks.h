/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CLI_INSPECT_LOOKS_H
#define DUSK_CLI_INSPECT_LOOKS_H

/* Two looks that `dusk inspect` takes into a checkpoint beside its listing. Both print
 * to stdout, a table or one JSON object. -1 with err set. */

#include <stdbool.h>

#include "mpi/comm.h"
#include "src/base/err.h"
#include "src/base/log.h"

/* Draws which source layer each layer came from, a row for each run of the map, no
 * wider than 80 characters. Local. */
int inspect_map(const char *path, bool json, struct err *err);

/* Mean, rms, largest value, NaN and Inf of each tensor, no wider than 120 characters;
 * printed by rank 0. -1 on every rank. Collective over c. */
int inspect_stats(const char *path, bool json, struct comm *c, const struct log *log,
                  struct err *err);

#endif
