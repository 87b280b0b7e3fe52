/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_ARENA_H
#define DUSK_MODEL_ARENA_H

/* One block of memory, cut into arrays. Run with base NULL, the same code that lays the
 * arrays out only counts their bytes, so that a plan and its memory cannot differ. */

#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"

struct arena {
    char *base; /* aligned to 64 bytes, or NULL: count only */
    int64_t used;
};

/* The next array of `count` elements, aligned to 64 bytes; NULL when counting. */
static inline void *arena_take(struct arena *a, int64_t count, size_t size)
{
    int64_t at = a->used;
    a->used += (count * (int64_t)size + 63) / 64 * 64;
    return a->base ? a->base + at : NULL;
}

static inline float *arena_floats(struct arena *a, int64_t count)
{
    return arena_take(a, count, sizeof(float));
}

static inline void *arena_elements(struct arena *a, int64_t count, enum dtype t)
{
    return arena_take(a, count, dtype_bytes(t));
}

#endif
