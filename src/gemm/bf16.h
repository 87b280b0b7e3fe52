/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_GEMM_BF16_H
#define DUSK_GEMM_BF16_H

/* Matrix products of bf16 operands: C = op(A) op(B) + beta C, row-major, with leading
 * dimensions as in src/gemm/gemm.h. Every product accumulates in fp32. C is fp32, or
 * bf16: then the sum, old C included, is formed in fp32 and rounded once, to nearest
 * even.
 *
 * Speed comes from three habits. A weight is packed once into the library's own format
 * and used by many products (struct gemm_packed). What a library builds for a shape is
 * built before the first step (gemm_bf16_rehearse). Small products inside parallel
 * regions run on the calling thread alone (gemm_bf16_tile).
 *
 * Rows come in any number (a micro-batch may be short), and what oneDNN builds serves
 * one number. So rows are cut, not rounded up: m into pieces of 256, or, in the sum
 * over rows of (GEMM_T, GEMM_N), k into pieces of 1024, and the rest into falling
 * powers of two. A few lengths serve every number of rows, operands need no rows of
 * padding, and no row is computed that nobody reads. Pieces of k are added to C in
 * order, in fp32; if C is bf16, k stays whole.
 *
 * Bits: an element depends on the shape of the whole product, its leading dimensions,
 * the form (which of the functions below, op_a, op_b), the backend and the CPU level;
 * not on the number of threads or addresses. Own kernels promise more: sums depend on k
 * only, so tiles, packed and plain products, and products of some rows have the same
 * bits.
 *
 * bf16 values below 2^-126 may be read as zero, and results there written as zero. NaN
 * and Inf flow through: an element is NaN or Inf where arithmetic makes it so.
 */

#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/err.h"
#include "src/gemm/gemm.h"

/* 1 if this CPU multiplies bf16 by itself (AVX512_BF16 or AMX), where bf16 is faster
 * than fp32. Local. */
int gemm_bf16_native(void);

/* 1 if this program was built with what makes use of that: oneDNN, or a compiler that
 * knows VDPBF16PS. Without it, or on other CPUs, products of bf16 are right but slower
 * than fp32's: callers refuse them unless asked. Local. */
int gemm_bf16_built(void);

/* 1 if g's level has such a CPU and the build such products. Local. */
int gemm_bf16_fast(const struct gemm *g);

/* What computes g's bf16 products. GEMM_REF: plain loops, for tests. GEMM_OWN: dusk's
 * kernels, by VDPBF16PS where the level has it. GEMM_ONEDNN: what GEMM_BLIS takes where
 * the level has AMX, or AVX-512 without VDPBF16PS. Local. */
enum gemm_backend gemm_bf16_backend(const struct gemm *g);

/* The same for the log and the checkpoint: "ref", "own vdpbf16ps",
 * "onednn 2.6.3 avx512_core_amx".
 * Lives as long as g. */
const char *gemm_bf16_name(const struct gemm *g);

/* 1 if a product's bits may depend on whether its operand was packed. Local. */
int gemm_bf16_packing_matters(const struct gemm *g);

/* C[m,n] (ldc, `to` is DTYPE_F32 or DTYPE_BF16) = op(A)[m,k] op(B)[k,n] + beta C; beta
 * 0 (C may hold NaN) or 1. k = 0 scales C only. No overlap. Uses all OpenMP threads;
 * one call at a time a context, outside of parallel regions. Local.
 *
 * Linear layers, W[out,in] as stored: forward Y = X W^T is (GEMM_N, GEMM_T); input
 * gradient dX = dY W is (GEMM_N, GEMM_N); weight gradient dW += dY^T X is (GEMM_T,
 * GEMM_N) with `to` fp32 and beta 1. */
void gemm_bf16(const struct gemm *g, enum gemm_op op_a, enum gemm_op op_b, int64_t m,
               int64_t n, int64_t k, const uint16_t *a, int64_t lda, const uint16_t *b,
               int64_t ldb, enum dtype to, float beta, void *c, int64_t ldc);

