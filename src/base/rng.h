/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_RNG_H
#define DUSK_BASE_RNG_H

/* Random numbers as pure functions of their coordinates: no state to save, and the same
 * values whatever the order or the rank that asks. The mixer is SplitMix64's finaliser
 * (Steele, Lea, Flood 2014). All local. */

#include <stdint.h>

/* 64 random bits for (seed, stream, index). */
uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t index);

/* Uniform in [0, 1), 53 bits. */
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index);

/* Normal(0, 1) by Box-Muller on the two halves of one draw pair. */
double rng_normal(uint64_t seed, uint64_t stream, uint64_t index);

/* Image of i under a pseudo-random permutation of [0, n) chosen by (seed, stream), in
 * O(1) time and memory: a 6-round Feistel network on the next even number of bits,
 * walked until the value falls inside (Black and Rogaway 2002). 0 <= i < n, n >= 1. */
int64_t rng_permute(uint64_t seed, uint64_t stream, int64_t n, int64_t i);

#endif
