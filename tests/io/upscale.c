/* SPDX-License-Identifier: Apache-2.0 */
#include "io/upscale.h"

#include "io/ckpt.h"
#include "io/hf_import.h"
#include "src/base/file.h"
#include "tests/support/arrays.h"
#include "tests/support/facts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
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

static int make(const char *from, const char *to, const char *layers, int drop,
                bool link, struct err *err)
{
    struct upscale_options o = {.checkpoint = in_folder(from),
                                .output = in_folder(to),
                                .layers = layers,
                                .drop = drop,
                                .link = link,
                                .force = true};
    return upscale(world, NULL, &o, NULL, err);
}

/* SHA-256 of a tensor as the file has it, by coreutils; hex must hold 65 bytes. */
static void sha256(const void *data, size_t bytes, char *hex)
{
    char command[600];
    const char *path = in_folder("tensor");
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    fclose(f);
    snprintf(command, sizeof command, "sha256sum %s", path);
    f = popen(command, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%64s", hex), 1);
    pclose(f);
    unlink(path);
}

/* Every tensor of the file is the one that mergekit made: by bytes where the oracle
 * has them, else by hash. Rank 0 looks, all read. */
static void equals_mergekit(const char *name, const char *expected)
{
    struct err err = {0};
    char place[256];
    struct ckpt *k = ckpt_open(world, in_folder(name), &err);
    if (!k)
        fail_msg("%s", err.text);
    snprintf(place, sizeof place, "upscale/%s/expect.json", expected);
    struct facts *facts = facts_load(place);
    struct arrays *weights = NULL;
    if (strncmp(expected, "small", 5) == 0) {
        snprintf(place, sizeof place, "upscale/%s", expected);
        weights = arrays_load_model(place);
    }
    const struct model_shape *s = &ckpt_info(k)->shape;
    assert_int_equal(s->layers, facts_count(facts, "source_layer_of"));
    assert_int_equal(table_count(s), facts_count(facts, "sha256"));
    for (int i = 0; i < table_count(s); i++) {
        struct tensor t = table_at(s, i);
        char hf[96], hex[65];
        tensor_hf_name(&t, hf, sizeof hf);
        float *x = malloc((size_t)t.elements * sizeof *x);
        if (ckpt_read(k, CKPT_MODEL, t.role, t.layer, 0, t.elements, x, &err) < 0)
            fail_msg("%s", err.text);
        if (weights) {
            const struct array *a = arrays_get(weights, hf);
            assert_int_equal(a->elements, t.elements);
            assert_memory_equal(x, a->f32, (size_t)t.elements * sizeof *x);
        }
        if (comm_root(world)) {
            snprintf(place, sizeof place, "sha256/%s", hf);
            sha256(x, (size_t)t.elements * sizeof *x, hex);
            assert_string_equal(hex, facts_string(facts, place));
        }
        free(x);
    }
    if (comm_root(world))
        printf("%s: %d tensors as in %s\n", name, table_count(s), expected);
    arrays_destroy(weights);
    facts_destroy(facts);
    ckpt_close(k);
    comm_barrier(world);
}

static void copies_and_links_equal_mergekit(void **state)
{
    (void)state;
    static const struct {
        const char *model, *expected, *layers;
        int drop;
    } rows[] = {{"merge/a", "small-m1", NULL, 1},
                {"merge/a", "small-m1", "0:3,1:4", 0},
                {"merge/a", "small-ranges", "0:2,1:3,1:4", 0},
                {"tiny-mistral", "tiny-mistral-m1", NULL, 1},
                {"tiny-mistral", "tiny-mistral-ranges", "0:2,1:3,1:4", 0}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (int link = 0; link < 2; link++) {
            struct err err = {0};
            import(rows[r].model, "base.h5");
            if (make("base.h5", "new.h5", rows[r].layers, rows[r].drop, link, &err) < 0)
                fail_msg("%s", err.text);
            equals_mergekit("new.h5", rows[r].expected);
            if (link) /* the copy of a link stands alone */
                continue;
            if (comm_root(world))
                unlink(in_folder("base.h5"));
            comm_barrier(world);
            equals_mergekit("new.h5", rows[r].expected);
        }
}

static void map_and_source_are_recorded(void **state)
{
    (void)state;
    struct err err = {0};
    import("hostile-llama", "base.h5"); /* mixes dtypes within a stack */
    struct ckpt *base = ckpt_open(world, in_folder("base.h5"), &err);
    assert_non_null(base);
    const enum dtype *was = ckpt_info(base)->layer_dtype[ROLE_UP_PROJ];
    assert_non_null(was);
    assert_int_equal(make("base.h5", "a.h5", "1:2,0:2", 0, false, &err), 0);
    assert_int_equal(make("base.h5", "b.h5", "0:1,0:1", 0, true, &err), 0);
    struct ckpt *a = ckpt_open(world, in_folder("a.h5"), &err);
    struct ckpt *b = ckpt_open(world, in_folder("b.h5"), &err);
    assert_non_null(a);
    assert_non_null(b);
    if (comm_root(world))
        printf("layers %s of %s\n", ckpt_info(a)->layers, ckpt_info(a)->source);
    assert_string_equal(ckpt_info(a)->layers, "1:2,0:2");
    assert_non_null(strstr(ckpt_info(a)->source, "base.h5 (2 layers, seal "));
    const enum dtype *now = ckpt_info(a)->layer_dtype[ROLE_UP_PROJ];
    assert_non_null(now);
    assert_int_equal(now[0], was[1]);
    assert_int_equal(now[1], was[0]);
    assert_int_equal(now[2], was[1]);
    assert_null(ckpt_info(b)->layer_dtype[ROLE_UP_PROJ]); /* layer 0 is as stored */
    assert_int_equal(ckpt_info(a)->files, ckpt_info(base)->files);
    assert_int_equal(ckpt_info(b)->files, ckpt_info(base)->files);
    ckpt_close(base);
    ckpt_close(a);
    ckpt_close(b);
    comm_barrier(world);
}

/* The copy of a link, and from any number of ranks, is the copy of its source. */
static void the_same_bytes_from_any_ranks(void **state)
{
    (void)state;
    struct err err = {0};
    import("tiny-mistral-bf16", "base.h5");
    assert_int_equal(make("base.h5", "all.h5", NULL, 2, false, &err), 0);
    if (comm_root(world)) {
        struct upscale_options o = {.checkpoint = in_folder("base.h5"),
                                    .output = in_folder("one.h5"),
                                    .drop = 2,
                                    .force = true};
        size_t n, m;
        assert_int_equal(upscale(comm_self(), NULL, &o, NULL, &err), 0);
        char *x = file_read(in_folder("all.h5"), 1 << 28, &n, &err);
        char *y = file_read(in_folder("one.h5"), 1 << 28, &m, &err);
        printf("%d ranks: %zu bytes, 1 rank: %zu bytes\n", comm_size(world), n, m);
        assert_int_equal(n, m);
        assert_memory_equal(x, y, n);
        free(x);
        free(y);
    }
    comm_barrier(world);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *layers;
        int drop;
        bool link;
        enum err_code code;
        const char *message;
    } rows[] = {{"base.h5", "x.h5", "0:5", 0, false, ERR_USAGE, "0:5"},
                {"base.h5", "x.h5", "2:2", 0, true, ERR_USAGE, "2:2"},
                {"base.h5", "x.h5", "", 0, true, ERR_USAGE, ""},
                {"base.h5", "x.h5", "3:1", 0, false, ERR_USAGE, "3:1"},
                {"base.h5", "x.h5", NULL, 4, false, ERR_USAGE, "4"},
                {"base.h5", "absent/x.h5", NULL, 1, false, ERR_IO, "No such file"},
                {"base.h5", "absent/x.h5", NULL, 1, true, ERR_IO, "No such file"},
                {"absent.h5", "x.h5", NULL, 1, false, ERR_INPUT, "absent.h5"},
                {"base.h5", "base.h5", NULL, 1, true, ERR_USAGE, "would point to"}};
    import("tiny-mistral", "base.h5");
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct err err = {0};
        assert_int_equal(make(rows[r].from, rows[r].to, rows[r].layers, rows[r].drop,
                              rows[r].link, &err),
                         -1);
        if (comm_root(world))
            printf("%s\n", err.text);
        assert_int_equal(err.code, rows[r].code);
        assert_non_null(strstr(err.text, rows[r].message));
        assert_int_not_equal(access(in_folder("x.h5"), F_OK), 0);
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
    snprintf(folder, sizeof folder, "%s/dusk-upscale-XXXXXX", tmp ? tmp : "/tmp");
    if (comm_root(world) && !mkdtemp(folder))
        return 99;
    comm_bcast(world, folder, sizeof folder, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_and_links_equal_mergekit),
        cmocka_unit_test(map_and_source_are_recorded),
        cmocka_unit_test(the_same_bytes_from_any_ranks),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_barrier(world);
    if (comm_root(world))
        file_remove_tree(folder, &err);
    comm_finish(world);
    return failed;
}
