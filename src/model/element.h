/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_ELEMENT_H
#define DUSK_MODEL_ELEMENT_H

/* Elements of arrays of either dtype, read and written as fp32. An operation is one
 * loop over these, written as an ELEMENT_INLINE function that takes the dtype; a
 * function with CLONES calls it with the dtype as a constant, so that each dtype gets
 * vector code of its own. bf16 is rounded to nearest even, NaN stays NaN. */

#include <stdint.h>
#include <string.h>

#include "src/base/dtype.h"

#define ELEMENT_INLINE static inline __attribute__((always_inline))

ELEMENT_INLINE float element_widen(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

ELEMENT_INLINE uint16_t element_round(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    uint32_t nan = bits | 0x400000u;
    return (uint16_t)(((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded) >> 16);
}

ELEMENT_INLINE float element_get(enum dtype t, const void *x, int64_t i)
{
    return t == DTYPE_F32 ? ((const float *)x)[i]
                          : element_widen(((const uint16_t *)x)[i]);
}

ELEMENT_INLINE void element_put(enum dtype t, void *x, int64_t i, float value)
{
    if (t == DTYPE_F32)
        ((float *)x)[i] = value;
    else
        ((uint16_t *)x)[i] = element_round(value);
}

/* The address of element i. */
static inline const void *element_at(enum dtype t, const void *x, int64_t i)
{
    return (const char *)x + i * (t == DTYPE_F32 ? 4 : 2);
}

static inline void *element_to(enum dtype t, void *x, int64_t i)
{
    return (char *)x + i * (t == DTYPE_F32 ? 4 : 2);
}

#endif
