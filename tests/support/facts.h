/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_SUPPORT_FACTS_H
#define DUSK_TESTS_SUPPORT_FACTS_H

/* The oracle's numbers for tests: a JSON file's values by place. Paths and failures as
 * in arrays.h.
 *
 * A place is keys and indices joined by '/': "log/3/loss"; "" is the whole. The last
 * key may hold '/' itself. */

#include <stdbool.h>
#include <stdint.h>

struct facts;
struct facts *facts_load(const char *path); /* owned */
void facts_destroy(struct facts *f);        /* NULL is fine */

bool facts_has(const struct facts *f, const char *place);
int facts_count(const struct facts *f, const char *place); /* of an array or object */
const char *facts_key(const struct facts *f, const char *place, int i); /* object's */
double facts_double(const struct facts *f, const char *place);
int64_t facts_int(const struct facts *f, const char *place);
const char *facts_string(const struct facts *f, const char *place);

/* All numbers below a place, nested arrays flattened in order; owned (free). */
double *facts_doubles(const struct facts *f, const char *place, int *n);
int32_t *facts_ints(const struct facts *f, const char *place, int *n);

#endif
