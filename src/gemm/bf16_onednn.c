/* SPDX-License-Identifier: Apache-2.0 */
/* oneDNN 2.6 and 3.x. Threads are dusk's: a product is cut into pieces of a fixed size,
 * each a primitive that was built for one thread, so that the cuts, and with them the
 * bits, depend on the shape only. */
#include "src/gemm/bf16_onednn.h"

#include "src/base/check.h"
#include "src/base/mem.h"

#include <omp.h>
#include <stdio.h>

enum { ROWS = 256, COLS = ONEDNN_COLS };

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static struct onednn_key product_key(int64_t row, int64_t m, int64_t col, int64_t n,
                                     int64_t k, struct bf16_matrix a,
                                     struct bf16_matrix b, int packed,
                                     struct bf16_target t)
{
    return (struct onednn_key){.kind = packed ? ONEDNN_PRODUCT_PACKED : ONEDNN_PRODUCT,
                               .m = least(ROWS, m - row),
                               .n = least(COLS, n - col),
                               .k = k,
                               .a_row = a.row,
                               .a_col = a.col,
                               .b_row = packed ? 0 : b.row,
                               .b_col = packed ? 0 : b.col,
                               .c_row = t.ldc,
                               .to = t.dtype,
                               .beta = t.beta != 0.0f};
}

int bf16_onednn_prepare(struct bf16_onednn *o, int64_t m, int64_t n, int64_t k,
                        struct bf16_matrix a, struct bf16_matrix b, int packed,
                        struct bf16_target t, struct err *err)
{
    int64_t rows[] = {0, m / ROWS * ROWS}, cols[] = {0, n / COLS * COLS};
    for (int i = 0; i < 4; i++) { /* whole pieces, and those at the edges */
        int64_t row = rows[i / 2], col = cols[i % 2];
        if (row >= m || col >= n)
            continue;
        struct onednn_key key = product_key(row, m, col, n, k, a, b, packed, t);
        if (onednn_build(o, &key, err))
            return -1;
    }
    return 0;
}

void bf16_onednn_all(struct bf16_onednn *o, int64_t m, int64_t n, int64_t k,
                     struct bf16_matrix a, struct bf16_matrix b, const uint16_t *packed,
                     struct bf16_target t)
{
    struct err err = {0};
    int failed = bf16_onednn_prepare(o, m, n, k, a, b, packed != NULL, t, &err);
    CHECK(!failed, "%s", err.text);
    int64_t down = (m + ROWS - 1) / ROWS, across = (n + COLS - 1) / COLS;
    int64_t pieces = down * across;
    int64_t block = packed ? onednn_block_bytes(o, k, least(COLS, n), &err) : 0;
    int threads = (int)least(least(o->threads, omp_get_max_threads()), pieces);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < pieces; i++) {
        int64_t row = i % down * ROWS, col = i / down * COLS;
        struct onednn_key key = product_key(row, m, col, n, k, a, b, packed != NULL, t);
        const void *right =
            packed ? (const void *)((const char *)packed + (size_t)(col / COLS * block))
                   : (const void *)(b.p + col * b.col);
        onednn_run(o, &key, a.p + row * a.row, right,
                   (char *)t.c + (size_t)(row * t.ldc + col) * dtype_bytes(t.dtype));
    }
}

int64_t bf16_onednn_packed_bytes(struct bf16_onednn *o, int64_t k, int64_t n,
                                 struct err *err)
{
    int64_t bytes = 0;
    for (int64_t col = 0; col < n; col += COLS) {
        int64_t block = onednn_block_bytes(o, k, least(COLS, n - col), err);
        if (block < 0)
            return -1;
        bytes += block;
    }
    return bytes;
}

/* Key of the packing of one block; B as in a product. */
static struct onednn_key reorder_key(int64_t k, int64_t n, struct bf16_matrix b)
{
    return (struct onednn_key){
        .kind = ONEDNN_REORDER, .n = n, .k = k, .b_row = b.row, .b_col = b.col};
}

