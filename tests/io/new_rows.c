/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of new tokens, as upscale writes them. */
#include "io/new_rows.h"

#include "io/hf_import.h"
#include "io/upscale.h"
#include "src/base/file.h"
#include "tests/support/arrays.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static struct comm *world;
static char folder[256];

static const char *in_folder(const char *name)
{
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

/* Imports a model of the oracle as folder/NAME. */
static void import(const char *model, const char *name)
{
    struct err err = {0};
    char *source = oracle_path(model);
    struct hf_import_options o = {
        .folder = source, .output = in_folder(name), .keep = true, .force = true};
    if (hf_import(world, NULL, &o, &err) < 0)
        fail_msg("%s", err.text);
    free(source);
}

/* A copy of a checkpoint with the tokenizer.model of tiny-mistral, but for one whose
 * vocabulary is smaller: that gets a model of the pieces <unk>, <s>, </s>, a. */
static void lend_tokenizer(const char *from, const char *to)
{
    static const char few[] = "\x0a\x09\x0a\x05<unk>\x18\x02\x0a\x07\x0a\x03<s>\x18\x03"
                              "\x0a\x08\x0a\x04</s>\x18\x03\x0a\x03\x0a\x01"
                              "a";
    struct err err = {0};
    struct ckpt *k = ckpt_open(world, in_folder(from), &err);
    assert_non_null(k);
    const struct ckpt_info *info = ckpt_info(k);
    struct ckpt_info with = {.shape = info->shape};
    char name[] = "tokenizer.model";
    struct ckpt_file file = {name, (unsigned char *)few, sizeof few - 1};
    memcpy(with.dtype, info->dtype, sizeof with.dtype);
    const struct ckpt_file *own = ckpt_info_file(info, name);
    with.file = own ? (struct ckpt_file *)own : &file;
    with.files = 1;
    struct ckpt_writer *w = ckpt_create(world, in_folder(to), false, true, &with, &err);
    assert_non_null(w);
    for (int i = 0; i < table_count(&info->shape) && comm_root(world); i++) {
        struct tensor t = table_at(&info->shape, i);
        float *x = malloc((size_t)t.elements * sizeof *x);
        assert_int_equal(
            ckpt_read(k, CKPT_MODEL, t.role, t.layer, 0, t.elements, x, &err), 0);
        assert_int_equal(
            ckpt_write(w, CKPT_MODEL, t.role, t.layer, 0, t.elements, x, &err), 0);
        free(x);
    }
    assert_int_equal(ckpt_commit(w, &err), 0);
    ckpt_close(k);
}

static void read_all(struct ckpt *k, enum tensor_role role, int layer, float **x)
{
    struct err err = {0};
    struct tensor t = table_find(&ckpt_info(k)->shape, role, layer);
    *x = malloc((size_t)t.elements * sizeof **x);
    if (ckpt_read(k, CKPT_MODEL, role, layer, 0, t.elements, *x, &err) < 0)
        fail_msg("%s", err.text);
}

/* Rows [0, V) are the old ones; each new one is the mean of these in double, rounded
 * once to the stored dtype: no value of it is nearer. */
static void check_grown(struct ckpt *old, struct ckpt *new, enum tensor_role role,
                        int added)
{
    struct tensor t = table_find(&ckpt_info(old)->shape, role, -1);
    enum dtype type = ckpt_info(new)->dtype[role];
    float *x, *y;
    double worst = 0;
    read_all(old, role, -1, &x);
    read_all(new, role, -1, &y);
    assert_int_equal(table_find(&ckpt_info(new)->shape, role, -1).rows, t.rows + added);
    assert_memory_equal(x, y, (size_t)t.elements * sizeof *x);
    for (int64_t d = 0; d < t.cols; d++) {
        double mean = 0;
        for (int64_t v = 0; v < t.rows; v++)
            mean += (double)x[v * t.cols + d];
        mean /= (double)t.rows;
        for (int i = 0; i < added; i++) {
            double off = fabs((double)y[t.elements + i * t.cols + d] - mean);
            double unit = type == DTYPE_F32    ? 0x1p-24
                          : type == DTYPE_BF16 ? 0x1p-8
                                               : 0x1p-11;
            double limit =
                fabs(mean) * unit * 1.0000001 + (type == DTYPE_F16 ? 0x1p-25 : 0);
            assert_true(off <= limit);
            worst = off > worst ? off : worst;
        }
    }
    if (comm_root(world))
        printf("%s %s: %lld rows, means off by at most %.2g\n", role_name(role),
               dtype_name(type), (long long)(t.rows + added), worst);
    free(x);
    free(y);
}

static int add(const char *from, const char *to, const char *tokens, const char *layers,
               enum new_rows_init init, struct err *err)
{
    struct upscale_options o = {.checkpoint = in_folder(from),
                                .output = in_folder(to),
                                .layers = layers,
                                .add_tokens = tokens,
                                .init = init,
                                .seed = 5,
                                .force = true};
    return upscale(world, NULL, &o, NULL, err);
}

static void tokens_get_the_mean_of_the_rows(void **state)
{
    (void)state;
    static const struct {
        const char *model, *layers;
        bool tied;
    } rows[] = {{"tiny-mistral", NULL, false},
                {"tiny-mistral-bf16", "0:3,1:4", false},
                {"tiny-llama-tied", "0:2,0:2", true}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct err err = {0};
        import(rows[r].model, "plain.h5");
        lend_tokenizer("plain.h5", "base.h5");
        if (add("base.h5", "new.h5", "<a>,<b>,<c>", rows[r].layers, NEW_ROWS_MEAN,
                &err) < 0)
            fail_msg("%s", err.text);
        struct ckpt *old = ckpt_open(world, in_folder("base.h5"), &err);
        struct ckpt *new = ckpt_open(world, in_folder("new.h5"), &err);
        assert_non_null(old);
        assert_non_null(new);
        assert_int_equal(ckpt_info(new)->shape.tied, rows[r].tied);
        assert_non_null(strstr(ckpt_info(new)->source, ", 3 tokens added"));
        if (!rows[r].layers)
            assert_null(ckpt_info(new)->layers);
        check_grown(old, new, ROLE_EMBED_TOKENS, 3);
        if (!rows[r].tied)
            check_grown(old, new, ROLE_LM_HEAD, 3);
        float *x, *y;
        struct tensor t = table_find(&ckpt_info(old)->shape, ROLE_UP_PROJ, 1);
        read_all(old, ROLE_UP_PROJ, 1, &x);
        read_all(new, ROLE_UP_PROJ, 1, &y);
        assert_memory_equal(x, y, (size_t)t.elements * sizeof *x);
        free(x);
        free(y);
        ckpt_close(old);
        ckpt_close(new);
        comm_barrier(world);
    }
}

/* A checkpoint of one layer and `vocab` rows of 64, with a tokenizer of as many pieces:
 * three special ones, then p3, p4, ... */
static void make_tall(const char *name, int vocab)
{
    static const char few[] = "\x0a\x09\x0a\x05<unk>\x18\x02\x0a\x07\x0a\x03<s>\x18\x03"
                              "\x0a\x08\x0a\x04</s>\x18\x03";
    struct err err = {0};
    char file_name[] = "tokenizer.model";
    struct ckpt_file file = {file_name, malloc((size_t)vocab * 16 + sizeof few),
                             sizeof few - 1};
    memcpy(file.data, few, file.bytes);
    for (int i = 3; i < vocab; i++) {
        char text[12];
        int n = snprintf(text, sizeof text, "p%d", i);
        unsigned char head[] = {0x0a, (unsigned char)(n + 2), 0x0a, (unsigned char)n};
        memcpy(file.data + file.bytes, head, sizeof head);
        memcpy(file.data + file.bytes + sizeof head, text, (size_t)n);
        file.bytes += sizeof head + (size_t)n;
    }
    struct ckpt_info info = {.shape = {.layers = 1,
                                       .hidden = 64,
                                       .ff = 16,
                                       .heads = 2,
                                       .kv_heads = 1,
                                       .head_dim = 32,
                                       .vocab = vocab,
                                       .max_positions = 64,
                                       .rope_theta = 1e4,
                                       .norm_eps = 1e-5,
                                       .bos_id = 1,
                                       .eos_id = 2},
                             .file = &file,
                             .files = 1};
    struct ckpt_writer *w =
        ckpt_create(world, in_folder(name), false, true, &info, &err);
    assert_non_null(w);
    for (int i = 0; i < table_count(&info.shape) && comm_root(world); i++) {
        struct tensor t = table_at(&info.shape, i);
        float *x = malloc((size_t)t.elements * sizeof *x);
        for (int64_t k = 0; k < t.elements; k++)
            x[k] = (float)(k % 1013) / 64 - 7 + (float)i;
        assert_int_equal(
            ckpt_write(w, CKPT_MODEL, t.role, t.layer, 0, t.elements, x, &err), 0);
        free(x);
    }
    assert_int_equal(ckpt_commit(w, &err), 0);
    free(file.data);
}

/* Embeddings of several pieces of work; the last old row ends with one, or within. */
static void tall_models_grow(void **state)
{
    (void)state;
    static const int rows[] = {16384, 16383, 20000};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct err err = {0};
        make_tall("base.h5", rows[r]);
        if (add("base.h5", "new.h5", "<a>,<b>,<c>", NULL, NEW_ROWS_MEAN, &err) < 0)
            fail_msg("%s", err.text);
        struct ckpt *old = ckpt_open(world, in_folder("base.h5"), &err);
        struct ckpt *new = ckpt_open(world, in_folder("new.h5"), &err);
        assert_non_null(old);
        assert_non_null(new);
        check_grown(old, new, ROLE_EMBED_TOKENS, 3);
        check_grown(old, new, ROLE_LM_HEAD, 3);
        ckpt_close(old);
        ckpt_close(new);
        comm_barrier(world);
    }
}

