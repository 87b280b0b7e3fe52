/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_SEALED_FILL_H
#define DUSK_IO_SEALED_FILL_H

/* Fills one rank's share of an array of a sealed file, element by element in order,
 * through a buffer of whole blocks. Local. */

#include <stdint.h>

#include "io/sealed.h"

struct sealed_fill {
    struct sealed_writer *to;
    int array;
    int64_t at, end; /* next element to come; end of this rank's share */
    int64_t start;   /* element at the buffer's start */
    size_t element_bytes;
    unsigned char *buffer;
};

/* Rank `rank` of `ranks` fills an equal share of the blocks of an array of one layer.
 * 0, or -1 with err set (no memory). */
int sealed_fill_init(struct sealed_fill *f, struct sealed_writer *to, int array,
                     int64_t elements, size_t element_bytes, int rank, int ranks,
                     struct err *err);
void sealed_fill_fini(struct sealed_fill *f);

/* Elements that may be put at sealed_fill_next, >= 1 while at < end. */
int64_t sealed_fill_room(const struct sealed_fill *f);
void *sealed_fill_next(const struct sealed_fill *f);

/* n elements were put there; a full buffer, or the last, is written. */
int sealed_fill_advance(struct sealed_fill *f, int64_t n, struct err *err);

#endif
