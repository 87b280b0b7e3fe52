/* SPDX-License-Identifier: Apache-2.0 */
/* Who computes which part of a product by dusk's own kernels, and in what memory. */
#include "src/gemm/bf16_dot.h"

#include "src/base/mem.h"

#include <omp.h>

enum {
    ROWS = 252,     /* a thread's block of A fills half of a 1 MiB second-level cache */
    LOW_ROWS = 120, /* of it, where the sums of 2 x COLS columns wait beside it */
    COLS = 512,  /* a block of B, where it is packed on the way, and of waiting sums */
    SHARE = 128, /* columns that a thread packs at a time */
    LINE = BF16_KC / 2,
    TILE_WORDS = 200 * 1024 / 4
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

int bf16_rooms_create(struct gemm *g, struct err *err)
{
    enum { A = ROWS * LINE, B = COLS * LINE, C = ROWS * COLS };
    g->threads = omp_get_max_threads();
    g->room_bytes = (int64_t)g->threads * (A + B + C) * (int64_t)sizeof(uint32_t);
    g->room = mem_array(g->threads, sizeof *g->room, err);
    if (!g->room)
        return -1;
    uint32_t *words = g->rooms = mem_array(g->room_bytes, 1, err);
    if (!words)
        return -1;
    for (int i = 0; i < g->threads; i++, words += A + B + C)
        g->room[i] = (struct bf16_room){ROWS, COLS, words, words + A,
                                        (float *)(void *)(words + A + B)};
    return 0;
}

void bf16_rooms_destroy(struct gemm *g)
{
    mem_free(g->shared);
    mem_free(g->rooms);
    mem_free(g->room);
}

void bf16_pack_all(const struct gemm *g, int64_t k, int64_t n, struct bf16_matrix b,
                   uint32_t *to)
{
    int64_t panel = bf16_panel_words(k);
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < n; j += SHARE) {
        struct bf16_matrix lines = {b.p + j * b.col, b.col, b.row};
        int64_t some = least(SHARE, n - j);
        bf16_pack(g->native, lines, some, k, (some + BF16_NR - 1) / BF16_NR, BF16_NR,
                  to + j / BF16_NR * panel);
    }
}

int bf16_shared_prepare(struct gemm *g, int64_t m, int64_t n, int64_t k,
                        struct err *err)
{
    int64_t bytes = bf16_packed_words(k, n) * (int64_t)sizeof(uint32_t);
    if (m <= ROWS || bytes <= g->shared_bytes)
        return 0;
    void *larger = mem_array(bytes, 1, err);
    if (!larger)
        return -1;
    mem_free(g->shared);
    g->shared = larger;
    g->shared_bytes = bytes;
    return 0;
}

void bf16_dot_all(const struct gemm *g, int64_t m, int64_t n, int64_t k,
                  struct bf16_matrix a, struct bf16_matrix b, const uint32_t *packed,
                  struct bf16_target t)
{
    if (!packed && m > ROWS &&
        bf16_packed_words(k, n) * (int64_t)sizeof(uint32_t) <= g->shared_bytes) {
        bf16_pack_all(g, k, n, b, g->shared);
        packed = g->shared;
    }
    struct gemm_tiling cut =
        gemm_tiling_for(m, n, k, (int)least(g->threads, omp_get_max_threads()));
    int64_t tiles = cut.down * cut.across, panel = bf16_panel_words(k);
#pragma omp parallel for schedule(static, 1) num_threads((int)tiles) if (tiles > 1)
    for (int64_t i = 0; i < tiles; i++) {
        int64_t row = i / cut.across * cut.rows, col = i % cut.across * cut.cols;
        struct bf16_room room = g->room[i];
        if (packed && (t.dtype == DTYPE_F32 || k <= BF16_KC))
            room.cols = n + BF16_NR; /* neither B nor sums take room */
        else if (packed) /* sums wait: lower and wider blocks pack A less often */
            room.rows = LOW_ROWS, room.cols = 2 * COLS;
        struct bf16_target part = t;
        part.c = (char *)t.c + (size_t)(row * t.ldc + col) * dtype_bytes(t.dtype);
        struct bf16_matrix left = {a.p + row * a.row, a.row, a.col};
        struct bf16_matrix right = {packed ? NULL : b.p + col * b.col, b.row, b.col};
        bf16_dot(g->native, least(cut.rows, m - row), least(cut.cols, n - col), k, left,
                 right, packed ? packed + col / BF16_NR * panel : NULL, panel, part,
                 room);
    }
}

void bf16_dot_tile(const struct gemm *g, int64_t m, int64_t n, int64_t k,
                   struct bf16_matrix a, struct bf16_matrix b, struct bf16_target t)
{
    _Alignas(64) uint32_t words[TILE_WORDS];
    int64_t pairs = (least(k, BF16_KC) + 1) / 2, lines = TILE_WORDS / pairs;
    struct bf16_room room = {0};
    if (k > BF16_KC && t.dtype == DTYPE_BF16) { /* sums wait in c */
        room.rows = 4 * BF16_MR, room.cols = BF16_NR;
        room.c = (float *)(void *)(words + (room.rows + room.cols) * pairs);
    } else {
        room.rows = least(up(m, BF16_MR), lines / 2 / BF16_MR * BF16_MR);
        room.cols = least(up(n, BF16_NR), (lines - room.rows) / BF16_NR * BF16_NR);
    }
    room.a = words + room.cols * pairs;
    room.b = words; /* its lines stay aligned */
    bf16_dot(g->native, m, n, k, a, b, NULL, 0, t, room);
}
