/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/bf16.h"

#include "src/base/check.h"
#include "src/base/mem.h"
#include "src/base/tally.h"
#include "src/gemm/bf16_dot.h"

#include <stdio.h>
#include <string.h>

int gemm_bf16_built(void)
{
#if defined(DUSK_BF16_DOT)
    return 1;
#else
    return bf16_onednn_built();
#endif
}

/* oneDNN for the units that own kernels do not know: AMX, and plain AVX-512, where it
 * widens bf16 well. */
static int prefers_onednn(enum gemm_level level)
{
    return bf16_onednn_built() &&
           (level == GEMM_LEVEL_AMX_BF16 || level == GEMM_LEVEL_AVX512);
}

int gemm_bf16_start(struct gemm *g, enum gemm_backend backend, struct err *err)
{
    snprintf(g->bf16_name, sizeof g->bf16_name, "ref");
    g->bf16 = GEMM_REF;
    if (backend == GEMM_REF)
        return 0;
    g->bf16 = GEMM_OWN;
#if defined(DUSK_BF16_DOT)
    g->native = g->level >= GEMM_LEVEL_AVX512_BF16;
#endif
    snprintf(g->bf16_name, sizeof g->bf16_name, "own %s",
             g->native ? "vdpbf16ps" : "plain");
    if (bf16_rooms_create(g, err))
        return -1;
    if (backend == GEMM_OWN || (backend == GEMM_BLIS && !prefers_onednn(g->level)))
        return 0;
    g->bf16 = GEMM_ONEDNN;
    g->onednn = bf16_onednn_create(g->level, g->threads, g->bf16_name,
                                   sizeof g->bf16_name, err);
    return g->onednn ? 0 : -1;
}

void gemm_bf16_stop(struct gemm *g)
{
    bf16_onednn_destroy(g->onednn);
    bf16_rooms_destroy(g);
}

int gemm_bf16_fast(const struct gemm *g)
{
    if (g->bf16 == GEMM_ONEDNN)
        return g->level >= GEMM_LEVEL_AVX512_BF16;
    return g->bf16 == GEMM_OWN && g->native;
}

int gemm_bf16_packing_matters(const struct gemm *g)
{
    return g->bf16 == GEMM_ONEDNN;
}

enum gemm_backend gemm_bf16_backend(const struct gemm *g)
{
    return g->bf16;
}

const char *gemm_bf16_name(const struct gemm *g)
{
    return g->bf16_name;
}

static struct bf16_matrix matrix(enum gemm_op op, const uint16_t *p, int64_t ld)
{
    return op == GEMM_N ? (struct bf16_matrix){p, ld, 1}
                        : (struct bf16_matrix){p, 1, ld};
}

static struct bf16_target target(enum dtype to, float beta, void *c, int64_t ldc)
{
    CHECK(beta == 0.0f || beta == 1.0f, "beta %g", (double)beta);
    CHECK(to == DTYPE_F32 || to == DTYPE_BF16, "dtype %d", (int)to);
    return (struct bf16_target){c, ldc, to, beta};
}

/* Rows of C are independent sums: shared among threads as they come. */
static void ref_rows(int64_t m, int64_t n, int64_t k, struct bf16_matrix a,
                     struct bf16_matrix b, struct bf16_target t)
{
#pragma omp parallel for schedule(static) if (m * n * k > 1 << 16)
    for (int64_t i = 0; i < m; i++) {
        struct bf16_matrix row = {a.p + i * a.row, a.row, a.col};
        struct bf16_target to = t;
        to.c = (char *)t.c + (size_t)(i * t.ldc) * dtype_bytes(t.dtype);
        bf16_ref_tile(1, n, k, row, b, to);
    }
}

/* k = 0: C = beta C, where beta 0 must also overwrite a NaN. */
static void scale(int64_t m, int64_t n, struct bf16_target t)
{
    size_t size = dtype_bytes(t.dtype);
    for (int64_t i = 0; t.beta == 0.0f && i < m; i++)
        memset((char *)t.c + (size_t)(i * t.ldc) * size, 0, (size_t)n * size);
}

void gemm_bf16_rehearse(struct gemm *g, struct err *err)
{
    g->rehearsal = err;
    if (err)
        *err = (struct err){0};
}

/* The rehearsal's backend: NULL if there is nothing (more) to build. */
static struct bf16_onednn *rehearsing(const struct gemm *g)
{
    return g->rehearsal->code == ERR_NONE ? g->onednn : NULL;
}

/* packed: B's panels, or NULL to read b. */
static void product(const struct gemm *g, int64_t m, int64_t n, int64_t k,
                    struct bf16_matrix a, struct bf16_matrix b, const uint16_t *packed,
                    struct bf16_target t)
{
    if (m <= 0 || n <= 0)
        return;
    if (g->rehearsal) {
        if (k > 0 && rehearsing(g))
            bf16_onednn_prepare(g->onednn, m, n, k, a, b, packed != NULL, t,
                                g->rehearsal);
        return;
    }
    double begin_s = tally_begin(g->tally);
    if (k <= 0)
        scale(m, n, t);
    else if (g->bf16 == GEMM_REF)
        ref_rows(m, n, k, a, b, t);
    else if (g->onednn)
        bf16_onednn_all(g->onednn, m, n, k, a, b, packed, t);
    else
        bf16_dot_all(g, m, n, k, a, b, (const uint32_t *)(const void *)packed, t);
    tally_end(g->tally, TALLY_GEMM, begin_s);
}

