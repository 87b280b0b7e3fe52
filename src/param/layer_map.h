/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_PARAM_LAYER_MAP_H
#define DUSK_PARAM_LAYER_MAP_H

/* A layer remap: new layer i is source layer source[i]. Depth up-scaling by SOLAR's
 * recipe (arXiv 2312.15166) of n layers with m dropped is "0:n-m,m:n". Pure, local. */

#include "src/base/err.h"

struct layer_map {
    int source_layers; /* layers of the source model */
    int layers;        /* entries of source */
    int *source;       /* owned */
};

/* Parses "0:24,8:32": half-open ranges of source layers, any number, any overlap.
 * 0, or -1 with err set (ERR_USAGE) naming the range that is empty, reversed, out of
 * bounds or unreadable. At most 65,536 layers result. */
int layer_map_parse(struct layer_map *m, const char *ranges, int source_layers,
                    struct err *err);

/* SOLAR's m: [0, n-m) and [m, n). 1 <= m < n, else -1 with err set (ERR_USAGE). */
int layer_map_drop(struct layer_map *m, int drop, int source_layers, struct err *err);

int layer_map_identity(struct layer_map *m, int layers, struct err *err);

/* Shortest ranges text, "0:24,8:32"; owned by the caller (free), NULL with err set. */
char *layer_map_format(const struct layer_map *m, struct err *err);

void layer_map_fini(struct layer_map *m);

#endif
