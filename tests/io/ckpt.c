/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "io/ckpt.h"

#include "src/base/file.h"
#include "tests/io/ckpt_sample.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

static char folder[256];

static const char *in_folder(const char *name)
{
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void make(const char *path, bool as_folder, bool optimizer)
{
    struct err err = {0};
    if (ckpt_sample_make(comm_self(), path, as_folder, optimizer, &err) < 0)
        fail_msg("%s", err.text);
}

static struct ckpt *opened(const char *path)
{
    struct err err = {0};
    struct ckpt *k = ckpt_open(comm_self(), path, &err);
    if (!k)
        fail_msg("%s", err.text);
    return k;
}

/* Every element of layer `layer` of the checkpoint is that of sample layer `from`. */
static void check_tensor(struct ckpt *k, int set, enum tensor_role role, int layer,
                         int from)
{
    struct err err = {0};
    struct tensor t =
        table_find(&ckpt_info(k)->shape, role, role_per_layer(role) ? layer : -1);
    float *x = malloc((size_t)t.elements * sizeof *x);
    if (ckpt_read(k, (enum ckpt_set)set, role, layer, 0, t.elements, x, &err) < 0)
        fail_msg("%s", err.text);
    for (int64_t i = 0; i < t.elements; i++)
        if (x[i] != ckpt_sample_value(set, (int)role, from, i))
            fail_msg("set %d %s layer %d element %lld: %g, expected %g", set,
                     role_name(role), layer, (long long)i, (double)x[i],
                     (double)ckpt_sample_value(set, (int)role, from, i));
    free(x);
}

static void check_tensors(struct ckpt *k, bool optimizer)
{
    for (int set = 0; set < (optimizer ? CKPT_SETS : 1); set++)
        for (int i = 0; i < table_count(&ckpt_sample_shape); i++) {
            struct tensor t = table_at(&ckpt_sample_shape, i);
            check_tensor(k, set, t.role, t.layer, t.layer);
        }
}

static void a_model_comes_back(void **state)
{
    (void)state;
    make(in_folder("base.h5"), false, false);
    struct ckpt *k = opened(in_folder("base.h5"));
    const struct ckpt_info *info = ckpt_info(k);
    struct ckpt_info want = ckpt_sample_info(false);
    assert_null(shape_difference(&info->shape, &want.shape));
    assert_int_equal(info->shape.arch, ARCH_MISTRAL);
    assert_int_equal(info->shape.bos_id, 1);
    assert_int_equal(info->shape.eos_id, 2);
    assert_memory_equal(info->dtype, want.dtype, sizeof want.dtype);
    for (int r = 0; r < ROLES; r++)
        if (r == ROLE_UP_PROJ)
            assert_memory_equal(info->layer_dtype[r], want.layer_dtype[r],
                                4 * sizeof *want.layer_dtype[r]);
        else
            assert_null(info->layer_dtype[r]);
    assert_false(info->optimizer);
    assert_null(info->layers);
    assert_string_equal(info->source, "nowhere");
    assert_int_equal(info->step, 0);
    assert_int_equal(info->pairs, 0);
    assert_int_equal(info->files, 2);
    const struct ckpt_file *f = ckpt_info_file(info, "tokenizer.model");
    assert_non_null(f);
    assert_int_equal(f->bytes, 11);
    assert_memory_equal(f->data, "a tokenizer", 11);
    assert_null(ckpt_info_file(info, "absent"));
    char hex[33];
    struct err err = {0};
    assert_int_equal(ckpt_tokenizer_hash(info, hex, sizeof hex, &err), 0);
    assert_int_equal(strlen(hex), 32);
    check_tensors(k, false);
    ckpt_close(k);
}

static void a_training_checkpoint_comes_back(void **state)
{
    (void)state;
    struct err err = {0};
    make(in_folder("step-00000012"), true, true);
    for (int way = 0; way < 2; way++) {
        struct ckpt *k =
            opened(in_folder(way ? "step-00000012/state.h5" : "step-00000012"));
        const struct ckpt_info *info = ckpt_info(k);
        assert_true(info->optimizer);
        assert_int_equal(info->step, 12);
        assert_int_equal(info->samples, 96);
        assert_true(info->tokens == (int64_t)1 << 40);
        assert_int_equal(info->adam_t, 11);
        assert_int_equal(info->skipped, 1);
        assert_int_equal(info->skipped_in_a_row, 1);
        assert_string_equal(ckpt_info_value(info, "seed"), "7");
        assert_string_equal(ckpt_info_value(info, "data.seq_len"), "512");
        assert_string_equal(ckpt_info_value(info, "run"), "run: {name: x}\n");
        assert_null(ckpt_info_value(info, "absent"));
        check_tensors(k, true);
        struct ckpt_info copy;
        assert_int_equal(ckpt_info_copy(&copy, info, &err), 0);
        ckpt_close(k);
        assert_int_equal(ckpt_info_set(&copy, "seed", "8", &err), 0);
        assert_int_equal(ckpt_info_set(&copy, "new", "9", &err), 0);
        assert_string_equal(ckpt_info_value(&copy, "seed"), "8");
        assert_string_equal(ckpt_info_value(&copy, "new"), "9");
        assert_memory_equal(ckpt_info_file(&copy, "tokenizer.model")->data,
                            "a tokenizer", 11);
        ckpt_info_fini(&copy);
    }
}

static void a_folder_is_replaced_as_one(void **state)
{
    (void)state;
    struct err err = {0};
    struct ckpt_info info = ckpt_sample_info(true);
    const char *path = in_folder("step-00000012");
    make(path, true, true);
    assert_null(ckpt_create(comm_self(), path, true, false, &info, &err));
    assert_int_equal(err.code, ERR_USAGE);
    printf("%s\n", err.text);
    close(open(in_folder("step-00000012/old"), O_CREAT | O_WRONLY, 0666));
    make(path, true, true);
    assert_int_not_equal(access(in_folder("step-00000012/old"), F_OK), 0);
    struct ckpt_writer *w = ckpt_create(comm_self(), path, true, true, &info, &err);
    assert_non_null(w);
    ckpt_abort(w);
    ckpt_close(opened(path));
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d));)
        assert_null(strstr(e->d_name, ".tmp-"));
    closedir(d);
    close(open(in_folder("file"), O_CREAT | O_WRONLY, 0666));
    assert_null(ckpt_create(comm_self(), in_folder("file"), true, true, &info, &err));
    assert_int_equal(err.code, ERR_USAGE);
    printf("%s\n", err.text);
}