void gemm_bf16(const struct gemm *g, enum gemm_op op_a, enum gemm_op op_b, int64_t m,
               int64_t n, int64_t k, const uint16_t *a, int64_t lda, const uint16_t *b,
               int64_t ldb, enum dtype to, float beta, void *c, int64_t ldc)
{
    product(g, m, n, k, matrix(op_a, a, lda), matrix(op_b, b, ldb), NULL,
            target(to, beta, c, ldc));
}

int64_t gemm_bf16_primitives(const struct gemm *g)
{
    return g->onednn ? bf16_onednn_primitives(g->onednn) : 0;
}

int gemm_bf16_prepare_shared(struct gemm *g, int64_t m, int64_t n, int64_t k,
                             struct err *err)
{
    if (g->bf16 != GEMM_OWN || m <= 0 || n <= 0 || k <= 0)
        return 0;
    return bf16_shared_prepare(g, m, n, k, err);
}

void gemm_bf16_tile(const struct gemm *g, enum gemm_op op_a, enum gemm_op op_b,
                    int64_t m, int64_t n, int64_t k, const uint16_t *a, int64_t lda,
                    const uint16_t *b, int64_t ldb, enum dtype to, float beta, void *c,
                    int64_t ldc)
{
    struct bf16_matrix left = matrix(op_a, a, lda), right = matrix(op_b, b, ldb);
    struct bf16_target t = target(to, beta, c, ldc);
    if (m <= 0 || n <= 0 || g->rehearsal)
        return;
    if (k <= 0)
        scale(m, n, t);
    else if (g->bf16 == GEMM_REF)
        bf16_ref_tile(m, n, k, left, right, t);
    else
        bf16_dot_tile(g, m, n, k, left, right, t);
}

int64_t gemm_packed_bytes(const struct gemm *g, int64_t k, int64_t n)
{
    if (g->bf16 == GEMM_REF)
        return k * n * (int64_t)sizeof(uint16_t);
    if (g->onednn) {
        struct err err = {0};
        int64_t bytes = bf16_onednn_packed_bytes(g->onednn, k, n, &err);
        CHECK(bytes >= 0, "%s", err.text);
        return bytes;
    }
    return bf16_packed_words(k, n) * (int64_t)sizeof(uint32_t);
}

struct gemm_packed *gemm_packed_create_at(struct gemm *g, int64_t k, int64_t n,
                                          void *memory, struct err *err)
{
    struct gemm_packed *p = mem_array(1, sizeof *p, err);
    if (!p)
        return NULL;
    *p = (struct gemm_packed){.g = g, .k = k, .n = n, .data = memory};
    if (!memory)
        p->data = p->own = mem_array(gemm_packed_bytes(g, k, n), 1, err);
    if (!p->data) {
        gemm_packed_destroy(p);
        return NULL;
    }
    return p;
}

struct gemm_packed *gemm_packed_create(struct gemm *g, int64_t k, int64_t n,
                                       struct err *err)
{
    return gemm_packed_create_at(g, k, n, NULL, err);
}

void gemm_packed_destroy(struct gemm_packed *p)
{
    if (!p)
        return;
    mem_free(p->own);
    mem_free(p);
}

static void transpose(struct gemm_packed *p, struct bf16_matrix from)
{
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < p->n; j++) /* as n x k: plain loops then run along memory */
        for (int64_t l = 0; l < p->k; l++)
            p->data[j * p->k + l] = from.p[l * from.row + j * from.col];
}

void gemm_packed_fill(struct gemm_packed *p, enum gemm_op op_b, const uint16_t *b,
                      int64_t ldb)
{
    struct bf16_matrix from = matrix(op_b, b, ldb);
    struct err *rehearsal = p->g->rehearsal;
    if (rehearsal) {
        if (rehearsing(p->g) && p->k > 0)
            bf16_onednn_fill_prepare(p->g->onednn, p->k, p->n, from, rehearsal);
        return;
    }
    double begin_s = tally_begin(p->g->tally);
    if (p->g->onednn)
        bf16_onednn_fill(p->g->onednn, p->k, p->n, from, p->data);
    else if (p->g->bf16 == GEMM_OWN)
        bf16_pack_all(p->g, p->k, p->n, from, (uint32_t *)(void *)p->data);
    else
        transpose(p, from);
    tally_end(p->g->tally, TALLY_PACKING, begin_s);
}

void gemm_bf16_packed(const struct gemm *g, int64_t m, int64_t n, int64_t k,
                      const uint16_t *a, int64_t lda, const struct gemm_packed *p,
                      enum dtype to, float beta, void *c, int64_t ldc)
{
    CHECK(n == p->n && k == p->k, "packed %lld x %lld, asked %lld x %lld",
          (long long)p->k, (long long)p->n, (long long)k, (long long)n);
    product(g, m, n, k, matrix(GEMM_N, a, lda), matrix(GEMM_T, p->data, k), p->data,
            target(to, beta, c, ldc));
}

int64_t gemm_bf16_workspace_bytes(const struct gemm *g)
{
    return g->room_bytes + g->shared_bytes +
           (g->onednn ? bf16_onednn_bytes(g->onednn) : 0);
}
