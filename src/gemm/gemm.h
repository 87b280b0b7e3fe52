/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_GEMM_GEMM_H
#define DUSK_GEMM_GEMM_H

/* Matrix products behind one signature: C = op(A) op(B) + beta C, row-major, with
 * leading dimensions.
 *
 * Backends: `ref` (plain loops, the oracle of the tests) and `blis`. BLIS 0.9 picks
 * slow generic kernels on CPUs that it does not know, so the kernel family is chosen
 * here, from CPU features, before BLIS's first call; an environment that already has
 * BLIS_ARCH_TYPE is left alone. The family changes bits: all ranks of a run must use
 * the same, so the caller takes the lowest level of all ranks and hands it to
 * gemm_create.
 *
 * Each element of C is one sum over k in an order that depends on k and the family
 * only: not on m, n, the element's place, transposes, leading dimensions, addresses or
 * the number of threads. So a product of some rows has the bits of the whole product's
 * rows. (BLIS's path for small matrices breaks this and is not used.)
 */

#include <stdint.h>

#include "src/base/err.h"

/* A context computes fp32 by `ref` or `blis`. bf16 (src/gemm/bf16.h) is by `ref`,
 * dusk's `own` kernels, or `onednn`: GEMM_BLIS takes the best of them for the level,
 * GEMM_OWN and GEMM_ONEDNN take that one beside BLIS, for tests and measurements. */
enum gemm_backend { GEMM_REF, GEMM_BLIS, GEMM_OWN, GEMM_ONEDNN };
enum gemm_op { GEMM_N, GEMM_T };

/* CPU feature levels in rising order; a family is chosen for the lowest in the job. */
enum gemm_level {
    GEMM_LEVEL_GENERIC,
    GEMM_LEVEL_AVX2,
    GEMM_LEVEL_AVX512,
    GEMM_LEVEL_AVX512_BF16, /* the same for fp32 */
    GEMM_LEVEL_AMX_BF16,    /* the same for fp32 */
    GEMM_LEVEL_ANY = GEMM_LEVEL_AMX_BF16
};

struct gemm;

enum gemm_level gemm_level_here(void); /* of this CPU. Local. */
const char *gemm_level_name(enum gemm_level level); /* "avx512_bf16" */
int gemm_level_named(const char *name);             /* the level, -1: none */

/* BLIS can be initialised for one family only: a second create in the same process with
 * another level is refused. Products use at most as many threads as
 * omp_get_max_threads() says now. Owned; NULL with err set. Local. */
struct gemm *gemm_create(enum gemm_backend backend, enum gemm_level level,
                         struct err *err);
void gemm_destroy(struct gemm *g); /* NULL is fine */

/* From now on the seconds of products and of packing weights are added to the tally,
 * which must outlive g; tiles are not counted. NULL (as created): nobody looks at the
 * clock. Local. */
struct tally;
void gemm_set_tally(struct gemm *g, struct tally *tally);
struct tally *gemm_tally(const struct gemm *g); /* for operations that add their own */

enum gemm_level gemm_level(const struct gemm *g); /* it was created with */

/* What computes, for the log and the checkpoint: "ref", "blis 0.9.0 skx". Lives as
 * long as g. */
const char *gemm_name(const struct gemm *g);

/* C[m,n] (ldc) = op(A)[m,k] op(B)[k,n] + beta C. fp32. A is m x k with leading
 * dimension lda >= k if op_a is GEMM_N, k x m (lda >= m) if GEMM_T; B likewise. beta 0
 * overwrites (C may hold NaN), beta 1 accumulates. k = 0 scales C only. No overlap of C
 * with A or B. Uses all OpenMP threads; call it outside of parallel regions. Local. */
void gemm_f32(const struct gemm *g, enum gemm_op op_a, enum gemm_op op_b, int64_t m,
              int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
              int64_t ldb, float beta, float *c, int64_t ldc);

/* The same on the calling thread alone; may be called inside a parallel region. */
void gemm_f32_tile(const struct gemm *g, enum gemm_op op_a, enum gemm_op op_b,
                   int64_t m, int64_t n, int64_t k, const float *a, int64_t lda,
                   const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

/* GFLOP/s of fp32 fused multiply-adds that stay in registers, one thread, measured for
 * about `seconds`: what a product can at most reach on this core. Local. */
double gemm_peak_f32_gflops(double seconds);

#endif