void bf16_onednn_fill(struct bf16_onednn *o, int64_t k, int64_t n, struct bf16_matrix b,
                      uint16_t *to)
{
    struct err err = {0};
    for (int64_t col = 0; col < n; col += COLS) {
        struct onednn_key key = reorder_key(k, least(COLS, n - col), b);
        int failed = onednn_build(o, &key, &err);
        CHECK(!failed, "%s", err.text);
    }
    int64_t block = onednn_block_bytes(o, k, least(COLS, n), &err);
#pragma omp parallel for schedule(static) num_threads(o->threads)
    for (int64_t col = 0; col < n; col += COLS) {
        struct onednn_key key = reorder_key(k, least(COLS, n - col), b);
        onednn_run(o, &key, b.p + col * b.col, NULL,
                   (char *)to + (size_t)(col / COLS * block));
    }
}

int64_t bf16_onednn_bytes(const struct bf16_onednn *o)
{
    return o->scratch_bytes * o->threads;
}

int bf16_onednn_built(void)
{
    return 1;
}

static const char *isa_name(void)
{
    switch (dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_avx512_core:
        return "avx512_core";
    case dnnl_cpu_isa_avx512_core_vnni:
        return "avx512_core_vnni";
    case dnnl_cpu_isa_avx512_core_bf16:
        return "avx512_core_bf16";
    case dnnl_cpu_isa_avx512_core_amx:
        return "avx512_core_amx";
    default:
        return "other";
    }
}

/* A level below this CPU's holds oneDNN back, which it allows before its first use. */
static int hold_back(enum gemm_level level, struct err *err)
{
    if (level >= gemm_level_here())
        return 0;
    dnnl_cpu_isa_t isa = level == GEMM_LEVEL_AVX512_BF16
                             ? dnnl_cpu_isa_avx512_core_bf16
                             : dnnl_cpu_isa_avx512_core_vnni;
    if (dnnl_get_effective_cpu_isa() == isa)
        return 0;
    dnnl_status_t s = dnnl_set_max_cpu_isa(isa);
    return s == dnnl_success ? 0 : onednn_fail(err, "choosing the CPU level", s);
}

struct bf16_onednn *bf16_onednn_create(enum gemm_level level, int threads, char *name,
                                       size_t size, struct err *err)
{
    if (level < GEMM_LEVEL_AVX512) {
        err_set(err, ERR_OTHER, "oneDNN multiplies bf16 on CPUs with AVX-512 only");
        return NULL;
    }
    if (hold_back(level, err))
        return NULL;
    struct bf16_onednn *o = mem_array(1, sizeof *o, err);
    if (!o)
        return NULL;
    o->threads = threads;
    o->stream = mem_array(threads, sizeof *o->stream, err);
    o->scratch = mem_array(threads, sizeof *o->scratch, err);
    if (!o->stream || !o->scratch) {
        bf16_onednn_destroy(o);
        return NULL;
    }
    dnnl_status_t s = dnnl_engine_create(&o->engine, dnnl_cpu, 0);
    for (int t = 0; s == dnnl_success && t < threads; t++)
        s = dnnl_stream_create(&o->stream[t], o->engine, dnnl_stream_default_flags);
    if (s != dnnl_success) {
        onednn_fail(err, "its start", s);
        bf16_onednn_destroy(o);
        return NULL;
    }
    const dnnl_version_t *v = dnnl_version();
    snprintf(name, size, "onednn %d.%d.%d %s", v->major, v->minor, v->patch,
             isa_name());
    return o;
}

void bf16_onednn_destroy(struct bf16_onednn *o)
{
    if (!o)
        return;
    onednn_cache_fini(o);
    for (int t = 0; t < o->threads; t++) {
        if (o->stream)
            dnnl_stream_destroy(o->stream[t]);
        if (o->scratch)
            mem_free(o->scratch[t]);
    }
    dnnl_engine_destroy(o->engine);
    mem_free(o->stream);
    mem_free(o->scratch);
    mem_free(o);
}
