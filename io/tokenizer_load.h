/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TOKENIZER_LOAD_H
#define DUSK_IO_TOKENIZER_LOAD_H

/* A tokenizer from where users keep one: a checkpoint (file or folder), or a
 * tokenizer.model. */

#include "io/tokenizer.h"
#include "mpi/comm.h"

/* Rank 0 alone reads a tokenizer.model. A checkpoint without one is ERR_INPUT. Owned;
 * NULL on every rank with err set. Collective over c. */
struct tokenizer *tokenizer_load(struct comm *c, const char *path, struct err *err);

#endif
