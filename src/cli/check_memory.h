/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CLI_CHECK_MEMORY_H
#define DUSK_CLI_CHECK_MEMORY_H

#include <stdint.h>

#include "src/base/err.h"
#include "src/config/run.h"

/* Prints where the memory of each of `ranks` ranks will go (0: as many as the run file
 * says, pipeline x data, data 1 where it leaves that open). Opens model.init's
 * checkpoint for its shape. -1 with err set. Local, to stdout. */
int check_memory(const struct run *run, int64_t ranks, struct err *err);

#endif