static void raw_elements_keep_their_bits(void **state)
{
    (void)state;
    struct err err = {0};
    make(in_folder("base.h5"), false, false);
    struct ckpt *k = opened(in_folder("base.h5"));
    struct tensor t = table_find(&ckpt_sample_shape, ROLE_DOWN_PROJ, 2);
    int64_t begin = 32768, n = t.elements - begin;
    uint16_t *raw = malloc((size_t)n * sizeof *raw);
    float *x = malloc((size_t)n * sizeof *x);
    assert_int_equal(
        ckpt_read_raw(k, CKPT_MODEL, ROLE_DOWN_PROJ, 2, begin, n, raw, &err), 0);
    assert_int_equal(ckpt_read(k, CKPT_MODEL, ROLE_DOWN_PROJ, 2, begin, n, x, &err), 0);
    for (int64_t i = 0; i < n; i++) {
        float want = ckpt_sample_value(0, ROLE_DOWN_PROJ, 2, begin + i);
        assert_true(x[i] == want);
        assert_int_equal(raw[i], bf16_from_f32(want));
    }
    free(raw);
    free(x);
    ckpt_close(k);
}

static void big_pairs_are_kept(void **state)
{
    (void)state;
    struct err err = {0};
    struct ckpt_info info = ckpt_sample_info(true), *copy = &info;
    struct ckpt_info owned;
    assert_int_equal(ckpt_info_copy(&owned, copy, &err), 0);
    char *text = malloc(300001);
    memset(text, 'y', 300000);
    text[300000] = '\0';
    assert_int_equal(ckpt_info_set(&owned, "run", text, &err), 0);
    struct ckpt_writer *w =
        ckpt_create(comm_self(), in_folder("big.h5"), false, true, &owned, &err);
    if (!w)
        fail_msg("%s", err.text);
    assert_int_equal(ckpt_sample_write(comm_self(), w, true, &err), 0);
    assert_int_equal(ckpt_commit(w, &err), 0);
    struct ckpt *k = opened(in_folder("big.h5"));
    assert_string_equal(ckpt_info_value(ckpt_info(k), "run"), text);
    ckpt_close(k);
    free(text);
    ckpt_info_fini(&owned);
}

