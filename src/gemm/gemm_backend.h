/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_GEMM_GEMM_BACKEND_H
#define DUSK_GEMM_GEMM_BACKEND_H

/* What a backend of src/gemm/gemm.h brings: one product on the calling thread. Threads
 * are gemm.c's part: it cuts C into tiles, so no backend may let an element's bits
 * depend on the tile that it lies in. Private to the folder. */

#include "src/gemm/gemm.h"

#include <stddef.h>

/* Any matrix, by strides: element (i, j) is p[i * row + j * col]. */
struct gemm_matrix {
    const float *p;
    int64_t row, col;
};

/* C[m,n] = A[m,k] B[k,n] + beta C, C row-major with leading dimension ldc; m, n, k >=
 * 1. */
typedef void gemm_tile_fn(int64_t m, int64_t n, int64_t k, struct gemm_matrix a,
                          struct gemm_matrix b, float beta, float *c, int64_t ldc);

gemm_tile_fn gemm_ref_tile, gemm_blis_tile;

/* Initialises BLIS for the level, once a process, and writes the name of what computes.
 * 0, or -1 with err set: already initialised for another level, or a BLIS_ARCH_TYPE
 * that BLIS would misread. */
int gemm_blis_start(enum gemm_level level, char *name, size_t size, struct err *err);

struct bf16_onednn; /* src/gemm/bf16_backend.h */
struct bf16_room;   /* src/gemm/bf16_dot.h */

struct gemm {
    gemm_tile_fn *tile;
    enum gemm_level level;
    enum gemm_backend bf16;
    int native;             /* own kernels may use VDPBF16PS */
    int threads;            /* that have a room */
    struct bf16_room *room; /* [threads] of own kernels; NULL if bf16 is by ref */
    void *rooms;            /* their memory */
    int64_t room_bytes;
    void *shared; /* a packed B of one product */
    int64_t shared_bytes;
    struct bf16_onednn *onednn;
    struct err *rehearsal; /* NULL: products compute */
    struct tally *tally;   /* NULL: nobody asks */
    char name[64], bf16_name[64];
};

/* bf16's part of gemm_create and gemm_destroy. */
int gemm_bf16_start(struct gemm *g, enum gemm_backend backend, struct err *err);
void gemm_bf16_stop(struct gemm *g);

/* Tiles of C, `down` x `across` of them, each `rows` x `cols` but for the last ones. */
struct gemm_tiling {
    int64_t down, across, rows, cols;
};

/* One tile a thread, of the shape for which the slowest thread's products and packing
 * cost least. Tiles must be no part of the result. */
struct gemm_tiling gemm_tiling_for(int64_t m, int64_t n, int64_t k, int threads);

#endif
