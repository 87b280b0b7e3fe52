/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_JSON_H
#define DUSK_BASE_JSON_H

/* Writing JSON: values are appended to a growing string, commas and escapes are its
 * business. Doubles are written with %.17g, so that they read back bit for bit; NaN and
 * infinities, which JSON lacks, become the strings "NaN", "Infinity", "-Infinity".
 * Keys are NULL inside arrays and for the outermost value. Names stay clear of
 * jansson's, which is linked into the same program (it has a json_string). All local.
 *
 *     struct json j = {0};
 *     json_begin(&j, NULL, '{');
 *     json_int(&j, "step", 3);
 *     json_end(&j, '}');
 *     fputs(j.text, f);
 *     json_fini(&j);
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json {
    char *text; /* NUL-terminated after the first value; owned */
    size_t used, room;
    bool first; /* the next value needs no comma */
};

void json_begin(struct json *j, const char *key, char bracket); /* '{' or '[' */
void json_end(struct json *j, char bracket);                    /* '}' or ']' */
void json_int(struct json *j, const char *key, int64_t value);
void json_uint(struct json *j, const char *key, uint64_t value);
void json_double(struct json *j, const char *key, double value);
void json_bool(struct json *j, const char *key, bool value);
void json_text(struct json *j, const char *key, const char *value); /* NULL: null */
void json_clear(struct json *j); /* empty again, its memory kept */
void json_fini(struct json *j);

#endif
