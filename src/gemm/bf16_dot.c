/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/bf16_dot.h"

#include "src/base/clones.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MR = BF16_MR, NR = BF16_NR, KC = BF16_KC };

/* What a kernel does with its sums: out = sums (+ in), each in its own type. in is
 * NULL, C, or the sums so far; bf16 flags say which pointer is of uint16_t. */
struct sums {
    const void *in;
    void *out;
    int64_t in_ld, out_ld;
    int in_bf16, out_bf16;
    int64_t cols;
};

/* One panel of `rows` rows times one panel of B, `pairs` words deep. */
typedef void kernel_fn(int rows, int64_t pairs, const uint32_t *a, const uint32_t *b,
                       const struct sums *s);

static float half(uint32_t word, int upper)
{
    return bf16_to_f32((uint16_t)(upper ? word >> 16 : word));
}

CLONES static void kernel_plain(int rows, int64_t pairs, const uint32_t *a,
                                const uint32_t *b, const struct sums *s)
{
    for (int i = 0; i < rows; i++) {
        float sum[NR] = {0};
        for (int64_t l = 0; l < pairs; l++) {
            float a0 = half(a[l * rows + i], 0), a1 = half(a[l * rows + i], 1);
            for (int j = 0; j < NR; j++)
                sum[j] += a0 * half(b[l * NR + j], 0) + a1 * half(b[l * NR + j], 1);
        }
        for (int j = 0; j < (int)s->cols; j++) {
            int64_t in = i * s->in_ld + j, out = i * s->out_ld + j;
            float old = !s->in       ? 0.0f
                        : s->in_bf16 ? bf16_to_f32(((const uint16_t *)s->in)[in])
                                     : ((const float *)s->in)[in];
            if (s->out_bf16)
                ((uint16_t *)s->out)[out] = bf16_from_f32(sum[j] + old);
            else
                ((float *)s->out)[out] = sum[j] + old;
        }
    }
}

#if defined(DUSK_BF16_DOT)
#define INLINE BF16_DOT_TARGET static inline __attribute__((always_inline))

/* How sums are joined with C: the common ways as constants, so that the compiler makes
 * a kernel without branches of each; or as struct sums says. */
enum join { JOIN_F32, JOIN_F32_ADD, JOIN_BF16, JOIN_BF16_ADD_F32, JOIN_ANY };

static enum join join_of(const struct sums *s)
{
    if (s->in && s->in_bf16)
        return JOIN_ANY;
    if (s->out_bf16)
        return s->in ? JOIN_BF16_ADD_F32 : JOIN_BF16;
    return s->in ? JOIN_F32_ADD : JOIN_F32;
}

INLINE void finish(__m512 sum, const enum join join, const struct sums *s, int64_t row,
                   int64_t col, __mmask16 mask)
{
    int64_t in = row * s->in_ld + col, out = row * s->out_ld + col;
    if (join == JOIN_ANY && s->in && s->in_bf16) {
        __m256i old = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)s->in + in);
        __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(old), 16);
        sum = _mm512_add_ps(sum, _mm512_castsi512_ps(wide));
    } else if (join == JOIN_F32_ADD || join == JOIN_BF16_ADD_F32 ||
               (join == JOIN_ANY && s->in)) {
        sum =
            _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, (const float *)s->in + in));
    }
    if (join == JOIN_BF16 || join == JOIN_BF16_ADD_F32 ||
        (join == JOIN_ANY && s->out_bf16))
        _mm256_mask_storeu_epi16((uint16_t *)s->out + out, mask,
                                 (__m256i)_mm512_cvtneps_pbh(sum));
    else
        _mm512_mask_storeu_ps((float *)s->out + out, mask, sum);
}

INLINE void kernel_rows(const int rows, const enum join join, int64_t pairs,
                        const uint32_t *a, const uint32_t *b, const struct sums *s)
{
    __m512 sum[MR][2];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
        sum[i][0] = sum[i][1] = _mm512_setzero_ps();
        if (join == JOIN_F32_ADD) {
            const float *c = (const float *)s->in + i * s->in_ld;
            _mm_prefetch((const char *)c, _MM_HINT_T0);
            _mm_prefetch((const char *)(c + 16), _MM_HINT_T0);
        }
    }
    for (int64_t l = 0; l < pairs; l++, a += rows, b += NR) {
        __m512bh b0 = (__m512bh)_mm512_loadu_si512(b);
        __m512bh b1 = (__m512bh)_mm512_loadu_si512(b + 16);
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[i]);
            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], x, b0);
            sum[i][1] = _mm512_dpbf16_ps(sum[i][1], x, b1);
        }
    }
    if (s->cols >= NR) {
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            finish(sum[i][0], join, s, i, 0, 0xffff);
            finish(sum[i][1], join, s, i, 16, 0xffff);
        }
        return;
    }
    uint32_t mask = (1u << s->cols) - 1u;
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
        finish(sum[i][0], join, s, i, 0, (__mmask16)mask);
        finish(sum[i][1], join, s, i, 16, (__mmask16)(mask >> 16));
    }
}

