/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_HF_TIED_H
#define DUSK_IO_HF_TIED_H

/* A tied model whose file holds lm_head.weight all the same: transformers 4 ties it to
 * embed_tokens whatever it holds, transformers 5 keeps it if it differs. Only equal
 * bytes leave no doubt which model is meant. Local. */

#include <stdint.h>

#include "io/hf_source.h"

/* 0 if both hold the same `elements` in the same dtype, else -1 with err set. */
int hf_tied_compare(const char *embed_path, const struct hf_place *embed,
                    const char *head_path, const struct hf_place *head,
                    int64_t elements, struct err *err);

#endif
