/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_STREAM_H
#define DUSK_BASE_STREAM_H

/* The yardsticks of memory bandwidth: stores that go past the caches, so that a store
 * does not first read its line (plain stores where the CPU has none), and an update in
 * place. Local. */

#include <stdint.h>

/* a[i] = b[i] + s c[i], or a[i] = b[i] with c NULL. n a multiple of 4; arrays aligned
 * to 16 bytes, no overlap. One thread. */
void stream_triad(int64_t n, float *a, const float *b, const float *c, float s);

/* a[i] *= s by plain stores: an update in place, as an optimizer makes it, reads its
 * lines anyway. One thread. */
void stream_update(int64_t n, float *a, float s);

#endif
