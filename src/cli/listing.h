/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CLI_LISTING_H
#define DUSK_CLI_LISTING_H

/* What `dusk inspect` shows of a file: its arrays and attributes, as a table for people
 * or as one JSON object. Strings are borrowed from whatever was opened. Local. */

#include <stdbool.h>
#include <stdint.h>

#include "src/base/err.h"
#include "src/base/json.h"

enum { LISTING_DIMS = 8 };

struct listing_array {
    const char *name, *dtype;
    int dims;
    int64_t dim[LISTING_DIMS];
    int64_t elements, bytes;
};

enum listing_kind { LISTING_INT, LISTING_DOUBLE, LISTING_STRING };
struct listing_fact {
    const char *group, *name; /* group NULL: of the whole file, shown first */
    enum listing_kind kind;
    int64_t i;
    double d;
    const char *s; /* NULL: JSON null, not shown to people */
};

struct listing {
    int arrays, facts, arrays_room, facts_room;
    struct listing_array *array; /* owned */
    struct listing_fact *fact;   /* owned */
};

void listing_add_array(struct listing *l, const struct listing_array *a);
void listing_add_int(struct listing *l, const char *group, const char *name, int64_t i);
void listing_add_double(struct listing *l, const char *group, const char *name,
                        double d);
void listing_add_string(struct listing *l, const char *group, const char *name,
                        const char *s);
void listing_fini(struct listing *l);

/* To stdout. Long strings are cut and line breaks shown as spaces. */
void listing_print(const struct listing *l);

/* Facts of the file as keys, then "attributes": {group: {name: value}}, then "arrays":
 * [{name, dtype, shape, elements, bytes}], into an open object. */
void listing_json(const struct listing *l, struct json *j);

/* "1,234,567"; size >= 32. Returns text. */
const char *grouped(int64_t value, char *text, size_t size);

#endif
