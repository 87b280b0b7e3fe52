/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TOKENIZE_H
#define DUSK_IO_TOKENIZE_H

/* Text or JSON lines -> token set, streaming, the work shared by all ranks. The file is
 * the same byte for byte whatever their number. */

#include <stdbool.h>
#include <stdint.h>

#include "io/tokenizer.h"
#include "mpi/comm.h"
#include "src/base/log.h"

enum tokenize_format { TOKENIZE_AUTO, TOKENIZE_TEXT, TOKENIZE_JSONL };
enum tokenize_document { DOCUMENT_LINE, DOCUMENT_BLANK, DOCUMENT_FILE };

struct tokenize_options {
    const char *const *files;
    int files_n;
    const char *output;
    enum tokenize_format format;     /* AUTO: by extension, .jsonl or text */
    enum tokenize_document document; /* text: what separates documents */
    const char *field;               /* jsonl: the key of the text */
    double valid;  /* share of documents that go to OUTPUT's .valid.h5; 0: none */
    uint64_t seed; /* of that choice */
    bool bos, eos, parse_special, force;
};

struct tokenize_counts {
    int64_t documents, tokens, bytes, valid_documents, valid_tokens;
};

/* -1 with err set on every rank, nothing left behind. Collective. */
int tokenize(struct comm *c, const struct log *log, const struct tokenizer *t,
             const struct tokenize_options *o, struct tokenize_counts *counts,
             struct err *err);

#endif
