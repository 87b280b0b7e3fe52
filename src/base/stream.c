/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/stream.h"

#include <stddef.h>

#include "src/base/clones.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

void stream_triad(int64_t n, float *a, const float *b, const float *c, float s)
{
#if defined(__x86_64__) /* SSE2 is in every x86-64 */
    __m128 factor = _mm_set1_ps(s);
    for (int64_t i = 0; i < n; i += 4) {
        __m128 x = _mm_load_ps(b + i);
        if (c)
            x = _mm_add_ps(x, _mm_mul_ps(factor, _mm_load_ps(c + i)));
        _mm_stream_ps(a + i, x);
    }
    _mm_sfence();
#else
    for (int64_t i = 0; i < n; i++)
        a[i] = c ? b[i] + s * c[i] : b[i];
#endif
}

CLONES void stream_update(int64_t n, float *a, float s)
{
    for (int64_t i = 0; i < n; i++)
        a[i] *= s;
}
