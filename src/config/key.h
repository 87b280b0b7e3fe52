/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CONFIG_KEY_H
#define DUSK_CONFIG_KEY_H

/* One key's value, between YAML and struct run. Local. */

#include <stdio.h>

#include "src/config/schema.h"
#include "src/config/tree.h"

/* Stores the value in r, which owns what it holds (run_fini, on failure too). 0, or -1
 * with err set: place, key, what was expected, what was found. */
int key_read(const struct key *k, const struct tree_node *node, struct run *r,
             struct err *err);

/* Writes the value as YAML in flow style, without a line end: null where the key does
 * not apply or nothing was given. Doubles read back bit for bit. */
void key_format(const struct key *k, const struct run *r, FILE *out);

/* What the key takes: "a whole number from 1 to 65536". Returns text. */
enum { KEY_EXPECTED = 192 };
const char *key_expected(const struct key *k, char text[KEY_EXPECTED]);

#endif
