/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_RECORDS_H
#define DUSK_IO_RECORDS_H

/* One line of a JSON-lines file as a record (src/base/record.h).
 *
 * | shape | fields |
 * | messages | messages: [{role, content}] |
 * | sharegpt | conversations: [{from, value}], from: human, gpt, system |
 * | alpaca | instruction, input (optional), output |
 * | completion | prompt, completion: strings |
 * | openorca | system_prompt (optional), question, response |
 * | text | text |
 * | pairs | chosen, rejected: two strings, two replies as lists of messages, or two
 *   whole conversations, whose common messages are the prompt; else prompt (or
 *   question): a string or messages; system (optional): a string |
 *
 * Strict: JSON that is not well-formed, duplicate keys, deep nesting, NUL, invalid
 * UTF-8 and long lines are errors, and so are messages that no template can place.
 * Errors (ERR_INPUT) say what was expected and found without the place, which the
 * caller puts in front (err_prefix: "file:line"). Local. */

#include <stddef.h>

#include "io/record_map.h"
#include "src/base/err.h"
#include "src/base/record.h"

enum { RECORD_LINE_BYTES = 16 << 20 };

/* A parser: the memory of one record. Not for two threads at once. */
struct records;

/* map: copied; NULL: no renames. Owned; NULL with err set. */
struct records *records_create(const struct record_map *map, struct err *err);
void records_destroy(struct records *p); /* NULL is fine */

/* The shape of a line, by its fields: chosen and rejected make pairs, whatever else is
 * there, then the order of the table. -1 with err set if none fits. */
int records_recognise(struct records *p, const char *line, size_t bytes,
                      enum record_shape *shape, struct err *err);

/* The record of a line of that shape. *r and its texts live until the next call on p.
 * -1 with err set. */
int records_parse(struct records *p, enum record_shape shape, const char *line,
                  size_t bytes, struct record *r, struct err *err);

#endif
