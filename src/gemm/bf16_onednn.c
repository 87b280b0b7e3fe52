/* SPDX-License-Identifier: Apache-2.0 */
/* oneDNN 2.6 and 3.x. Threads are dusk's: a product is cut into pieces of a fixed size,
 * each a primitive that was built for one thread, so that the cuts, and with them the
 * bits, depend on the shape only. */
#include "src/base/check.h"
#include "src/base/mem.h"
#include "src/gemm/bf16_backend.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <string.h>

enum { ROWS = 256, COLS = 512, SLOTS = 64 };

/* What differs between oneDNN 2 and 3: memory descriptors are structs or handles. */
#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t view;

static view view_of(const dnnl_memory_desc_t *d)
{
    return *d;
}

static dnnl_status_t desc_strided(dnnl_memory_desc_t *d, dnnl_dims_t dims,
                                  dnnl_data_type_t type, dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(d, 2, dims, type, strides);
}

static dnnl_status_t desc_any(dnnl_memory_desc_t *d, dnnl_dims_t dims)
{
    return dnnl_memory_desc_create_with_tag(d, 2, dims, dnnl_bf16, dnnl_format_tag_any);
}

static dnnl_status_t desc_copy(dnnl_memory_desc_t *d, view from)
{
    return dnnl_memory_desc_clone(d, from);
}

static void desc_free(dnnl_memory_desc_t *d)
{
    dnnl_memory_desc_destroy(*d);
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}

static dnnl_status_t matmul_create(dnnl_primitive_desc_t *p, dnnl_engine_t engine,
                                   view a, view b, view c, dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(p, engine, a, b, NULL, c, attr);
}
#else
typedef const dnnl_memory_desc_t *view;

static view view_of(const dnnl_memory_desc_t *d)
{
    return d;
}

static dnnl_status_t desc_strided(dnnl_memory_desc_t *d, dnnl_dims_t dims,
                                  dnnl_data_type_t type, dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(d, 2, dims, type, strides);
}

static dnnl_status_t desc_any(dnnl_memory_desc_t *d, dnnl_dims_t dims)
{
    return dnnl_memory_desc_init_by_tag(d, 2, dims, dnnl_bf16, dnnl_format_tag_any);
}

static dnnl_status_t desc_copy(dnnl_memory_desc_t *d, view from)
{
    *d = *from;
    return dnnl_success;
}

static void desc_free(dnnl_memory_desc_t *d)
{
    (void)d;
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f);
}

static dnnl_status_t matmul_create(dnnl_primitive_desc_t *p, dnnl_engine_t engine,
                                   view a, view b, view c, dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t d;
    dnnl_status_t s = dnnl_matmul_desc_init(&d, a, b, NULL, c);
    return s == dnnl_success ? dnnl_primitive_desc_create(p, &d, attr, engine, NULL)
                             : s;
}
#endif

/* Memory objects carry an address, so each thread has its own. */
struct seat {
    dnnl_memory_t from, weights, to, scratch;
};

/* Everything that a primitive depends on; compared as bytes, so without gaps. */
struct key {
    int64_t kind, m, n, k, a_row, a_col, b_row, b_col, c_row, to, beta;
};
enum kind { PRODUCT, PRODUCT_PACKED, REORDER };

struct entry {
    struct key key;
    dnnl_primitive_t primitive;
    struct seat *seat; /* [threads] */
};

/* Format of a packed block of k x n. */
struct format {
    int64_t k, n;
    dnnl_memory_desc_t desc;
    int64_t bytes;
};

struct bf16_onednn {
    dnnl_engine_t engine;
    int threads;
    dnnl_stream_t *stream;  /* [threads] */
    struct entry **table;   /* open addressing; written outside of */
    int64_t slots, entries; /* parallel regions only */
    struct format *formats; /* a handful */
    int64_t format_count;
    void **scratch; /* [threads] */
    int64_t scratch_bytes;
};

