/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_STREAM_H
#define DUSK_BASE_STREAM_H

/* Stores that go past the caches, so that a store does not first read its line: the
 * yardstick of memory bandwidth. Plain stores where the CPU has none. Local. */

#include <stdint.h>

/* a[i] = b[i] + s c[i], or a[i] = b[i] with c NULL. n a multiple of 4; arrays aligned
 * to 16 bytes, no overlap. One thread. */
void stream_triad(int64_t n, float *a, const float *b, const float *c, float s);

#endif
