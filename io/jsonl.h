/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_JSONL_H
#define DUSK_IO_JSONL_H

/* One line of a JSON-lines file: an object with the text in one of its fields. Strict:
 * duplicate keys, NUL and deep nesting are errors. Local. */

#include <jansson.h>
#include <stddef.h>

#include "src/base/err.h"

/* The string object[field] of a line. Owned (json_decref); NULL with err set
 * (ERR_INPUT) to what was expected and found, without the place, which the caller puts
 * in front. */
json_t *jsonl_text(const char *line, size_t bytes, const char *field, struct err *err);

#endif
