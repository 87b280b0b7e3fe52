/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_HF_INDEX_H
#define DUSK_IO_HF_INDEX_H

/* Which safetensors files a model folder has: model.safetensors, or the shards that
 * model.safetensors.index.json names. transformers takes the first if both are there,
 * and so does this. All local. */

#include <jansson.h>

#include "src/base/err.h"

struct hf_index {
    char *path;  /* of the index file; NULL without one. Owned, as all here */
    json_t *map; /* tensor -> file name; NULL without an index */
    int shards;
    char **shard; /* paths, in the order of their names */
};

/* -1 with err set (ERR_INPUT; nothing to free): no weights, an index that is not valid,
 * or one that names a file that is not in the folder. The files are not opened. */
int hf_index_read(struct hf_index *x, const char *folder, struct err *err);
void hf_index_fini(struct hf_index *x);

/* The file that holds a tensor by the index, NULL if the index does not list it. */
const char *hf_index_file(const struct hf_index *x, const char *tensor);

#endif
