/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CONFIG_PATH_H
#define DUSK_CONFIG_PATH_H

/* Dotted paths ("model.shape.head_dim") in a YAML tree. Local. */

#include "src/config/tree.h"

enum { PATH_BYTES = 256 }; /* longer than any key of the schema */

struct tree_node *path_find(const struct tree_node *root, const char *path);

/* Where the value stands, or the deepest section of its path that the file has. */
struct tree_place path_place(const struct tree_node *root, const char *path);

/* Puts an owned value there, in the place of an older one, making missing sections. 0,
 * or -1 with err set and value freed. */
int path_put(struct tree_node *root, const char *path, struct tree_node *value,
             struct err *err);

#endif
