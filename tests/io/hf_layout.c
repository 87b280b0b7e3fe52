/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_layout.h"

#include "src/base/mem.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct model_shape solar = {.arch = ARCH_LLAMA,
                                         .layers = 48,
                                         .hidden = 4096,
                                         .ff = 14336,
                                         .heads = 32,
                                         .kv_heads = 8,
                                         .head_dim = 128,
                                         .vocab = 32000,
                                         .max_positions = 4096,
                                         .rope_theta = 10000,
                                         .norm_eps = 1e-5};

static enum dtype *all(const struct model_shape *s, enum dtype t)
{
    struct err err;
    enum dtype *dtype = mem_array(table_count(s), sizeof *dtype, &err);
    assert_non_null(dtype);
    for (int i = 0; i < table_count(s); i++)
        dtype[i] = t;
    return dtype;
}

/* The five files of upstage/SOLAR-10.7B-v1.0. */
static void cuts_solar_as_published(void **state)
{
    (void)state;
    static const int64_t published[] = {4943151104, 4999806976, 4915904512, 4915904512,
                                        1688281088};
    struct hf_layout l;
    struct err err = {0};
    enum dtype *dtype = all(&solar, DTYPE_BF16);
    char name[64];
    assert_int_equal(hf_layout_init(&l, &solar, dtype, 5000000000, &err), 0);
    assert_int_equal(l.shards, 5);
    for (int i = 0; i < 5; i++) {
        int64_t bytes = l.shard[i].bytes - (int64_t)l.shard[i].header_bytes;
        hf_layout_file(&l, i, name, sizeof name);
        printf("%s: %" PRId64 " bytes of tensors, published %" PRId64 "\n", name, bytes,
               published[i]);
        assert_int_equal(bytes, published[i]);
    }
    assert_int_equal(l.tensor_bytes, 21463048192);
    assert_string_equal(name, "model-00005-of-00005.safetensors");
    hf_layout_fini(&l);
    mem_free(dtype);
}

static void cuts_as_huggingface_hub(void **state)
{
    (void)state;
    static const struct {
        int n;
        int64_t bytes[6], limit;
        int shards, shard[6];
    } rows[] = {
        {3, {10, 10, 10}, 30, 1, {0, 0, 0}},
        {3, {10, 10, 10}, 29, 2, {0, 0, 1}},
        {3, {10, 10, 10}, 10, 3, {0, 1, 2}},
        {3, {10, 10, 10}, 9, 3, {0, 1, 2}},
        /* the large one closes nothing: its file comes first, the others go on */
        {3, {4, 100, 5}, 10, 2, {1, 0, 1}},
        {5, {4, 100, 5, 6, 100}, 10, 4, {1, 0, 1, 3, 2}},
        {1, {100}, 10, 1, {0}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int shard[6];
        int shards = hf_shards_cut(rows[i].bytes, rows[i].n, rows[i].limit, shard);
        printf("row %zu: %d files:", i, shards);
        for (int k = 0; k < rows[i].n; k++)
            printf(" %d", shard[k]);
        puts("");
        assert_int_equal(shards, rows[i].shards);
        for (int k = 0; k < rows[i].n; k++)
            assert_int_equal(shard[k], rows[i].shard[k]);
    }
}

/* Every byte after the headers belongs to one tensor; the walk over the places meets
 * them in order. */
static void places_cover_the_files(void **state)
{
    (void)state;
    struct model_shape s = solar;
    s.layers = 3;
    s.hidden = 24;
    s.ff = 52;
    s.heads = 3;
    s.kv_heads = 1;
    s.head_dim = 8;
    s.vocab = 67;
    for (int tied = 0; tied < 2; tied++) {
        struct hf_layout l;
        struct hf_order o;
        struct err err = {0};
        s.tied = tied;
        enum dtype *dtype = all(&s, DTYPE_BF16);
        for (int i = 0; i < table_count(&s); i += 2)
            dtype[i] = i % 4 ? DTYPE_F32 : DTYPE_F16;
        assert_int_equal(hf_layout_init(&l, &s, dtype, 9000, &err), 0);
        assert_int_equal(hf_order_init(&o, &s, l.place, &err), 0);
        printf("tied %d: %d files\n", tied, l.shards);
        assert_in_range(l.shards, 3, 20);
        int shard = -1;
        int64_t at = 0, total = 0;
        for (int i = 0; i < o.tensors; i++) {
            const struct hf_place *p = &l.place[o.index[i]];
            if (p->shard != shard) {
                assert_int_equal(p->shard, shard + 1);
                if (shard >= 0)
                    assert_int_equal(at, l.shard[shard].bytes);
                shard = p->shard;
                at = (int64_t)l.shard[shard].header_bytes;
            }
            assert_int_equal(p->offset, at);
            assert_int_equal(p->offset % (int64_t)dtype_bytes(p->dtype), 0);
            at += o.elements[i] * (int64_t)dtype_bytes(p->dtype);
            total += o.elements[i] * (int64_t)dtype_bytes(p->dtype);
        }
        assert_int_equal(shard, l.shards - 1);
        assert_int_equal(at, l.shard[shard].bytes);
        assert_int_equal(total, l.tensor_bytes);
        char *index = hf_layout_index(&l, &err);
        assert_non_null(index);
        assert_non_null(strstr(index, "\"model.norm.weight\": \"model-"));
        assert_true((strstr(index, "lm_head") == NULL) == tied);
        free(index);
        hf_order_fini(&o);
        hf_layout_fini(&l);
        mem_free(dtype);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cuts_solar_as_published),
                                       cmocka_unit_test(cuts_as_huggingface_hub),
                                       cmocka_unit_test(places_cover_the_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
