/* SPDX-License-Identifier: Apache-2.0 */
/* What a merge says of its result, and what it refuses. */
#include "io/merge.h"

#include "tests/io/merge_sample.h"

#include <dirent.h>

/* The source is told; a layer's own dtype is kept and its values are of it; a training
 * checkpoint's moments and counts stay behind. */
static void what_it_was_made_of_is_recorded(void **state)
{
    (void)state;
    static const double weight[] = {0.3, 0.7};
    import("hostile-llama", "a.h5", NULL); /* layers.1.up_proj is BF16 */
    import("hostile-llama", "b.h5", NULL);
    struct ckpt *a = open_one("a.h5");
    struct ckpt_info info = {0};
    struct err err = {0};
    assert_int_equal(ckpt_info_copy(&info, ckpt_info(a), &err), 0);
    info.step = 5;
    struct ckpt_writer *w =
        ckpt_create(world, in_folder("step-00000005"), true, true, &info, &err);
    assert_non_null(w);
    for (int i = comm_rank(world); i < table_count(&info.shape);
         i += comm_size(world)) {
        struct tensor t = table_at(&info.shape, i);
        float *x = read_tensor(a, &t);
        for (int64_t e = 0; e < t.elements; e++)
            x[e] *= 1.1F;
        assert_int_equal(
            ckpt_write(w, CKPT_MODEL, t.role, t.layer, 0, t.elements, x, &err), 0);
        free(x);
    }
    assert_int_equal(ckpt_commit(w, &err), 0);
    ckpt_info_fini(&info);
    static const char *const names[] = {"a.h5", "step-00000005"};
    must_merge(names,
               (struct merge_options){.models = 2,
                                      .output = "new.h5",
                                      .weight = weight,
                                      .weights = 2,
                                      .keep = true,
                                      .force = true},
               NULL);
    struct ckpt *k = open_one("new.h5");
    const struct ckpt_info *i = ckpt_info(k);
    char want[256];
    snprintf(want, sizeof want,
             "linear merge of a.h5 (weight 0.3, seal %016llx), "
             "step-00000005/state.h5 (weight 0.7, seal ",
             (unsigned long long)ckpt_identity(a));
    if (comm_root(world))
        printf("%s\n", i->source);
    assert_memory_equal(i->source, want, strlen(want));
    assert_int_equal(i->step, 0);
    assert_false(i->optimizer);
    assert_int_equal(i->files, ckpt_info(a)->files);
    assert_non_null(i->layer_dtype[ROLE_UP_PROJ]);
    assert_int_equal(i->dtype[ROLE_UP_PROJ], DTYPE_F32);
    assert_int_equal(i->layer_dtype[ROLE_UP_PROJ][1], DTYPE_BF16);
    struct tensor t = table_find(&i->shape, ROLE_UP_PROJ, 1);
    float *x = read_tensor(k, &t);
    for (int64_t e = 0; e < t.elements; e++)
        assert_true(fabsf(bf16_to_f32(bf16_from_f32(x[e])) - x[e]) <= 0);
    free(x);
    ckpt_close(a);
    ckpt_close(k);
    comm_barrier(world);
}

/* What a narrower dtype cannot hold is told, and where. */
static void what_is_not_finite_is_told(void **state)
{
    (void)state;
    struct noise a = plain, b = plain;
    a.odd = 70000;
    b.name = "b.h5", b.seed = 2;
    make_noise(&a);
    make_noise(&b);
    FILE *f = tmpfile();
    struct log log = {comm_root(world) ? f : NULL};
    struct err err = {0};
    const char *paths[] = {in_folder("a.h5"), in_folder("b.h5")};
    static const double weight[] = {0.99, 0.01};
    struct merge_options o = {.checkpoint = paths,
                              .models = 2,
                              .output = in_folder("new.h5"),
                              .weight = weight,
                              .weights = 2,
                              .dtype = DTYPE_F16,
                              .force = true};
    assert_int_equal(merge(world, &log, &o, NULL, &err), 0);
    char line[512] = "";
    rewind(f);
    if (comm_root(world)) {
        assert_non_null(fgets(line, sizeof line, f));
        printf("%s", line);
        assert_non_null(strstr(line, "layers.1.input_layernorm.weight: 1 of 64 values "
                                     "are NaN or Inf, 1 of them too large"));
    }
    fclose(f);
    comm_barrier(world);
}

static const char no_direction[] =
    "nan.h5: model.layers.1.input_layernorm.weight holds NaN or Inf";

static int files_like(const char *part)
{
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        n += strstr(e->d_name, part) != NULL;
    closedir(d);
    return n;
}

static void make_unlike_ones(void)
{
    struct noise m = plain;
    make_noise(&m);
    m.name = "vocab.h5", m.vocab = 5001;
    make_noise(&m);
    m = plain;
    m.name = "other.h5", m.tokenizer = "Pieces";
    make_noise(&m);
    m.name = "none.h5", m.tokenizer = NULL;
    make_noise(&m);
    m.name = "json.h5", m.json = "{}";
    make_noise(&m);
    m = plain;
    m.name = "nan.h5", m.odd = NAN;
    make_noise(&m);
    make_noise(&(struct noise){
        .name = "flipped.h5", .seed = 9, .vocab = 5000, .tokenizer = "pieces"});
    if (comm_root(world)) { /* one bit of a weight */
        FILE *f = fopen(in_folder("flipped.h5"), "r+b");
        fseek(f, 0, SEEK_END);
        long at = ftell(f) / 3;
        fseek(f, at, SEEK_SET);
        int byte = fgetc(f);
        fseek(f, at, SEEK_SET);
        fputc(byte ^ 4, f);
        fclose(f);
    }
    comm_barrier(world);
}