/* Noise of the old rows' width around their mean; zeros; the same of any ranks. */
static void tokens_begin_as_asked_for(void **state)
{
    (void)state;
    struct err err = {0};
    import("tiny-mistral", "plain.h5");
    lend_tokenizer("plain.h5", "base.h5");
    char list[1200] = "";
    size_t used = 0;
    for (int i = 0; i < 100; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s<t%d>",
                                 i ? "," : "", i);
    assert_int_equal(add("base.h5", "zero.h5", list, NULL, NEW_ROWS_ZERO, &err), 0);
    assert_int_equal(add("base.h5", "noise.h5", list, NULL, NEW_ROWS_NORMAL, &err), 0);
    struct ckpt *zero = ckpt_open(world, in_folder("zero.h5"), &err);
    struct ckpt *noise = ckpt_open(world, in_folder("noise.h5"), &err);
    float *x, *y;
    read_all(zero, ROLE_EMBED_TOKENS, -1, &x);
    read_all(noise, ROLE_EMBED_TOKENS, -1, &y);
    int64_t old = 512 * 64, new = 100 * 64;
    double spread[2] = {0};
    for (int64_t d = 0; d < 64; d++) {
        double mean = 0;
        for (int64_t v = 0; v < 512; v++)
            mean += (double)x[v * 64 + d] / 512;
        for (int64_t v = 0; v < 612; v++)
            spread[v >= 512] += ((double)y[v * 64 + d] - mean) *
                                ((double)y[v * 64 + d] - mean) /
                                (double)(v < 512 ? old : new);
    }
    for (int64_t i = 0; i < new; i++)
        assert_true(x[old + i] <= 0 && x[old + i] >= 0);
    if (comm_root(world))
        printf("deviation of the old rows %.4g, of the new %.4g\n", sqrt(spread[0]),
               sqrt(spread[1]));
    assert_true(fabs(spread[1] / spread[0] - 1) < 0.1); /* 6400 values: 5 sigma */
    free(x);
    free(y);
    ckpt_close(zero);
    ckpt_close(noise);
    comm_barrier(world);
    if (comm_root(world)) {
        struct upscale_options o = {.checkpoint = in_folder("base.h5"),
                                    .output = in_folder("one.h5"),
                                    .add_tokens = list,
                                    .init = NEW_ROWS_NORMAL,
                                    .seed = 5,
                                    .force = true};
        size_t n, m;
        assert_int_equal(upscale(comm_self(), NULL, &o, NULL, &err), 0);
        char *a = file_read(in_folder("noise.h5"), 1 << 28, &n, &err);
        char *b = file_read(in_folder("one.h5"), 1 << 28, &m, &err);
        assert_int_equal(n, m);
        assert_memory_equal(a, b, n);
        free(a);
        free(b);
    }
    comm_barrier(world);
}

int main(int argc, char **argv)
{
    struct err err;
    world = comm_start(&argc, &argv, &err);
    if (!world)
        return 99;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/dusk-new-rows-XXXXXX", tmp ? tmp : "/tmp");
    if (comm_root(world) && !mkdtemp(folder))
        return 99;
    comm_bcast(world, folder, sizeof folder, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_get_the_mean_of_the_rows),
        cmocka_unit_test(tall_models_grow),
        cmocka_unit_test(tokens_begin_as_asked_for),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_barrier(world);
    if (comm_root(world))
        file_remove_tree(folder, &err);
    comm_finish(world);
    return failed;
}
