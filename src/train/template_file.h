/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_TEMPLATE_FILE_H
#define DUSK_TRAIN_TEMPLATE_FILE_H

/* Chat templates by their name, or from a small YAML file:
 *
 *   name: mine
 *   user_before: "Q: "           # parts by template_part_name(), "{bos}" and "{eos}"
 *   user_after: "\n"             # in them stand for the tokenizer's pieces
 *   reply_before: "A:"
 *   reply_end: "{eos}"
 *   eos: "<|end|>"               # default: the tokenizer's
 *   tokens: ["<|end|>"]          # added tokens that the tokenizer must have
 *   system: turn                 # turn (default), merged, refused
 *   bos: true                    # and the other flags of struct template_spec
 *
 * What template_describe() writes is such a file. */

#include "io/tokenizer.h"
#include "mpi/comm.h"
#include "src/objective/template.h"

/* From YAML text[bytes]; `source` is for messages. Owned; NULL with err set (ERR_USAGE,
 * with the place): an unknown key, a value of the wrong kind. Local. */
struct template *template_parse(const char *source, const char *text, size_t bytes,
                                const struct tokenizer *t, struct err *err);

/* A built-in one, or, if `name` has a '/' or ends in .yaml or .yml, that of a file,
 * of at most 8 KiB, which rank 0 reads. Owned; NULL on every rank with err set.
 * Collective over c. */
struct template *template_load(struct comm *c, const char *name,
                               const struct tokenizer *t, struct err *err);

#endif
