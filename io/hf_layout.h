/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_HF_LAYOUT_H
#define DUSK_IO_HF_LAYOUT_H

/* What an exported folder will hold, before a byte of it is written: which tensor goes
 * to which safetensors file, where, and every file's header. The same on all ranks. */

#include <stddef.h>
#include <stdint.h>

#include "io/hf_place.h"

struct hf_shard {
    char *header; /* all before the tensors; owned */
    size_t header_bytes;
    int64_t bytes; /* of the whole file */
};

struct hf_layout {
    struct model_shape shape;
    struct hf_place *place; /* by index in the table; owned */
    int shards;
    struct hf_shard *shard; /* owned */
    int64_t tensor_bytes;   /* of all files */
};

/* Cuts n tensors of these bytes into files of at most `limit` bytes of tensors, as
 * huggingface_hub's split_state_dict_into_shards_factory does: in order; a tensor
 * larger than the limit has a file of its own, and those after it go on in the file
 * that was being filled. Fills shard[n] (from 0, numbered as files are closed) and
 * returns their number. limit >= 1. Pure. */
int hf_shards_cut(const int64_t *bytes, int n, int64_t limit, int *shard);

/* dtype[table_count(s)]: of each tensor. 0, or -1 with err set and nothing to free.
 * Local. */
int hf_layout_init(struct hf_layout *l, const struct model_shape *s,
                   const enum dtype *dtype, int64_t shard_bytes, struct err *err);
void hf_layout_fini(struct hf_layout *l);

/* "model.safetensors", or "model-00002-of-00005.safetensors"; size >= 64. */
void hf_layout_file(const struct hf_layout *l, int shard, char *name, size_t size);

/* The text of model.safetensors.index.json; owned (free), NULL with err set. */
char *hf_layout_index(const struct hf_layout *l, struct err *err);

#endif
