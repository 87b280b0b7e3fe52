/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/bf16_dot.h"

#include "src/base/clones.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* One line of a panel where the source runs along the panel's width: zips two source
 * lines, of which the second is missing at the end of an odd k. */
CLONES static void zip(const uint16_t *even, const uint16_t *odd, int64_t count,
                       int64_t width, uint32_t *to)
{
    if (odd)
        for (int64_t j = 0; j < count; j++)
            to[j] = (uint32_t)even[j] | (uint32_t)odd[j] << 16;
    else
        for (int64_t j = 0; j < count; j++)
            to[j] = even[j];
    for (int64_t j = count; j < width; j++)
        to[j] = 0;
}

static void pack_plain(const uint16_t *from, int64_t ld, int64_t count, int64_t k,
                       int64_t width, uint32_t *to)
{
    for (int64_t l = 0; l < k / 2; l++) {
        for (int64_t j = 0; j < count; j++)
            memcpy(&to[l * width + j], &from[j * ld + 2 * l], sizeof *to);
        for (int64_t j = count; j < width; j++)
            to[l * width + j] = 0;
    }
    for (int64_t j = 0; k % 2 && j < width; j++)
        to[k / 2 * width + j] = j < count ? from[j * ld + k - 1] : 0;
}

#if defined(DUSK_BF16_DOT)
/* Transposes 16 x 16 words in registers: pairs, quads, then 128-bit blocks twice. */
BF16_DOT_TARGET static inline void transpose16(__m512i r[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int half = 0; half < 16; half += 8)
        for (int i = half; i < half + 4; i++) {
            t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
            t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

/* The same as pack_plain, 16 lines of the panel at a time. */
BF16_DOT_TARGET static void pack_avx512(const uint16_t *from, int64_t ld, int64_t count,
                                        int64_t k, int64_t width, uint32_t *to)
{
    for (int64_t j = 0; j < width; j += 16) {
        int64_t lanes = width - j < 16 ? width - j : 16;
        int64_t rows = count - j < lanes ? count - j : lanes;
        __mmask16 mask = (__mmask16)((1u << lanes) - 1u);
        for (int64_t l = 0; l < k; l += 32) {
            int64_t some = k - l < 32 ? k - l : 32;
            __mmask32 cut = (__mmask32)(0xffffffffu >> (32 - some));
            __m512i r[16];
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                r[i] = i < rows ? _mm512_maskz_loadu_epi16(cut, from + (j + i) * ld + l)
                                : _mm512_setzero_si512();
            transpose16(r);
            uint32_t *out = to + l / 2 * width + j;
            int64_t pairs = (some + 1) / 2;
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                if (i < pairs)
                    _mm512_mask_storeu_epi32(out + i * width, mask, r[i]);
        }
    }
}
#endif

void bf16_pack(int native, struct bf16_matrix from, int64_t count, int64_t k,
               int64_t width, uint32_t *to)
{
    if (from.row == 1) { /* along the width */
        for (int64_t l = 0; l < k; l += 2)
            zip(from.p + l * from.col, l + 1 < k ? from.p + (l + 1) * from.col : NULL,
                count, width, to + l / 2 * width);
        return;
    }
#if defined(DUSK_BF16_DOT)
    if (native) {
        pack_avx512(from.p, from.row, count, k, width, to);
        return;
    }
#endif
    (void)native;
    pack_plain(from.p, from.row, count, k, width, to);
}
