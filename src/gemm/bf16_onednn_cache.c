/* SPDX-License-Identifier: Apache-2.0 */
/* Primitives by shape and strides, and formats of packed blocks by shape: built once,
 * kept until the end. */
#include "src/gemm/bf16_onednn.h"

#include "src/base/check.h"
#include "src/base/mem.h"

#include <omp.h>
#include <string.h>

/* SLOTS: of the first table. FORMAT_ROWS: a format is chosen for so many rows and used
 * for any number. */
enum { SLOTS = 64, FORMAT_ROWS = 256 };

/* Memory objects carry an address, so each thread has its own. */
struct seat {
    dnnl_memory_t from, weights, to, scratch;
};

struct onednn_entry {
    struct onednn_key key;
    dnnl_primitive_t primitive;
    struct seat *seat; /* [threads] */
};

struct onednn_format {
    int64_t k, n;
    dnnl_memory_desc_t desc;
    int64_t bytes;
};

static uint64_t hash(const struct onednn_key *key)
{
    int64_t word[sizeof *key / sizeof(int64_t)];
    uint64_t h = 0;
    memcpy(word, key, sizeof *key);
    for (size_t i = 0; i < sizeof word / sizeof *word; i++)
        h = (h ^ (uint64_t)word[i]) * 0x9e3779b97f4a7c15u, h ^= h >> 29;
    return h;
}

/* Where the key is, or the free slot where it would be. */
static struct onednn_entry **slot_of(struct onednn_entry **table, int64_t slots,
                                     const struct onednn_key *key)
{
    uint64_t at = hash(key);
    for (;; at++) {
        struct onednn_entry **slot = &table[at % (uint64_t)slots];
        if (!*slot || memcmp(&(*slot)->key, key, sizeof *key) == 0)
            return slot;
    }
}

static struct onednn_entry *find(const struct bf16_onednn *o,
                                 const struct onednn_key *key)
{
    return o->slots ? *slot_of(o->table, o->slots, key) : NULL;
}

/* At most half of the slots are taken, also after the next insert. */
static int table_grow(struct bf16_onednn *o, struct err *err)
{
    if (2 * (o->entries + 1) <= o->slots)
        return 0;
    int64_t slots = o->slots ? 2 * o->slots : SLOTS;
    struct onednn_entry **table = mem_array(slots, sizeof *table, err);
    if (!table)
        return -1;
    for (int64_t i = 0; i < o->slots; i++)
        if (o->table[i])
            *slot_of(table, slots, &o->table[i]->key) = o->table[i];
    mem_free(o->table);
    o->table = table;
    o->slots = slots;
    return 0;
}

static void seat_destroy(struct seat *seat)
{
    dnnl_memory_destroy(seat->from);
    dnnl_memory_destroy(seat->weights);
    dnnl_memory_destroy(seat->to);
    dnnl_memory_destroy(seat->scratch);
}