INLINE void kernel_join(int rows, const enum join join, int64_t pairs,
                        const uint32_t *a, const uint32_t *b, const struct sums *s)
{
    switch (rows) {
#define ROWS(n)                                                                        \
    case n:                                                                            \
        kernel_rows(n, join, pairs, a, b, s);                                          \
        return;
        ROWS(1)
        ROWS(2)
        ROWS(3)
        ROWS(4)
        ROWS(5)
        ROWS(6)
        ROWS(7)
        ROWS(8)
        ROWS(9)
        ROWS(10)
        ROWS(11)
        ROWS(12)
#undef ROWS
    }
}

BF16_DOT_TARGET static void kernel_avx512(int rows, int64_t pairs, const uint32_t *a,
                                          const uint32_t *b, const struct sums *s)
{
    switch (join_of(s)) {
#define JOIN(j)                                                                        \
    case j:                                                                            \
        kernel_join(rows, j, pairs, a, b, s);                                          \
        return;
        JOIN(JOIN_F32)
        JOIN(JOIN_F32_ADD)
        JOIN(JOIN_BF16)
        JOIN(JOIN_BF16_ADD_F32)
        JOIN(JOIN_ANY)
#undef JOIN
    }
}
#endif

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* One block of C over one block of k. */
struct block {
    int64_t row, rows, col, cols, from, kc;
};

static const uint32_t *panels_of_b(int native, const struct block *k,
                                   struct bf16_matrix b, struct bf16_room room)
{
    struct bf16_matrix lines = {b.p + k->col * b.col + k->from * b.row, b.col, b.row};
    bf16_pack(native, lines, k->cols, k->kc, (k->cols + NR - 1) / NR, NR, room.b);
    return room.b;
}

static void panels_of_a(int native, const struct block *k, struct bf16_matrix a,
                        struct bf16_room room)
{
    struct bf16_matrix lines = {a.p + k->row * a.row + k->from * a.col, a.row, a.col};
    bf16_pack(native, lines, k->rows, k->kc, (k->rows + MR - 1) / MR, 0, room.a);
}

/* Where the sums of a block come from and go to: C's own memory, unless C is bf16 and
 * these are not its first or last terms. */
static struct sums sums_of(const struct block *k, int64_t depth, struct bf16_target t,
                           struct bf16_room room)
{
    int bf16 = t.dtype == DTYPE_BF16, first = k->from == 0;
    int last = k->from + k->kc == depth;
    char *c = (char *)t.c + (size_t)(k->row * t.ldc + k->col) * dtype_bytes(t.dtype);
    struct sums s = {c, c, t.ldc, t.ldc, bf16, bf16, 0};
    if (first && t.beta == 0.0f)
        s.in = NULL;
    if (bf16 && !first)
        s.in = room.c, s.in_ld = room.cols, s.in_bf16 = 0;
    if (bf16 && !last)
        s.out = room.c, s.out_ld = room.cols, s.out_bf16 = 0;
    return s;
}

static void block_product(kernel_fn *kernel, const struct block *k, const uint32_t *b,
                          int64_t panel, struct sums whole, struct bf16_room room)
{
    int64_t panels = (k->rows + MR - 1) / MR, pairs = (k->kc + 1) / 2;
    size_t in_size = whole.in_bf16 ? 2 : 4, out_size = whole.out_bf16 ? 2 : 4;
    for (int64_t j = 0; j < k->cols; j += NR) {
        for (int64_t i = 0; i < panels; i++) {
            int64_t begin = bf16_panel_begin(i, panels, k->rows);
            int64_t rows = bf16_panel_begin(i + 1, panels, k->rows) - begin;
            struct sums s = whole;
            if (s.in)
                s.in = (const char *)s.in + (size_t)(begin * s.in_ld + j) * in_size;
            s.out = (char *)s.out + (size_t)(begin * s.out_ld + j) * out_size;
            s.cols = least(NR, k->cols - j);
            kernel((int)rows, pairs, room.a + begin * pairs, b + j / NR * panel, &s);
        }
    }
}

void bf16_dot(int native, int64_t m, int64_t n, int64_t k, struct bf16_matrix a,
              struct bf16_matrix b, const uint32_t *packed, int64_t panel,
              struct bf16_target t, struct bf16_room room)
{
    kernel_fn *kernel = kernel_plain;
#if defined(DUSK_BF16_DOT)
    if (native)
        kernel = kernel_avx512;
#endif
    for (int64_t row = 0; row < m; row += room.rows) {
        for (int64_t col = 0; col < n; col += room.cols) {
            for (int64_t from = 0; from < k; from += KC) {
                struct block block = {row,  least(room.rows, m - row),
                                      col,  least(room.cols, n - col),
                                      from, least(KC, k - from)};
                int64_t pairs = (block.kc + 1) / 2;
                panels_of_a(native, &block, a, room);
                const uint32_t *panels = packed
                                             ? packed + col / NR * panel + from / 2 * NR
                                             : panels_of_b(native, &block, b, room);
                block_product(kernel, &block, panels, packed ? panel : pairs * NR,
                              sums_of(&block, k, t, room), room);
            }
        }
    }
}