static int fail(struct err *err, const char *what, dnnl_status_t status)
{
    return err_set(err, ERR_OTHER, "oneDNN %d.%d.%d: %s failed with status %d",
                   DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH, what,
                   (int)status);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static uint64_t hash(const struct key *key)
{
    int64_t word[sizeof *key / sizeof(int64_t)];
    uint64_t h = 0;
    memcpy(word, key, sizeof *key);
    for (size_t i = 0; i < sizeof word / sizeof *word; i++)
        h = (h ^ (uint64_t)word[i]) * 0x9e3779b97f4a7c15u, h ^= h >> 29;
    return h;
}

/* Where the key is, or the free slot where it would be. */
static struct entry **slot_of(struct entry **table, int64_t slots,
                              const struct key *key)
{
    uint64_t at = hash(key);
    for (;; at++) {
        struct entry **slot = &table[at % (uint64_t)slots];
        if (!*slot || memcmp(&(*slot)->key, key, sizeof *key) == 0)
            return slot;
    }
}

/* The entry of a key; made free where there was none. NULL with err set. */
static struct entry **slot_for(struct bf16_onednn *o, const struct key *key,
                               struct err *err)
{
    if (2 * (o->entries + 1) > o->slots) {
        int64_t slots = o->slots ? 2 * o->slots : SLOTS;
        struct entry **table = mem_array(slots, sizeof *table, err);
        if (!table)
            return NULL;
        for (int64_t i = 0; i < o->slots; i++)
            if (o->table[i])
                *slot_of(table, slots, &o->table[i]->key) = o->table[i];
        mem_free(o->table);
        o->table = table;
        o->slots = slots;
    }
    return slot_of(o->table, o->slots, key);
}

static void seat_destroy(struct seat *seat)
{
    dnnl_memory_destroy(seat->from);
    dnnl_memory_destroy(seat->weights);
    dnnl_memory_destroy(seat->to);
    dnnl_memory_destroy(seat->scratch);
}

static void entry_destroy(struct bf16_onednn *o, struct entry *e)
{
    for (int t = 0; e->seat && t < o->threads; t++)
        seat_destroy(&e->seat[t]);
    dnnl_primitive_destroy(e->primitive);
    mem_free(e->seat);
    mem_free(e);
}

/* Scratchpads are the caller's, one a thread, as large as the greediest primitive's. */
static int scratch_grow(struct bf16_onednn *o, int64_t bytes, struct err *err)
{
    if (bytes <= o->scratch_bytes)
        return 0;
    for (int t = 0; t < o->threads; t++) {
        void *larger = mem_array(bytes, 1, err);
        if (!larger)
            return -1;
        mem_free(o->scratch[t]);
        o->scratch[t] = larger;
    }
    o->scratch_bytes = bytes;
    return 0;
}

/* Entry of a primitive descriptor, which stays the caller's. */
static struct entry *entry_create(struct bf16_onednn *o, dnnl_primitive_desc_t pd,
                                  int product, struct err *err)
{
    view from = dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    view weights = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    view to = dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
    view scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    if (scratch_grow(o, (int64_t)dnnl_memory_desc_get_size(scratch), err))
        return NULL;
    struct entry *e = mem_array(1, sizeof *e, err);
    if (!e)
        return NULL;
    e->seat = mem_array(o->threads, sizeof *e->seat, err);
    if (!e->seat) {
        entry_destroy(o, e);
        return NULL;
    }
    dnnl_status_t s = dnnl_primitive_create(&e->primitive, pd);
    for (int t = 0; s == dnnl_success && t < o->threads; t++) {
        struct seat *seat = &e->seat[t];
        s = dnnl_memory_create(&seat->from, from, o->engine, DNNL_MEMORY_NONE);
        if (s == dnnl_success && product)
            s = dnnl_memory_create(&seat->weights, weights, o->engine,
                                   DNNL_MEMORY_NONE);
        if (s == dnnl_success)
            s = dnnl_memory_create(&seat->to, to, o->engine, DNNL_MEMORY_NONE);
        if (s == dnnl_success)
            s = dnnl_memory_create(&seat->scratch, scratch, o->engine,
                                   DNNL_MEMORY_NONE);
    }
    if (s != dnnl_success) {
        fail(err, "building a primitive", s);
        entry_destroy(o, e);
        return NULL;
    }
    return e;
}

static dnnl_status_t attr_create(dnnl_primitive_attr_t *attr, int sum)
{
    dnnl_status_t s = dnnl_primitive_attr_create(attr);
    if (s == dnnl_success)
        s = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    if (s != dnnl_success || !sum)
        return s;
    dnnl_post_ops_t ops;
    s = dnnl_post_ops_create(&ops);
    if (s != dnnl_success)
        return s;
    s = append_sum(ops);
    if (s == dnnl_success)
        s = dnnl_primitive_attr_set_post_ops(*attr, ops);
    dnnl_post_ops_destroy(ops);
    return s;
}

/* packed: NULL takes B as the key's strides say, else B's format; or, if `any`, the
 * library's choice. */
static dnnl_status_t product_desc(const struct bf16_onednn *o, const struct key *key,
                                  view packed, int any, dnnl_primitive_desc_t *pd)
{
    dnnl_dims_t a_dims = {key->m, key->k}, a_strides = {key->a_row, key->a_col};
    dnnl_dims_t b_dims = {key->k, key->n}, b_strides = {key->b_row, key->b_col};
    dnnl_dims_t c_dims = {key->m, key->n}, c_strides = {key->c_row, 1};
    dnnl_data_type_t type = key->to == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_t d[3];
    dnnl_primitive_attr_t attr = NULL;
    int made = 0;
    dnnl_status_t s = desc_strided(&d[0], a_dims, dnnl_bf16, a_strides);
    if (s == dnnl_success)
        made++, s = desc_strided(&d[1], c_dims, type, c_strides);
    if (s == dnnl_success) {
        made++;
        s = any      ? desc_any(&d[2], b_dims)
            : packed ? desc_copy(&d[2], packed)
                     : desc_strided(&d[2], b_dims, dnnl_bf16, b_strides);
    }
    if (s == dnnl_success)
        made++, s = attr_create(&attr, key->beta != 0);
    if (s == dnnl_success)
        s = matmul_create(pd, o->engine, view_of(&d[0]), view_of(&d[2]), view_of(&d[1]),
                          attr);
    dnnl_primitive_attr_destroy(attr);
    while (made-- > 0)
        desc_free(&d[made]);
    return s;
}

/* Builds for one thread what is not there yet. */
static int product_build(struct bf16_onednn *o, const struct key *key, view packed,
                         struct err *err)
{
    struct entry **slot = slot_for(o, key, err);
    if (!slot)
        return -1;
    if (*slot)
        return 0;
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    dnnl_primitive_desc_t pd;
    dnnl_status_t s = product_desc(o, key, packed, 0, &pd);
    struct entry *e = NULL;
    if (s == dnnl_success) {
        e = entry_create(o, pd, 1, err);
        dnnl_primitive_desc_destroy(pd);
    } else
        fail(err, "describing a product", s);
    omp_set_num_threads(threads);
    if (!e)
        return -1;
    e->key = *key;
    *slot = e;
    o->entries++;
    return 0;
}

/* The format of packed blocks, chosen for ROWS rows and used for any number. NULL with
 * err set. */
static const struct format *format_of(struct bf16_onednn *o, int64_t k, int64_t n,
                                      struct err *err)
{
    for (int64_t i = 0; i < o->format_count; i++)
        if (o->formats[i].k == k && o->formats[i].n == n)
            return &o->formats[i];
    struct format *more = mem_array(o->format_count + 1, sizeof *more, err);
    if (!more)
        return NULL;
    struct key key = {.kind = PRODUCT_PACKED,
                      .m = ROWS,
                      .n = n,
                      .k = k,
                      .a_row = k,
                      .a_col = 1,
                      .c_row = n,
                      .to = DTYPE_BF16};
    dnnl_primitive_desc_t pd;
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    dnnl_status_t s = product_desc(o, &key, NULL, 1, &pd);
    omp_set_num_threads(threads);
    struct format *f = &more[o->format_count];
    if (s == dnnl_success) {
        view d = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
        f->k = k, f->n = n;
        f->bytes = ((int64_t)dnnl_memory_desc_get_size(d) + 63) / 64 * 64;
        s = desc_copy(&f->desc, d);
        dnnl_primitive_desc_destroy(pd);
    }
    if (s != dnnl_success) {
        mem_free(more);
        fail(err, "choosing a packed format", s);
        return NULL;
    }
    if (o->format_count)
        memcpy(more, o->formats, (size_t)o->format_count * sizeof *more);
    mem_free(o->formats);
    o->formats = more;
    o->format_count++;
    return f;
}

int bf16_onednn_built(void)
{
    return 1;
}

int64_t bf16_onednn_packed_bytes(struct bf16_onednn *o, int64_t k, int64_t n,
                                 struct err *err)
{
    int64_t bytes = 0;
    for (int64_t col = 0; col < n; col += COLS) {
        const struct format *f = format_of(o, k, least(COLS, n - col), err);
        if (!f)
            return -1;
        bytes += f->bytes;
    }
    return bytes;
}

/* Key of the reorder of one block; B as in a product. */
static struct key reorder_key(int64_t k, int64_t n, struct bf16_matrix b)
{
    return (struct key){
        .kind = REORDER, .n = n, .k = k, .b_row = b.row, .b_col = b.col};
}

static int reorder_build(struct bf16_onednn *o, const struct key *key, struct err *err)
{
    const struct format *f = format_of(o, key->k, key->n, err);
    struct entry **slot = f ? slot_for(o, key, err) : NULL;
    if (!slot)
        return -1;
    if (*slot)
        return 0;
    dnnl_dims_t dims = {key->k, key->n}, strides = {key->b_row, key->b_col};
    dnnl_memory_desc_t plain;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd;
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    struct entry *e = NULL;
    dnnl_status_t s = desc_strided(&plain, dims, dnnl_bf16, strides);
    if (s == dnnl_success) {
        s = attr_create(&attr, 0);
        if (s == dnnl_success)
            s = dnnl_reorder_primitive_desc_create(&pd, view_of(&plain), o->engine,
                                                   view_of(&f->desc), o->engine, attr);
        dnnl_primitive_attr_destroy(attr);
        desc_free(&plain);
    }
    if (s == dnnl_success) {
        e = entry_create(o, pd, 0, err);
        dnnl_primitive_desc_destroy(pd);
    } else
        fail(err, "describing a packing", s);
    omp_set_num_threads(threads);
    if (!e)
        return -1;
    e->key = *key;
    *slot = e;
    o->entries++;
    return 0;
}

static void execute(const struct bf16_onednn *o, const struct key *key, const void *a,
                    const void *b, void *c)
{
    struct entry *e = *slot_of(o->table, o->slots, key);
    int t = omp_get_thread_num();
    CHECK(e && t < o->threads, "no primitive, thread %d", t);
    struct seat *seat = &e->seat[t];
    union {
        const void *in;
        void *dnnl;
    } pa = {a}, pb = {b}; /* its prototypes lack const */
    dnnl_exec_arg_t args[4] = {{DNNL_ARG_SRC, seat->from},
                               {DNNL_ARG_DST, seat->to},
                               {DNNL_ARG_SCRATCHPAD, seat->scratch},
                               {DNNL_ARG_WEIGHTS, seat->weights}};
    dnnl_status_t s = dnnl_memory_set_data_handle(seat->from, pa.dnnl);
    if (s == dnnl_success)
        s = dnnl_memory_set_data_handle(seat->to, c);
    if (s == dnnl_success)
        s = dnnl_memory_set_data_handle(seat->scratch, o->scratch[t]);
    if (s == dnnl_success && b)
        s = dnnl_memory_set_data_handle(seat->weights, pb.dnnl);
    if (s == dnnl_success)
        s = dnnl_primitive_execute(e->primitive, o->stream[t], b ? 4 : 3, args);
    CHECK(s == dnnl_success, "oneDNN: status %d", (int)s);
}

void bf16_onednn_fill(struct bf16_onednn *o, int64_t k, int64_t n, struct bf16_matrix b,
                      uint16_t *to)
{
    struct err err = {0};
    for (int64_t col = 0; col < n; col += COLS) {
        struct key key = reorder_key(k, least(COLS, n - col), b);
        int failed = reorder_build(o, &key, &err);
        CHECK(!failed, "%s", err.text);
    }
    const struct format *f = format_of(o, k, least(COLS, n), &err);
    int64_t block = f->bytes;
#pragma omp parallel for schedule(static) num_threads(o->threads)
    for (int64_t col = 0; col < n; col += COLS) {
        struct key key = reorder_key(k, least(COLS, n - col), b);
        execute(o, &key, b.p + col * b.col, NULL,
                (char *)to + (size_t)(col / COLS * block));
    }
}

static struct key product_key(int64_t row, int64_t m, int64_t col, int64_t n, int64_t k,
                              struct bf16_matrix a, struct bf16_matrix b, int packed,
                              struct bf16_target t)
{
    return (struct key){.kind = packed ? PRODUCT_PACKED : PRODUCT,
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
        struct key key = product_key(row, m, col, n, k, a, b, packed, t);
        const struct format *f = packed ? format_of(o, k, key.n, err) : NULL;
        if ((packed && !f) ||
            product_build(o, &key, packed ? view_of(&f->desc) : NULL, err))
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
    int64_t block = packed ? format_of(o, k, least(COLS, n), &err)->bytes : 0;
    int threads = (int)least(least(o->threads, omp_get_max_threads()), pieces);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < pieces; i++) {
        int64_t row = i % down * ROWS, col = i / down * COLS;
        struct key key = product_key(row, m, col, n, k, a, b, packed != NULL, t);
        const void *right =
            packed ? (const void *)((const char *)packed + (size_t)(col / COLS * block))
                   : (const void *)(b.p + col * b.col);
        execute(o, &key, a.p + row * a.row, right,
                (char *)t.c + (size_t)(row * t.ldc + col) * dtype_bytes(t.dtype));
    }
}

int64_t bf16_onednn_bytes(const struct bf16_onednn *o)
{
    return o->scratch_bytes * o->threads;
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
    return s == dnnl_success ? 0 : fail(err, "choosing the CPU level", s);
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
        fail(err, "its start", s);
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
    for (int64_t i = 0; i < o->slots; i++)
        if (o->table[i])
            entry_destroy(o, o->table[i]);
    for (int64_t i = 0; i < o->format_count; i++)
        desc_free(&o->formats[i].desc);
    for (int t = 0; t < o->threads; t++) {
        if (o->stream)
            dnnl_stream_destroy(o->stream[t]);
        if (o->scratch)
            mem_free(o->scratch[t]);
    }
    dnnl_engine_destroy(o->engine);
    mem_free(o->stream);
    mem_free(o->scratch);
    mem_free(o->formats);
    mem_free(o->table);
    mem_free(o);
}