/* Nothing is there under the name, or beside it. */
static void must_refuse(const char *const *names, struct merge_options o,
                        enum err_code code, const char *message)
{
    struct err err = {0};
    assert_int_equal(merge_named(names, o, NULL, &err), -1);
    if (comm_root(world))
        printf("%s\n", err.text);
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.text, message));
    comm_barrier(world);
    assert_int_equal(files_like("x.h5") + files_like(".tmp"), 0);
}

static void options_that_cannot_be(void **state)
{
    (void)state;
    enum { L = MERGE_LINEAR, S = MERGE_SLERP };
    static const struct {
        int method, models, weights;
        double weight[2], t;
        bool raw;
        const char *message;
    } rows[] = {
        {L, 1, 0, {0}, 0, false, "expected 2 to 64 models, found 1"},
        {L, 65, 0, {0}, 0, false, "expected 2 to 64 models, found 65"},
        {L, 3, 2, {1, 2}, 0, false, "expected 3 numbers, one for each model, found 2"},
        {L, 2, 2, {0, 0}, 0, false, "expected one that is not 0"},
        {L, 2, 2, {0, 0}, 0, true, "expected one that is not 0"},
        {L, 2, 2, {0.5, -1}, 0, false, "expected a positive sum"},
        {L, 2, 2, {1, -1}, 0, false, "are divided, found 0 (--no-normalize"},
        {L, 2, 2, {3e38, 3e38}, 0, false, "are divided, found inf"},
        {L, 2, 2, {NAN, 1}, 0, false, "expected numbers that fp32 holds, found nan"},
        {L, 2, 2, {1, 1e39}, 0, true, "expected numbers that fp32 holds, found 1e+39"},
        {L, 2, 0, {0}, 0, true, "--no-normalize: expected the weights"},
        {S, 3, 0, {0}, 0.5, false, "--method slerp: expected 2 models, found 3"},
        {S, 2, 0, {0}, NAN, false, "expected a number from 0 to 1, found nan"},
        {S, 2, 0, {0}, 1.01, false, "expected a number from 0 to 1, found 1.01"},
        {S, 2, 0, {0}, -0.5, false, "expected a number from 0 to 1, found -0.5"}};
    static const char *names[65];
    for (int i = 0; i < 65; i++)
        names[i] = "a.h5";
    make_noise(&plain);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        must_refuse(
            names,
            (struct merge_options){.models = rows[r].models,
                                   .output = "x.h5",
                                   .method = (enum merge_method)rows[r].method,
                                   .weight = rows[r].weights ? rows[r].weight : NULL,
                                   .weights = rows[r].weights,
                                   .raw = rows[r].raw,
                                   .t = rows[r].t,
                                   .keep = true},
            ERR_USAGE, rows[r].message);
}

static void files_that_do_not_fit(void **state)
{
    (void)state;
    enum { L = MERGE_LINEAR, S = MERGE_SLERP };
    static const struct {
        int method;
        const char *names[2], *to;
        enum err_code code;
        const char *message;
    } rows[] = {
        {L,
         {"a.h5", "vocab.h5"},
         "x.h5",
         ERR_INPUT,
         "vocab.h5: cannot be merged: vocab_size is 5000 and 5001"},
        {S,
         {"a.h5", "other.h5"},
         "x.h5",
         ERR_INPUT,
         "other.h5: cannot be merged: tokenizer.model is "},
        {L, {"none.h5", "a.h5"}, "x.h5", ERR_INPUT, "tokenizer.model is missing and "},
        {L, {"none.h5", "json.h5"}, "x.h5", ERR_INPUT, "tokenizer.json differs"},
        {S, {"nan.h5", "a.h5"}, "x.h5", ERR_INPUT, no_direction},
        {S, {"a.h5", "nan.h5"}, "x.h5", ERR_INPUT, no_direction},
        {L, {"a.h5", "absent.h5"}, "x.h5", ERR_INPUT, "absent.h5"},
        {L, {"a.h5", "flipped.h5"}, "x.h5", ERR_INPUT, "flipped.h5: damaged: bytes "},
        {S, {"flipped.h5", "a.h5"}, "x.h5", ERR_INPUT, "flipped.h5: damaged: bytes "},
        {L, {"a.h5", "a.h5"}, "absent/x.h5", ERR_IO, "No such file"},
        {L, {"a.h5", "a.h5"}, "a.h5", ERR_USAGE, "a.h5: exists; --force replaces it"}};
    make_unlike_ones();
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        must_refuse(rows[r].names,
                    (struct merge_options){.models = 2,
                                           .output = rows[r].to,
                                           .method = (enum merge_method)rows[r].method,
                                           .t = 0.5,
                                           .keep = true},
                    rows[r].code, rows[r].message);
}

int main(int argc, char **argv)
{
    int code = merge_begin(&argc, &argv);
    if (code)
        return code;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_was_made_of_is_recorded),
        cmocka_unit_test(what_is_not_finite_is_told),
        cmocka_unit_test(options_that_cannot_be),
        cmocka_unit_test(files_that_do_not_fit),
    };
    code = cmocka_run_group_tests(tests, NULL, NULL);
    merge_end();
    return code;
}
