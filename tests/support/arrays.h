/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_SUPPORT_ARRAYS_H
#define DUSK_TESTS_SUPPORT_ARRAYS_H

/* The oracle's arrays for tests: those of a .safetensors file. JSON: facts.h.
 *
 * Paths are relative to $srcdir/tests/oracle/model ("." if srcdir is unset), or
 * absolute. For tests only: files are trusted, and whatever is missing or of another
 * type than asked for prints one line and aborts, so that no test needs to check. */

#include <stddef.h>
#include <stdint.h>

enum { ARRAY_MAX_DIMS = 8 };

struct array {
    char *name;
    char dtype[8]; /* "F32", "BF16", "F16", "I32", "I64": as in the file */
    int dims;
    int64_t dim[ARRAY_MAX_DIMS], elements;
    float *f32;   /* [elements], widened; NULL for integers */
    int32_t *i32; /* [elements], narrowed from I64 with a check; NULL for floats */
};

struct arrays {
    int count;
    struct array *array; /* in the order of the header */
};

/* Owned. */
struct arrays *arrays_load(const char *path);
void arrays_destroy(struct arrays *a); /* NULL is fine */

/* All files of a model folder: model.safetensors or its shards. Owned. */
struct arrays *arrays_load_model(const char *folder);

/* Lives as long as a. arrays_find gives NULL if there is none of this name. */
const struct array *arrays_find(const struct arrays *a, const char *name);
const struct array *arrays_get(const struct arrays *a, const char *name);

/* $srcdir/tests/oracle/model/PATH; owned (free). */
char *oracle_path(const char *path);

#endif
