/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_INPUT_PLAN_H
#define DUSK_IO_INPUT_PLAN_H

/* Input files, looked at by all ranks, and their chunks (io/text_chunks.h), chunk i for
 * rank i modulo ranks. */

#include <stdint.h>

#include "io/text_chunks.h"
#include "mpi/comm.h"

struct input_plan {
    const char *const *files; /* [files_n]; borrowed */
    int files_n;
    int64_t *file_bytes; /* [files_n] */
    int64_t bytes;       /* their sum */
    struct text_chunk *chunk;
    int64_t chunks;
}; /* {0} is empty */

/* rule[files_n]: what a document of each file is. chunk_bytes 0: TEXT_CHUNK_BYTES.
 * A file that is not there, or not the same on all ranks, is ERR_INPUT; -1 on every
 * rank with err set. Collective over c. */
int input_plan_init(struct input_plan *p, struct comm *c, const char *const *files,
                    int files_n, const enum text_rule *rule, int64_t chunk_bytes,
                    struct err *err);
void input_plan_fini(struct input_plan *p); /* local */

/* "a.txt, b.jsonl", without folders: the same input gives the same file wherever it
 * lies. A long list is cut. Owned (free); NULL with err set. Local. */
char *input_names(const char *const *files, int files_n, struct err *err);

#endif