/* A rehearsal: from now on, until the call with NULL, g's bf16 products and packs, of
 * all functions here, read and write no operand (pointers may be any). Instead they
 * build what the backend needs for their form with as many rows or fewer, so that the
 * same calls allocate nothing of dusk's own later: with any m up to the one given, or,
 * of (GEMM_T, GEMM_N) into fp32, any k. Strides and all other sizes are as given, and
 * all sizes where A is transposed otherwise. So a caller names its products once, by
 * making them.
 *
 * err is cleared, keeps the first failure (a code other than ERR_NONE; nothing is built
 * after it), and must live until the rehearsal ends; what was built stays g's. Products
 * that were not rehearsed build at their first call, and die by CHECK where a rehearsal
 * would have failed. Only oneDNN builds: for other backends a rehearsal changes nothing
 * in g. fp32 products are not part of it, they compute. Local; outside of parallel
 * regions. */
void gemm_bf16_rehearse(struct gemm *g, struct err *err);

/* Primitives that g has built so far: constant once all products were rehearsed. 0 of
 * backends that build none. Local. */
int64_t gemm_bf16_primitives(const struct gemm *g);

/* Own kernels: room of g's for one packed copy of B (k x n), so that a plain product of
 * many rows packs it once and not for each block of rows; products up to this size use
 * it, with the same bits. Other backends need none. 0, or -1 with err set. Local;
 * outside of parallel regions. */
int gemm_bf16_prepare_shared(struct gemm *g, int64_t m, int64_t n, int64_t k,
                             struct err *err);

/* The product on the calling thread alone; may be called inside a parallel region, by
 * all threads at once. Nothing to prepare, nothing allocated; about 200 KiB of stack.
 * By own kernels, unless g is GEMM_REF; meant for tiles of a few hundred rows and
 * columns. */
void gemm_bf16_tile(const struct gemm *g, enum gemm_op op_a, enum gemm_op op_b,
                    int64_t m, int64_t n, int64_t k, const uint16_t *a, int64_t lda,
                    const uint16_t *b, int64_t ldb, enum dtype to, float beta, void *c,
                    int64_t ldc);

/* A B operand, op(B) being k x n, in the library's own format. */
struct gemm_packed;

/* Bytes of the packed copy itself: about 2 x n x k, rounded up to whole blocks. */
int64_t gemm_packed_bytes(const struct gemm *g, int64_t k, int64_t n);

/* memory: gemm_packed_bytes, aligned to 64, borrowed for the life of the result; or
 * NULL, and the result owns its bytes. The content is undefined before the first fill.
 * g must outlive it. Owned; NULL with err set. Local. */
struct gemm_packed *gemm_packed_create_at(struct gemm *g, int64_t k, int64_t n,
                                          void *memory, struct err *err);
struct gemm_packed *gemm_packed_create(struct gemm *g, int64_t k, int64_t n,
                                       struct err *err);
void gemm_packed_destroy(struct gemm_packed *p); /* NULL is fine */

/* Copies B: k x n with ldb if op_b is GEMM_N, n x k if GEMM_T. A forward product's
 * operand is filled from W[out,in] with GEMM_T, an input gradient's with GEMM_N. Uses
 * all OpenMP threads, outside of parallel regions; allocates nothing. Local. */
void gemm_packed_fill(struct gemm_packed *p, enum gemm_op op_b, const uint16_t *b,
                      int64_t ldb);

/* C[m,n] = A[m,k] op(B) + beta C, else as gemm_bf16; n and k are p's. */
void gemm_bf16_packed(const struct gemm *g, int64_t m, int64_t n, int64_t k,
                      const uint16_t *a, int64_t lda, const struct gemm_packed *p,
                      enum dtype to, float beta, void *c, int64_t ldc);

/* Bytes that g holds for its products by now: workspaces and copies of operands.
 * oneDNN's scratchpads count once the products were rehearsed; their size is known by
 * then only. */
int64_t gemm_bf16_workspace_bytes(const struct gemm *g);

/* GFLOP/s of VDPBF16PS that stays in registers, one thread, measured for about
 * `seconds`; 0 where the CPU does not have it. (AMX, where there is, reaches more.) */
double gemm_peak_bf16_gflops(double seconds);

#endif
