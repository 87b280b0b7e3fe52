/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OPTIM_MASTER_H
#define DUSK_OPTIM_MASTER_H

/* An fp32 number in two halves: the bf16 weight that products read, and a signed 16-bit
 * rest that the optimizer alone reads, so that
 *
 *     bits of the fp32 master = (weight << 16) + rest   (modulo 2^32)
 *
 * and nothing of it is lost in 4 bytes. The weight is the master rounded to nearest.
 * Ties go away from zero, not to even: 2^32 masters just fit into 2^32 pairs, and ties
 * to even would send 65,537 of them to each even weight, whose rest has 65,536 values.
 * (A tie is one value in 65,536; bf16 values are none and stay as they are.) Infinities
 * stay; a NaN of the largest payloads need not. All local. */

#include <stdint.h>
#include <string.h>

static inline float master_join(uint16_t weight, int16_t rest)
{
    uint32_t bits = ((uint32_t)weight << 16) + (uint32_t)(int32_t)rest;
    float master;
    memcpy(&master, &bits, sizeof master);
    return master;
}

static inline uint16_t master_weight(float master)
{
    uint32_t bits;
    memcpy(&bits, &master, sizeof bits);
    return (uint16_t)((bits + 0x8000u) >> 16);
}

static inline int16_t master_rest(float master)
{
    uint32_t bits;
    memcpy(&bits, &master, sizeof bits);
    return (int16_t)bits; /* what the weight lacks: the low half, as a signed number */
}

/* n masters into halves and back; rest NULL: the rounded weights alone, widened. No
 * overlap. All OpenMP threads. */
void master_split(int64_t n, const float *master, uint16_t *weight, int16_t *rest);
void master_gather(int64_t n, const uint16_t *weight, const int16_t *rest,
                   float *master);

#endif