static void entry_destroy(struct bf16_onednn *o, struct onednn_entry *e)
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
static struct onednn_entry *entry_create(struct bf16_onednn *o,
                                         dnnl_primitive_desc_t pd,
                                         const struct onednn_key *key, struct err *err)
{
    onednn_view from = dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    onednn_view weights = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    onednn_view to = dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
    onednn_view scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    if (scratch_grow(o, (int64_t)dnnl_memory_desc_get_size(scratch), err))
        return NULL;
    struct onednn_entry *e = mem_array(1, sizeof *e, err);
    if (!e)
        return NULL;
    e->key = *key;
    e->seat = mem_array(o->threads, sizeof *e->seat, err);
    if (!e->seat) {
        entry_destroy(o, e);
        return NULL;
    }
    dnnl_status_t s = dnnl_primitive_create(&e->primitive, pd);
    for (int t = 0; s == dnnl_success && t < o->threads; t++) {
        struct seat *seat = &e->seat[t];
        s = dnnl_memory_create(&seat->from, from, o->engine, DNNL_MEMORY_NONE);
        if (s == dnnl_success && key->kind != ONEDNN_REORDER)
            s = dnnl_memory_create(&seat->weights, weights, o->engine,
                                   DNNL_MEMORY_NONE);
        if (s == dnnl_success)
            s = dnnl_memory_create(&seat->to, to, o->engine, DNNL_MEMORY_NONE);
        if (s == dnnl_success)
            s = dnnl_memory_create(&seat->scratch, scratch, o->engine,
                                   DNNL_MEMORY_NONE);
    }
    if (s != dnnl_success) {
        onednn_fail(err, "building a primitive", s);
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
    s = onednn_append_sum(ops);
    if (s == dnnl_success)
        s = dnnl_primitive_attr_set_post_ops(*attr, ops);
    dnnl_post_ops_destroy(ops);
    return s;
}

/* packed: NULL takes B as the key's strides say, else B's format; or, if `any`, the
 * library's choice. */
static dnnl_status_t product_desc(const struct bf16_onednn *o,
                                  const struct onednn_key *key, onednn_view packed,
                                  int any, dnnl_primitive_desc_t *pd)
{
    dnnl_dims_t a_dims = {key->m, key->k}, a_strides = {key->a_row, key->a_col};
    dnnl_dims_t b_dims = {key->k, key->n}, b_strides = {key->b_row, key->b_col};
    dnnl_dims_t c_dims = {key->m, key->n}, c_strides = {key->c_row, 1};
    dnnl_data_type_t type = key->to == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_t d[3];
    dnnl_primitive_attr_t attr = NULL;
    int made = 0;
    dnnl_status_t s = onednn_desc_strided(&d[0], a_dims, dnnl_bf16, a_strides);
    if (s == dnnl_success)
        made++, s = onednn_desc_strided(&d[1], c_dims, type, c_strides);
    if (s == dnnl_success) {
        made++;
        s = any      ? onednn_desc_any(&d[2], b_dims)
            : packed ? onednn_desc_copy(&d[2], packed)
                     : onednn_desc_strided(&d[2], b_dims, dnnl_bf16, b_strides);
    }
    if (s == dnnl_success)
        made++, s = attr_create(&attr, key->beta != 0);
    if (s == dnnl_success)
        s = onednn_matmul_desc(pd, o->engine, onednn_view_of(&d[0]),
                               onednn_view_of(&d[2]), onednn_view_of(&d[1]), attr);
    dnnl_primitive_attr_destroy(attr);
    while (made-- > 0)
        onednn_desc_free(&d[made]);
    return s;
}

static dnnl_status_t reorder_desc(const struct bf16_onednn *o,
                                  const struct onednn_key *key, onednn_view packed,
                                  dnnl_primitive_desc_t *pd)
{
    dnnl_dims_t dims = {key->k, key->n}, strides = {key->b_row, key->b_col};
    dnnl_memory_desc_t plain;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t s = onednn_desc_strided(&plain, dims, dnnl_bf16, strides);
    if (s != dnnl_success)
        return s;
    s = attr_create(&attr, 0);
    if (s == dnnl_success)
        s = dnnl_reorder_primitive_desc_create(pd, onednn_view_of(&plain), o->engine,
                                               packed, o->engine, attr);
    dnnl_primitive_attr_destroy(attr);
    onednn_desc_free(&plain);
    return s;
}

/* The library builds for as many threads as there may be; from here on one. Returns how
 * many there were, for omp_set_num_threads. */
static int begin_one_thread(void)
{
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    return threads;
}

/* The format of a packed block. NULL with err set. Valid until the next call. */
static const struct onednn_format *format_of(struct bf16_onednn *o, int64_t k,
                                             int64_t n, struct err *err)
{
    for (int64_t i = 0; i < o->formats; i++)
        if (o->format[i].k == k && o->format[i].n == n)
            return &o->format[i];
    struct onednn_format *more = mem_array(o->formats + 1, sizeof *more, err);
    if (!more)
        return NULL;
    struct onednn_key key = {.kind = ONEDNN_PRODUCT_PACKED,
                             .m = FORMAT_ROWS,
                             .n = n,
                             .k = k,
                             .a_row = k,
                             .a_col = 1,
                             .c_row = n,
                             .to = DTYPE_BF16};
    dnnl_primitive_desc_t pd;
    int threads = begin_one_thread();
    dnnl_status_t s = product_desc(o, &key, NULL, 1, &pd);
    omp_set_num_threads(threads);
    struct onednn_format *f = &more[o->formats];
    if (s == dnnl_success) {
        onednn_view d = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
        f->k = k, f->n = n;
        f->bytes = ((int64_t)dnnl_memory_desc_get_size(d) + 63) / 64 * 64;
        s = onednn_desc_copy(&f->desc, d);
        dnnl_primitive_desc_destroy(pd);
    }
    if (s != dnnl_success) {
        mem_free(more);
        onednn_fail(err, "choosing a packed format", s);
        return NULL;
    }
    if (o->formats)
        memcpy(more, o->format, (size_t)o->formats * sizeof *more);
    mem_free(o->format);
    o->format = more;
    o->formats++;
    return f;
}

int64_t onednn_block_bytes(struct bf16_onednn *o, int64_t k, int64_t n, struct err *err)
{
    const struct onednn_format *f = format_of(o, k, n, err);
    return f ? f->bytes : -1;
}

int onednn_build(struct bf16_onednn *o, const struct onednn_key *key, struct err *err)
{
    if (find(o, key))
        return 0;
    onednn_view packed = NULL;
    if (key->kind != ONEDNN_PRODUCT) {
        const struct onednn_format *f = format_of(o, key->k, key->n, err);
        if (!f)
            return -1;
        packed = onednn_view_of(&f->desc);
    }
    if (table_grow(o, err))
        return -1;
    dnnl_primitive_desc_t pd;
    struct onednn_entry *e = NULL;
    int packing = key->kind == ONEDNN_REORDER, threads = begin_one_thread();
    dnnl_status_t s = packing ? reorder_desc(o, key, packed, &pd)
                              : product_desc(o, key, packed, 0, &pd);
    if (s == dnnl_success) {
        e = entry_create(o, pd, key, err);
        dnnl_primitive_desc_destroy(pd);
    } else {
        onednn_fail(err, packing ? "describing a packing" : "describing a product", s);
    }
    omp_set_num_threads(threads);
    if (!e)
        return -1;
    *slot_of(o->table, o->slots, key) = e;
    o->entries++;
    return 0;
}

void onednn_run(const struct bf16_onednn *o, const struct onednn_key *key,
                const void *a, const void *b, void *c)
{
    struct onednn_entry *e = find(o, key);
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

void onednn_cache_fini(struct bf16_onednn *o)
{
    for (int64_t i = 0; i < o->slots; i++)
        if (o->table[i])
            entry_destroy(o, o->table[i]);
    for (int64_t i = 0; i < o->formats; i++)
        onednn_desc_free(&o->format[i].desc);
    mem_free(o->format);
    mem_free(o->table);
}
