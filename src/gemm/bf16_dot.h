/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_GEMM_BF16_DOT_H
#define DUSK_GEMM_BF16_DOT_H

/* dusk's own bf16 products, by the instruction VDPBF16PS (a vector of dot products of
 * pairs) or in plain C. The scheme is Goto and van de Geijn's ("Anatomy of
 * high-performance matrix multiplication", 2008): operands are packed in panels, a
 * panel of A times a panel of B is summed in registers.
 *
 * A panel of A holds BF16_MR rows (the last ones fewer), a panel of B BF16_NR columns;
 * words of two bf16 that follow each other along k, [k / 2][width], the lower half
 * first; zeros beyond an odd k and beyond the last column.
 *
 * An element is a sum over blocks of BF16_KC along k, each one chain from zero: its
 * bits depend on k and the kernel only. Private to the folder. */

#include "src/gemm/bf16_backend.h"

/* The compiler knows the instruction; whether the CPU does is asked at run time. */
#if defined(__x86_64__) &&                                                             \
    ((defined(__clang__) && __clang_major__ >= 9) ||                                   \
     (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 10))
#define DUSK_BF16_DOT 1
#define BF16_DOT_TARGET                                                                \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#endif

enum { BF16_MR = 12, BF16_NR = 32, BF16_KC = 1024 };

/* Room for one C block of a thread; in words of 4 bytes. c is used when C is bf16 and k
 * longer than one block. */
struct bf16_room {
    int64_t rows, cols; /* of a block at most; multiples of BF16_MR and BF16_NR */
    uint32_t *a, *b;    /* rows x kc / 2, cols x kc / 2; b unused if B is packed */
    float *c;           /* rows x cols; if there are sums to keep */
};

/* Rows are shared evenly among the panels, so that no kernel runs nearly empty: the
 * first row of panel i of `panels`. */
static inline int64_t bf16_panel_begin(int64_t i, int64_t panels, int64_t rows)
{
    return i * rows / panels;
}

/* Packs `lines` lines of k elements; line i's element l is at p[i * row + l * col] of
 * from, one of row and col is 1. Panels are `width` lines wide (B's), or, if width is
 * 0, share the lines evenly (A's); they follow each other in `to`. */
void bf16_pack(int native, struct bf16_matrix from, int64_t lines, int64_t k,
               int64_t panels, int64_t width, uint32_t *to);

/* C[m,n] = A[m,k] B[k,n] + beta C on the calling thread, k >= 1. packed: if not NULL,
 * B's panels, the whole of k, `panel` words apart (b is then not read). */
void bf16_dot(int native, int64_t m, int64_t n, int64_t k, struct bf16_matrix a,
              struct bf16_matrix b, const uint32_t *packed, int64_t panel,
              struct bf16_target t, struct bf16_room room);

/* Words of one panel of B that holds the whole of k. */
static inline int64_t bf16_panel_words(int64_t k)
{
    return (k + 1) / 2 * BF16_NR;
}

static inline int64_t bf16_packed_words(int64_t k, int64_t n)
{
    return (n + BF16_NR - 1) / BF16_NR * bf16_panel_words(k);
}

/* Rooms of as many threads as there may be now. 0, or -1 with err set; destroy takes
 * both. */
int bf16_rooms_create(struct gemm *g, struct err *err);
void bf16_rooms_destroy(struct gemm *g);

/* Room for B's panels in products that would pack B again and again, the largest that
 * was prepared. Others pack it block by block: with the same bits, but slower. */
int bf16_shared_prepare(struct gemm *g, int64_t m, int64_t n, int64_t k,
                        struct err *err);

/* The product by all threads that have a room. */
void bf16_dot_all(const struct gemm *g, int64_t m, int64_t n, int64_t k,
                  struct bf16_matrix a, struct bf16_matrix b, const uint32_t *packed,
                  struct bf16_target t);

/* All panels of a B operand, by all threads. */
void bf16_pack_all(const struct gemm *g, int64_t k, int64_t n, struct bf16_matrix b,
                   uint32_t *to);

/* By the calling thread, in memory of its stack. */
void bf16_dot_tile(const struct gemm *g, int64_t m, int64_t n, int64_t k,
                   struct bf16_matrix a, struct bf16_matrix b, struct bf16_target t);

#endif
