/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_HF_IMPORT_H
#define DUSK_IO_HF_IMPORT_H

/* Hugging Face folder -> dusk checkpoint, streaming: every rank converts its share of
 * 64 KiB multiples; resident memory does not grow with the model. */

#include <stdbool.h>

#include "mpi/comm.h"
#include "src/base/dtype.h"
#include "src/base/log.h"

struct hf_import_options {
    const char *folder, *output;
    bool keep; /* keep the source's dtypes; else `dtype` */
    enum dtype dtype;
    bool ignore_extra; /* drop unknown tensors instead of refusing them */
    bool force;        /* output may exist */
};

/* The source is validated whole before a byte is written: config, index, every header,
 * names, shapes, tokenizer. -1 with err set on every rank, nothing left behind.
 * Warns (log) of NaN or Inf in weights by tensor. Collective. */
int hf_import(struct comm *c, const struct log *log, const struct hf_import_options *o,
              struct err *err);

#endif
