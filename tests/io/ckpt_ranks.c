/* SPDX-License-Identifier: Apache-2.0 */
#include "io/ckpt.h"

#include "src/base/file.h"
#include "tests/io/ckpt_sample.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

static struct comm *world;
static char folder[256];

static const char *in_folder(const char *name)
{
    static char path[2][512];
    static int turn;
    turn = 1 - turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void any_number_of_ranks_gives_the_same_bytes(void **state)
{
    (void)state;
    struct err err = {0};
    for (int optimizer = 0; optimizer < 2; optimizer++) {
        bool o = optimizer;
        if (ckpt_sample_make(world, in_folder("step-1"), true, o, &err) < 0)
            fail_msg("%s", err.text);
        if (comm_root(world)) {
            size_t n, m;
            assert_int_equal(
                ckpt_sample_make(comm_self(), in_folder("one.h5"), false, o, &err), 0);
            char *a = file_read(in_folder("step-1/state.h5"), 1 << 28, &n, &err);
            char *b = file_read(in_folder("one.h5"), 1 << 28, &m, &err);
            printf("%d ranks: %zu bytes, 1 rank: %zu bytes\n", comm_size(world), n, m);
            assert_int_equal(n, m);
            assert_memory_equal(a, b, n);
            free(a);
            free(b);
        }
        comm_barrier(world);
    }
}

static void every_rank_reads_every_tensor(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(ckpt_sample_make(world, in_folder("step-1"), true, true, &err), 0);
    struct ckpt *k = ckpt_open(world, in_folder("step-1"), &err);
    if (!k)
        fail_msg("%s", err.text);
    assert_int_equal(ckpt_info(k)->step, 12);
    assert_string_equal(ckpt_info_value(ckpt_info(k), "seed"), "7");
    assert_memory_equal(ckpt_info_file(ckpt_info(k), "tokenizer.model")->data,
                        "a tokenizer", 11);
    for (int set = 0; set < CKPT_SETS; set++)
        for (int i = 0; i < table_count(&ckpt_sample_shape); i++) {
            struct tensor t = table_at(&ckpt_sample_shape, i);
            float *x = malloc((size_t)t.elements * sizeof *x);
            assert_int_equal(ckpt_read(k, (enum ckpt_set)set, t.role, t.layer, 0,
                                       t.elements, x, &err),
                             0);
            for (int64_t e = 0; e < t.elements; e++)
                assert_true(x[e] == ckpt_sample_value(set, (int)t.role, t.layer, e));
            free(x);
        }
    ckpt_close(k);
    comm_barrier(world);
}

static void a_link_is_followed_on_all_ranks(void **state)
{
    (void)state;
    struct err err = {0};
    struct layer_map map;
    assert_int_equal(ckpt_sample_make(world, in_folder("base.h5"), false, false, &err),
                     0);
    struct ckpt *base = ckpt_open(world, in_folder("base.h5"), &err);
    assert_non_null(base);
    assert_int_equal(layer_map_drop(&map, 1, 4, &err), 0);
    struct ckpt_info info = ckpt_sample_info(false);
    info.shape.layers = map.layers;
    info.layer_dtype[ROLE_UP_PROJ] = NULL;
    assert_int_equal(
        ckpt_link(world, in_folder("link.h5"), true, &info, base, &map, &err), 0);
    ckpt_close(base);
    struct ckpt *k = ckpt_open(world, in_folder("link.h5"), &err);
    if (!k)
        fail_msg("%s", err.text);
    for (int l = 0; l < map.layers; l++) {
        float x[48 * 48];
        assert_int_equal(ckpt_read(k, CKPT_MODEL, ROLE_Q_PROJ, l, 0, 48 * 48, x, &err),
                         0);
        for (int e = 0; e < 48 * 48; e++)
            assert_true(x[e] == ckpt_sample_value(0, ROLE_Q_PROJ, map.source[l], e));
    }
    ckpt_close(k);
    comm_barrier(world);
    if (comm_root(world))
        unlink(in_folder("base.h5"));
    comm_barrier(world);
    assert_null(ckpt_open(world, in_folder("link.h5"), &err));
    assert_int_equal(err.code, ERR_INPUT);
    layer_map_fini(&map);
}

static void failures_are_agreed(void **state)
{
    (void)state;
    struct err err = {0};
    struct ckpt_info info = ckpt_sample_info(true);
    assert_int_equal(
        ckpt_sample_make(world, in_folder("absent/step-1"), true, true, &err), -1);
    assert_int_equal(err.code, ERR_IO);
    assert_int_equal(ckpt_sample_make(world, in_folder("step-1"), true, true, &err), 0);
    assert_null(ckpt_create(world, in_folder("step-1"), true, false, &info, &err));
    assert_int_equal(err.code, ERR_USAGE);
    struct ckpt_writer *w =
        ckpt_create(world, in_folder("step-2"), true, false, &info, &err);
    assert_non_null(w);
    assert_int_equal(ckpt_commit(w, &err), -1); /* nothing was written */
    if (comm_root(world))
        printf("%s\n", err.text);
    assert_int_not_equal(access(in_folder("step-2"), F_OK), 0);
    w = ckpt_create(world, in_folder("step-2"), true, false, &info, &err);
    assert_non_null(w);
    ckpt_abort(w);
    assert_int_not_equal(access(in_folder("step-2"), F_OK), 0);
    assert_null(ckpt_open(world, in_folder("step-2"), &err));
    assert_int_equal(err.code, ERR_INPUT);
    comm_barrier(world);
}

int main(int argc, char **argv)
{
    struct err err;
    world = comm_start(&argc, &argv, &err);
    if (!world)
        return 99;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/dusk-ckpt-XXXXXX", tmp ? tmp : "/tmp");
    if (comm_root(world) && !mkdtemp(folder))
        return 99;
    comm_bcast(world, folder, sizeof folder, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_ranks_gives_the_same_bytes),
        cmocka_unit_test(every_rank_reads_every_tensor),
        cmocka_unit_test(a_link_is_followed_on_all_ranks),
        cmocka_unit_test(failures_are_agreed),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_barrier(world);
    if (comm_root(world))
        file_remove_tree(folder, &err);
    comm_finish(world);
    return failed;
}
