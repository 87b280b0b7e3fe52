/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_HF_EXPORT_H
#define DUSK_IO_HF_EXPORT_H

/* dusk checkpoint -> Hugging Face folder that transformers loads: config.json,
 * model.safetensors or shards with an index, tokenizer and generation files. The folder
 * appears by one rename. */

#include <stdbool.h>
#include <stdint.h>

#include "mpi/comm.h"
#include "src/base/dtype.h"
#include "src/base/log.h"

struct hf_export_options {
    const char *checkpoint, *output;
    bool keep; /* each tensor in its source's dtype; else `dtype` */
    enum dtype dtype;
    int64_t shard_bytes; /* most tensor bytes in a file; a larger tensor has its own */
    bool force;
};

/* -1 with err set on every rank, nothing left behind. Collective. */
int hf_export(struct comm *c, const struct log *log, const struct hf_export_options *o,
              struct err *err);

#endif
