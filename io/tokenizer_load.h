/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TOKENIZER_LOAD_H
#define DUSK_IO_TOKENIZER_LOAD_H

/* A tokenizer from where users keep one: a checkpoint (file or folder), or a
 * tokenizer.model. */

#include "io/ckpt.h"
#include "io/tokenizer.h"
#include "mpi/comm.h"

/* Rank 0 alone reads a tokenizer.model. A checkpoint without one is ERR_INPUT. Owned;
 * NULL on every rank with err set. Collective over c. */
struct tokenizer *tokenizer_load(struct comm *c, const char *path, struct err *err);

/* That of a checkpoint's files: tokenizer.model and the added tokens that the model has
 * rows for. `name` is for messages. Owned; NULL with err set (ERR_INPUT). Local. */
struct tokenizer *tokenizer_of_files(const struct ckpt_info *info, const char *name,
                                     struct err *err);

#endif