static void a_link_gives_the_layers_of_its_map(void **state)
{
    (void)state;
    struct err err = {0};
    static const struct {
        const char *ranges;
        int layers, source[8];
    } rows[] = {{"0:3,1:4", 6, {0, 1, 2, 1, 2, 3}},
                {"0:4", 4, {0, 1, 2, 3}},
                {"3:4,3:4,0:1", 3, {3, 3, 0}}};
    mkdir(in_folder("pair"), 0777);
    make(in_folder("pair/base.h5"), false, false);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct ckpt *base = opened(in_folder("pair/base.h5"));
        struct layer_map map;
        assert_int_equal(layer_map_parse(&map, rows[r].ranges, 4, &err), 0);
        struct ckpt_info info = ckpt_sample_info(false);
        info.shape.layers = map.layers;
        info.layers = (char *)rows[r].ranges;
        info.layer_dtype[ROLE_UP_PROJ] = NULL;
        if (ckpt_link(comm_self(), in_folder("pair/link.h5"), true, &info, base, &map,
                      &err) < 0)
            fail_msg("%s", err.text);
        ckpt_close(base);
        struct ckpt *k = opened(in_folder("pair/link.h5"));
        assert_int_equal(ckpt_info(k)->shape.layers, rows[r].layers);
        assert_string_equal(ckpt_info(k)->layers, rows[r].ranges);
        assert_string_equal(ckpt_info_file(ckpt_info(k), "config.json")->name,
                            "config.json");
        for (int role = 0; role < ROLES; role++)
            for (int l = 0; l < rows[r].layers; l++) {
                bool stack = role_per_layer((enum tensor_role)role);
                check_tensor(k, 0, (enum tensor_role)role, l,
                             stack ? rows[r].source[l] : -1);
            }
        /* a link to the link is one to the base */
        struct layer_map twice;
        assert_int_equal(layer_map_parse(&twice, "1:3", rows[r].layers, &err), 0);
        info.shape.layers = 2;
        info.layers = (char *)"1:3";
        assert_int_equal(ckpt_link(comm_self(), in_folder("pair/twice.h5"), true, &info,
                                   k, &twice, &err),
                         0);
        ckpt_close(k);
        k = opened(in_folder("pair/twice.h5"));
        assert_non_null(strstr(ckpt_link_path(k), "/base.h5"));
        check_tensor(k, 0, ROLE_Q_PROJ, 0, rows[r].source[1]);
        check_tensor(k, 0, ROLE_UP_PROJ, 1, rows[r].source[2]);
        ckpt_close(k);
        layer_map_fini(&twice);
        layer_map_fini(&map);
    }
}

static void a_link_moves_with_its_source_and_knows_it(void **state)
{
    (void)state;
    struct err err = {0};
    struct stat st;
    a_link_gives_the_layers_of_its_map(NULL);
    assert_int_equal(stat(in_folder("pair/link.h5"), &st), 0);
    printf("link file: %lld bytes\n", (long long)st.st_size);
    assert_true(st.st_size < 1 << 20);
    assert_int_equal(rename(in_folder("pair"), in_folder("moved")), 0);
    ckpt_close(opened(in_folder("moved/link.h5")));
    assert_int_equal(symlink("moved/link.h5", in_folder("alias.h5")), 0);
    ckpt_close(opened(in_folder("alias.h5")));

    assert_int_equal(rename(in_folder("moved/base.h5"), in_folder("moved/b.h5")), 0);
    assert_null(ckpt_open(comm_self(), in_folder("moved/link.h5"), &err));
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "moved/base.h5"));

    make(in_folder("moved/base.h5"), false, true); /* another file of the same shape */
    assert_null(ckpt_open(comm_self(), in_folder("moved/link.h5"), &err));
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "not the file that was linked"));

    make(in_folder("moved/base.h5"), false, false); /* the same bytes again */
    ckpt_close(opened(in_folder("moved/link.h5")));
}

static void what_is_no_checkpoint_is_refused(void **state)
{
    (void)state;
    mkdir(in_folder("empty"), 0777);
    mkdir(in_folder("hf"), 0777);
    close(open(in_folder("hf/config.json"), O_CREAT | O_WRONLY, 0666));
    struct err err = {0};
    static const struct sealed_array x = {
        .path = "/x", .type = SEALED_U8, .dims = 1, .dim = {1}};
    struct sealed_writer *w =
        sealed_create(comm_self(), in_folder("sealed.h5"), true, &x, 1, NULL, 0, &err);
    assert_int_equal(sealed_write(w, 0, 0, 0, "y", 1, &err), 0);
    assert_int_equal(sealed_commit(w, &err), 0);
    static const struct {
        const char *name, *message;
    } rows[] = {{"absent", "No such file"},
                {"empty", "without state.h5"},
                {"hf", "dusk import"},
                {"sealed.h5", "expected a dusk checkpoint"}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        err.code = ERR_NONE;
        assert_null(ckpt_open(comm_self(), in_folder(rows[r].name), &err));
        printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, rows[r].message));
    }
}

static int make_folder(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/dusk-ckpt-XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    struct err err;
    return file_remove_tree(folder, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_comes_back),
        cmocka_unit_test(a_training_checkpoint_comes_back),
        cmocka_unit_test(a_folder_is_replaced_as_one),
        cmocka_unit_test(raw_elements_keep_their_bits),
        cmocka_unit_test(big_pairs_are_kept),
        cmocka_unit_test(a_link_gives_the_layers_of_its_map),
        cmocka_unit_test(a_link_moves_with_its_source_and_knows_it),
        cmocka_unit_test(what_is_no_checkpoint_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
