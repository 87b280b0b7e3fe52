/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TOKENIZE_H
#define DUSK_IO_TOKENIZE_H

/* Text or JSON lines -> token set, streaming, the work shared by all ranks. The file is
 * the same byte for byte whatever their number: inputs are cut into fixed byte ranges
 * (io/text_chunks.h), chunk i is encoded by rank i modulo ranks into a file of its own
 * (io/token_spill.h), and the chunks are then put together in order
 * (io/token_gather.h). */

#include <stdbool.h>
#include <stdint.h>

#include "io/text_chunks.h"
#include "io/tokenizer.h"
#include "mpi/comm.h"
#include "src/base/log.h"

enum tokenize_format { TOKENIZE_AUTO, TOKENIZE_TEXT, TOKENIZE_JSONL };

struct tokenize_options {
    const char *const *files;
    int files_n;
    const char *output;
    enum tokenize_format format; /* AUTO: .jsonl and .json are JSON lines, else text */
    enum text_rule document;     /* text: what a document is */
    const char *field;           /* jsonl: the key of the text */
    double valid;  /* share of documents that go to OUTPUT's .valid.h5; 0: none */
    uint64_t seed; /* of that choice */
    bool bos, eos, parse_special, force;
    int64_t chunk_bytes; /* 0: TEXT_CHUNK_BYTES. No result depends on it. */
};

struct tokenize_counts {
    int64_t documents, tokens; /* in OUTPUT */
    int64_t valid_documents, valid_tokens;
    int64_t bytes; /* of the input files */
};

/* Writes OUTPUT, and with `valid` its validation set: both or none. Counts are given to
 * all ranks. -1 with err set on every rank, nothing left behind, old files whole.
 * Collective. */
int tokenize(struct comm *c, const struct log *log, const struct tokenizer *t,
             const struct tokenize_options *o, struct tokenize_counts *counts,
             struct err *err);

#endif
