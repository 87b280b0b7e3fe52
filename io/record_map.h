/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_RECORD_MAP_H
#define DUSK_IO_RECORD_MAP_H

/* The keys under which a file has the fields of its records: as they are named here, or
 * as the user renames them. Local. */

#include "src/base/err.h"

enum record_field {
    FIELD_MESSAGES,
    FIELD_ROLE,
    FIELD_CONTENT,
    FIELD_CONVERSATIONS,
    FIELD_FROM,
    FIELD_VALUE,
    FIELD_INSTRUCTION,
    FIELD_INPUT,
    FIELD_OUTPUT,
    FIELD_PROMPT,
    FIELD_COMPLETION,
    FIELD_SYSTEM_PROMPT,
    FIELD_QUESTION,
    FIELD_RESPONSE,
    FIELD_TEXT,
    FIELD_CHOSEN,
    FIELD_REJECTED,
    FIELD_SYSTEM,
    RECORD_FIELDS
};

enum { RECORD_KEY_BYTES = 64 };

struct record_map {
    char key[RECORD_FIELDS][RECORD_KEY_BYTES];
};

const char *record_field_name(enum record_field field); /* "messages", ... */

/* Every field under its own name. */
void record_map_init(struct record_map *m);

/* Applies "prompt=question,chosen=good": field prompt is read from key "question". -1
 * with err set (ERR_USAGE): no such field, named twice, no key, too long a key. */
int record_map_parse(struct record_map *m, const char *renames, struct err *err);

#endif
