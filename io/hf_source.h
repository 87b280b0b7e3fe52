/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_HF_SOURCE_H
#define DUSK_IO_HF_SOURCE_H

/* A Hugging Face model folder, checked whole: config.json, the index, every safetensors
 * header, names, dtypes and shapes of all tensors, the tokenizer's vocabulary. The
 * result says where each tensor of the model lies. */

#include <stdbool.h>
#include <stdint.h>

#include "io/ckpt.h"
#include "io/hf_place.h"
#include "mpi/comm.h"
#include "src/base/log.h"

struct hf_source {
    struct model_shape shape;
    int shards;
    char **shard; /* paths; owned */
    int tensors;
    struct hf_place *place; /* [tensors], owned; shard -1 while not found */
    int files;
    struct ckpt_file
        *file; /* config.json, tokenizer and generation files, as they are */
};

/* Lines to the log about what is dropped. -1 with err set (nothing to free). Reads
 * headers only, but for a tied model's lm_head.weight, which must equal embed_tokens.
 * Local. */
int hf_source_read(struct hf_source *s, const char *folder, bool ignore_extra,
                   const struct log *log, struct err *err);

/* Rank 0's source to all; the files stay on rank 0. -1 on every rank with err set.
 * Collective. */
int hf_source_share(struct comm *c, struct hf_source *s, struct err *err);

void hf_source_fini(struct hf_source *s);

#endif
