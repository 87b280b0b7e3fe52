/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CLI_TOKENS_SHOW_H
#define DUSK_CLI_TOKENS_SHOW_H

/* `dusk tokens --show`: a document of a token set, or a record, pair or pack of a
 * record set, token by token on stdout. */

#include "io/tokenizer.h"
#include "mpi/comm.h"

/* Number `number`, counted from 0, of the file. ERR_USAGE if there are not so many,
 * ERR_INPUT if the file was made with another tokenizer. Collective over world. */
int tokens_show(const char *path, int64_t number, struct comm *world,
                const struct tokenizer *t, struct err *err);

#endif
