/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_BAD_LINES_H
#define DUSK_TRAIN_BAD_LINES_H

/* Bad lines of the input that ranks meet while they share its chunks: the first of
 * them in the order of the input, whichever rank met which. */

#include <stdbool.h>
#include <stdint.h>

#include "mpi/comm.h"
#include "src/train/make_records.h"

struct bad_lines {
    int64_t all; /* met by this rank */
    struct {
        int64_t chunk;
        char text[BAD_LINE_BYTES];
    } line[BAD_LINES]; /* the first of them */
};

/* Is there no place for a text any more? Local. */
bool bad_lines_full(const struct bad_lines *b);

/* The next one, in rising order of chunks; a long text is cut. Local. */
void bad_lines_add(struct bad_lines *b, int64_t chunk, const char *text);

/* The first BAD_LINES of all ranks, how many there are. Collective over c. */
int bad_lines_gather(const struct bad_lines *b, struct comm *c,
                     char lines[BAD_LINES][BAD_LINE_BYTES]);

/* A file in which a rank that stops at a chunk says so, that the others need not go on
 * behind it: INT64_MAX if there is none. A failure to write it costs time only. Local.
 */
void bad_chunk_write(const char *path, int64_t chunk);
int64_t bad_chunk_read(const char *path);

#endif
