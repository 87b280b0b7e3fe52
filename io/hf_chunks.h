/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_HF_CHUNKS_H
#define DUSK_IO_HF_CHUNKS_H

/* How ranks share a conversion: every tensor is cut into chunks of HF_CHUNK elements
 * (a multiple of the checkpoint's blocks in every dtype), and each rank takes one run
 * of them, so that its reads follow each other. A chunk stays in a core's cache from
 * read to write, 256 to 512 KiB; the system's read-ahead and write-back make large
 * transfers of them. Pure, local. */

#include <stdbool.h>
#include <stdint.h>

enum { HF_CHUNK = 1 << 17 };

struct hf_chunks {
    const int64_t *elements; /* of each tensor, in the order of the walk; borrowed */
    int tensors;
    int tensor; /* the current chunk: elements [begin, begin + n) of this tensor */
    int64_t begin, n;
    int64_t left; /* chunks to come */
};

/* The share of one rank; then hf_chunks_next until it returns false. */
void hf_chunks_begin(struct hf_chunks *k, const int64_t *elements, int tensors,
                     int rank, int ranks);
bool hf_chunks_next(struct hf_chunks *k);

#endif
