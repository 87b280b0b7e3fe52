/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_JSON_READ_H
#define DUSK_IO_JSON_READ_H

/* Reading JSON that others wrote, strictly: bounded size, duplicate keys refused, every
 * error names the file, the key, what was expected and what was found (ERR_INPUT).
 * `where` is what messages start with, a path. All local. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/err.h"

/* An object from text (not NUL-terminated). Whole numbers that 64 bits do not hold are
 * read as real ones. Owned (json_decref); NULL with err set. */
json_t *json_read_text(const char *text, size_t bytes, const char *where,
                       struct err *err);

/* An object from a file of at most `limit` bytes. Owned; NULL with err set. */
json_t *json_read_file(const char *path, size_t limit, struct err *err);

/* "the string "12"", "the real number 1.5", "null", "a list": what a value is, for
 * messages; size >= 64. */
void json_read_describe(const json_t *value, char *text, size_t size);

/* "a", "b", "c": the keys of an object for messages, cut where the room ends. */
void json_read_keys(json_t *object, char *text, size_t size);

/* Fetch object[key]. Absent (and null, which Hugging Face writes for "not set") leaves
 * *value as it is and *given false; a value of another type or outside [min, max] is an
 * error. `given` may be NULL: then absent is an error too. */
int json_read_int(const json_t *object, const char *key, const char *where, int64_t min,
                  int64_t max, int64_t *value, bool *given, struct err *err);
int json_read_number(const json_t *object, const char *key, const char *where,
                     double *value, bool *given, struct err *err);
int json_read_bool(const json_t *object, const char *key, const char *where,
                   bool *value, bool *given, struct err *err);
/* Borrowed from the object. */
int json_read_string(const json_t *object, const char *key, const char *where,
                     const char **value, bool *given, struct err *err);

/* Copies a string for a message: control bytes become '?', a long one is cut with
 * "...". Returns `to`. */
const char *text_printable(char *to, size_t size, const char *from);

#endif
