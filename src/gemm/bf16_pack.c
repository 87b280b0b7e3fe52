/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/bf16_dot.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* A panel's part: pairs [begin, end) of `count` lines of k elements, the panel being
 * `width` wide. A line's elements lie side by side and are turned, or those of one
 * element's lines do (from->row is 1), and two rows of the source are zipped. */
struct part {
    int64_t count, width, k, begin, end;
};
typedef void part_fn(const struct bf16_matrix *from, const struct part *p,
                     uint32_t *to);

static void zip_plain(const struct bf16_matrix *from, const struct part *p,
                      uint32_t *to)
{
    for (int64_t l = p->begin; l < p->end; l++) {
        const uint16_t *even = from->p + 2 * l * from->col;
        for (int64_t j = 0; j < p->width; j++) {
            uint32_t low = j < p->count ? even[j] : 0;
            uint32_t high = j < p->count && 2 * l + 1 < p->k ? even[from->col + j] : 0;
            to[l * p->width + j] = low | high << 16;
        }
    }
}

static void turn_plain(const struct bf16_matrix *from, const struct part *p,
                       uint32_t *to)
{
    for (int64_t l = p->begin; l < p->end; l++)
        for (int64_t j = 0; j < p->width; j++) {
            const uint16_t *pair = from->p + j * from->row + 2 * l;
            uint32_t low = j < p->count ? pair[0] : 0;
            uint32_t high = j < p->count && 2 * l + 1 < p->k ? pair[1] : 0;
            to[l * p->width + j] = low | high << 16;
        }
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

static inline __mmask16 lanes16(int64_t n)
{
    if (n <= 0)
        return 0;
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1u);
}

BF16_DOT_TARGET static void turn_avx512(const struct bf16_matrix *from,
                                        const struct part *p, uint32_t *to)
{
    for (int64_t j = 0; j < p->width; j += 16) {
        int64_t rows = p->count - j;
        __mmask16 mask = lanes16(p->width - j);
        for (int64_t l = p->begin; l < p->end; l += 16) {
            int64_t some = p->k - 2 * l < 32 ? p->k - 2 * l : 32;
            __mmask32 cut = (__mmask32)(0xffffffffu >> (32 - some));
            __m512i r[16];
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                r[i] = i < rows ? _mm512_maskz_loadu_epi16(
                                      cut, from->p + (j + i) * from->row + 2 * l)
                                : _mm512_setzero_si512();
            transpose16(r);
            uint32_t *out = to + l * p->width + j;
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                if (l + i < p->end)
                    _mm512_mask_storeu_epi32(out + i * p->width, mask, r[i]);
        }
    }
}

/* 16 words of one pair of rows: of `in` lines, `odd` of which have a second row. */
BF16_DOT_TARGET static inline __m512i zip16(const uint16_t *even, int64_t ld,
                                            __mmask16 in, __mmask16 odd)
{
    __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(in, even));
    __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(odd, even + ld));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

BF16_DOT_TARGET static void zip_avx512(const struct bf16_matrix *from,
                                       const struct part *p, uint32_t *to)
{
    int64_t ld = from->col, width = p->width,
            whole = p->k / 2 < p->end ? p->k / 2 : p->end;
    for (int64_t j = 0; j < width; j += 16) {
        __mmask16 in = lanes16(p->count - j), out = lanes16(width - j);
        const uint16_t *even = from->p + 2 * p->begin * ld + j;
        uint32_t *word = to + p->begin * width + j;
        for (int64_t l = p->begin; l < whole; l++, even += 2 * ld, word += width)
            _mm512_mask_storeu_epi32(word, out, zip16(even, ld, in, in));
        if (whole < p->end)
            _mm512_mask_storeu_epi32(word, out, zip16(even, ld, in, 0));
    }
}
#endif

void bf16_pack(int native, struct bf16_matrix from, int64_t lines, int64_t k,
               int64_t panels, int64_t width, uint32_t *to)
{
    /* Zipping reads a few rows along all panels before it goes on: rows may lie 4 KiB
     * apart and share one set of the caches. */
    enum { FEW = 16 };
    int zips = from.row == 1;
    int64_t pairs = (k + 1) / 2, step = zips ? FEW : pairs;
    part_fn *work = zips ? zip_plain : turn_plain;
#if defined(DUSK_BF16_DOT)
    if (native)
        work = zips ? zip_avx512 : turn_avx512;
#endif
    (void)native;
    for (int64_t l = 0; l < pairs; l += step)
        for (int64_t i = 0; i < panels; i++) {
            int64_t begin = width ? i * width : bf16_panel_begin(i, panels, lines);
            int64_t end =
                width ? begin + width : bf16_panel_begin(i + 1, panels, lines);
            struct part p = {(end < lines ? end : lines) - begin, end - begin, k, l,
                             l + step < pairs ? l + step : pairs};
            struct bf16_matrix lines_from = {from.p + begin * from.row, from.row,
                                             from.col};
            work(&lines_from, &p, to + begin * pairs);
        }
}
