/* SPDX-License-Identifier: Apache-2.0 */
/* oneDNN 2.6 and 3.x. Threads are dusk's: a product is cut into pieces of a few fixed
 * sizes, each a primitive that was built for one thread, so that the cuts, and with
 * them the bits, depend on the shape only. */
#include "src/gemm/bf16_onednn.h"

#include "src/base/check.h"
#include "src/base/mem.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

/* Rows of a piece of C; terms of a sum over rows that one primitive adds up. */
enum {
    ROWS = 256,
    COLS = ONEDNN_COLS,
    TERMS = 1024,
    MAX_LENGTHS = 12,
    PIECE_BYTES = ROWS * COLS * 4
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* A length in whole pieces and a rest: one piece, or, where the length is a number of
 * rows, falling powers of two, so that a few lengths of pieces serve all numbers. */
struct cut {
    int64_t length, whole;
    int powers; /* whole is then a power of two */
};

struct piece {
    int64_t at, length;
};

static int64_t pieces_of(struct cut c)
{
    int64_t rest = c.length % c.whole, pieces = c.length / c.whole;
    if (!c.powers)
        return pieces + (rest > 0);
    for (; rest > 0; rest &= rest - 1)
        pieces++;
    return pieces;
}

static struct piece piece_at(struct cut c, int64_t i)
{
    int64_t at = least(i, c.length / c.whole) * c.whole, rest = c.length - at;
    if (rest >= c.whole || !c.powers)
        return (struct piece){at, least(c.whole, rest)};
    int64_t power = c.whole / 2;
    for (i -= c.length / c.whole;; power /= 2) {
        if (!(rest & power))
            continue;
        if (i-- == 0)
            return (struct piece){at, power};
        at += power;
    }
}

/* Falling lengths of the pieces of c, or of all cuts up to its length. */
static int lengths_of(struct cut c, int up_to, int64_t length[static MAX_LENGTHS])
{
    int n = 0;
    if (c.length >= c.whole)
        length[n++] = c.whole;
    if (!c.powers) {
        if (c.length % c.whole)
            length[n++] = c.length % c.whole;
        return n;
    }
    for (int64_t power = c.whole / 2; power > 0; power /= 2)
        if (up_to ? c.length >= power : (c.length & power) != 0)
            length[n++] = power;
    return n;
}

struct product {
    struct bf16_matrix a, b;
    struct bf16_target t;
    int packed;
    struct cut m, n, k;
};

/* Rows are along m; or, in a sum over rows as of a weight gradient, along k: A is
 * transposed then, and B is not. A bf16 C would be rounded once for each piece of such
 * a sum, which stays whole. (Strides of 1 and 1 are of an A of one row or column, which
 * has its rows along m if k is 1.) */
static struct product product_of(int64_t m, int64_t n, int64_t k, struct bf16_matrix a,
                                 struct bf16_matrix b, int packed, struct bf16_target t)
{
    int transposed = a.row == 1 && !(a.col == 1 && k == 1);
    struct product p = {a, b, t, packed, {m, ROWS, !transposed}, {n, COLS, 0}, {0}};
    p.k = (struct cut){k, k, 0};
    if (transposed && b.col == 1 && t.dtype == DTYPE_F32)
        p.k = (struct cut){k, TERMS, 1};
    return p;
}

static struct onednn_key key_of(const struct product *p, int64_t m, int64_t n,
                                int64_t k, int beta)
{
    return (struct onednn_key){.kind =
                                   p->packed ? ONEDNN_PRODUCT_PACKED : ONEDNN_PRODUCT,
                               .m = m,
                               .n = n,
                               .k = k,
                               .a_row = p->a.row,
                               .a_col = p->a.col,
                               .b_row = p->packed ? 0 : p->b.row,
                               .b_col = p->packed ? 0 : p->b.col,
                               .c_row = p->packed ? n : p->t.ldc,
                               .to = p->t.dtype,
                               .beta = beta};
}

/* Of the pieces of k, the first has the product's beta, and others accumulate. */
static int build_terms(struct bf16_onednn *o, const struct product *p, int up_to,
                       int64_t m, int64_t n, struct err *err)
{
    int64_t length[MAX_LENGTHS];
    int lengths = lengths_of(p->k, up_to, length), beta = p->t.beta != 0.0f;
    for (int i = 0; i < lengths; i++) {
        int first = up_to || i == 0, later = i > 0 || p->k.length >= 2 * p->k.whole;
        struct onednn_key key = key_of(p, m, n, length[i], beta);
        if (first && onednn_build(o, &key, err))
            return -1;
        key.beta = 1;
        if (later && onednn_build(o, &key, err))
            return -1;
    }
    return 0;
}

/* What the product needs, or with `up_to` all of its form with fewer rows too. */
static int build(struct bf16_onednn *o, const struct product *p, int up_to,
                 struct err *err)
{
    int64_t m[MAX_LENGTHS], n[MAX_LENGTHS];
    int ms = lengths_of(p->m, up_to, m), ns = lengths_of(p->n, up_to, n);
    for (int i = 0; i < ms * ns; i++)
        if (build_terms(o, p, up_to, m[i / ns], n[i % ns], err))
            return -1;
    return 0;
}

int bf16_onednn_prepare(struct bf16_onednn *o, int64_t m, int64_t n, int64_t k,
                        struct bf16_matrix a, struct bf16_matrix b, int packed,
                        struct bf16_target t, struct err *err)
{
    struct product p = product_of(m, n, k, a, b, packed, t);
    return build(o, &p, 1, err);
}

static void copy_rows(int64_t rows, size_t bytes, const char *from, size_t from_stride,
                      char *to, size_t to_stride)
{
    for (int64_t i = 0; i < rows; i++, from += from_stride, to += to_stride)
        memcpy(to, from, bytes);
}

/* With packed operands the library is fast only where the rows of C follow each other
 * (2.6 runs its reference loops elsewhere): a piece of longer rows is made beside C. */
static void run_packed(const struct bf16_onednn *o, const struct product *p,
                       struct piece row, struct piece col, const void *right)
{
    size_t size = dtype_bytes(p->t.dtype), stride = (size_t)p->t.ldc * size;
    size_t bytes = (size_t)col.length * size;
    char *c = (char *)p->t.c + (size_t)row.at * stride + (size_t)col.at * size;
    char *to = stride == bytes ? c : o->piece[omp_get_thread_num()];
    int beta = p->t.beta != 0.0f;
    struct onednn_key key = key_of(p, row.length, col.length, p->k.length, beta);
    if (to != c && beta)
        copy_rows(row.length, bytes, c, stride, to, bytes);
    onednn_run(o, &key, p->a.p + row.at * p->a.row, right, to);
    if (to != c)
        copy_rows(row.length, bytes, to, bytes, c, stride);
}

/* One piece of C; its sums in order. right: B, from the piece's first column on. */
static void run_piece(const struct bf16_onednn *o, const struct product *p,
                      struct piece row, struct piece col, const void *right)
{
    size_t size = dtype_bytes(p->t.dtype);
    void *c = (char *)p->t.c + (size_t)(row.at * p->t.ldc + col.at) * size;
    for (int64_t i = 0, pieces = pieces_of(p->k); i < pieces; i++) {
        struct piece l = piece_at(p->k, i);
        struct onednn_key key =
            key_of(p, row.length, col.length, l.length, i > 0 || p->t.beta != 0.0f);
        const uint16_t *b = right;
        onednn_run(o, &key, p->a.p + row.at * p->a.row + l.at * p->a.col,
                   b + l.at * p->b.row, c);
    }
}

void bf16_onednn_all(struct bf16_onednn *o, int64_t m, int64_t n, int64_t k,
                     struct bf16_matrix a, struct bf16_matrix b, const uint16_t *packed,
                     struct bf16_target t)
{
    struct err err = {0};
    struct product p = product_of(m, n, k, a, b, packed != NULL, t);
    int failed = build(o, &p, 0, &err);
    CHECK(!failed, "%s", err.text);
    int64_t down = pieces_of(p.m), pieces = down * pieces_of(p.n);
    int64_t block = packed ? onednn_block_bytes(o, k, least(COLS, n), &err) : 0;
    int threads = (int)least(least(o->threads, omp_get_max_threads()), pieces);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < pieces; i++) {
        struct piece row = piece_at(p.m, i % down), col = piece_at(p.n, i / down);
        const void *right = packed
                                ? (const char *)packed + (size_t)(col.at / COLS * block)
                                : (const char *)(b.p + col.at * b.col);
        if (packed)
            run_packed(o, &p, row, col, right);
        else
            run_piece(o, &p, row, col, right);
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

int bf16_onednn_fill_prepare(struct bf16_onednn *o, int64_t k, int64_t n,
                             struct bf16_matrix b, struct err *err)
{
    int64_t length[MAX_LENGTHS];
    for (int i = lengths_of((struct cut){n, COLS, 0}, 0, length) - 1; i >= 0; i--) {
        struct onednn_key key = reorder_key(k, length[i], b);
        if (onednn_build(o, &key, err))
            return -1;
    }
    return 0;
}

void bf16_onednn_fill(struct bf16_onednn *o, int64_t k, int64_t n, struct bf16_matrix b,
                      uint16_t *to)
{
    struct err err = {0};
    int failed = bf16_onednn_fill_prepare(o, k, n, b, &err);
    CHECK(!failed, "%s", err.text);
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
    return (o->scratch_bytes + PIECE_BYTES) * o->threads;
}

int64_t bf16_onednn_primitives(const struct bf16_onednn *o)
{
    return o->entries;
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
    o->piece = mem_array(threads, sizeof *o->piece, err);
    for (int t = 0; o->piece && t < threads; t++)
        if (!(o->piece[t] = mem_array(PIECE_BYTES, 1, err))) {
            bf16_onednn_destroy(o);
            return NULL;
        }
    if (!o->piece) {
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
        if (o->piece)
            mem_free(o->piece[t]);
    }
    dnnl_engine_destroy(o->engine);
    mem_free(o->stream);
    mem_free(o->scratch);
    mem_free(o->piece);
    mem_free(o);
}
