/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CLI_TOKENS_RECORDS_H
#define DUSK_CLI_TOKENS_RECORDS_H

/* The side of `dusk tokens` that makes record sets. */

#include "src/cli/options.h"
#include "src/train/make_records.h"

enum { TOKENS_FORMATS = 9 };
extern const char *const tokens_formats[TOKENS_FORMATS]; /* of --format */

/* Do the options ask for a record set? A template, or a shape of records. */
bool tokens_wants_records(const struct options *o);

/* Options that do not go with the kind of set are ERR_USAGE. */
int tokens_check_kind(const struct options *o, bool records, struct err *err);

int tokens_read_records(const struct options *o, struct make_records_options *m,
                        struct err *err);

/* Makes the set and prints what became of the lines. Collective over world. */
int tokens_make_records(const struct make_records_options *m, struct comm *world,
                        const struct log *log, const struct tokenizer *t,
                        struct err *err);

#endif
