/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sealed.h"

#include "src/base/file.h"
#include "tests/io/sealed_sample.h"

#include <dirent.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

static struct comm *world;
static char folder[256];

/* A path in the folder that rank 0 made; the same text on all ranks. */
static const char *in_folder(const char *name)
{
    static char path[2][512];
    static int turn;
    turn = 1 - turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

/* Writes the sample, blocks dealt out over the ranks of c; block number `skip` not. */
static int write_sample(struct comm *c, const char *path, int skip, struct err *err)
{
    struct sealed_writer *w = sealed_create(c, path, true, sample_array, SAMPLE_ARRAYS,
                                            sample_attr, SAMPLE_ATTRS, err);
    if (!w)
        return -1;
    int block = 0;
    for (int a = 0; a < SAMPLE_ARRAYS; a++) {
        bool stacked = sample_array[a].stacked;
        int64_t n = (int64_t)sealed_type_bytes(sample_array[a].type);
        for (int d = stacked ? 1 : 0; d < sample_array[a].dims; d++)
            n *= sample_array[a].dim[d];
        for (int64_t l = 0; l < (stacked ? 3 : 1); l++)
            for (int64_t at = 0; at < n; at += SEALED_BLOCK_BYTES, block++) {
                unsigned char data[SEALED_BLOCK_BYTES];
                int64_t m = n - at < SEALED_BLOCK_BYTES ? n - at : SEALED_BLOCK_BYTES;
                for (int64_t i = 0; i < m; i++)
                    data[i] = sample_byte(a, l, at + i);
                if (block != skip && block % comm_size(c) == comm_rank(c))
                    sealed_write(w, a, l, at, data, (size_t)m, err);
            }
    }
    return sealed_commit(w, err);
}

static void any_number_of_ranks_gives_the_same_bytes(void **state)
{
    (void)state;
    struct err err = {0};
    if (write_sample(world, in_folder("all.h5"), -1, &err) < 0)
        fail_msg("%s", err.text);
    if (comm_root(world)) {
        size_t n, m;
        assert_int_equal(write_sample(comm_self(), in_folder("one.h5"), -1, &err), 0);
        char *a = file_read(in_folder("all.h5"), 1 << 24, &n, &err);
        char *b = file_read(in_folder("one.h5"), 1 << 24, &m, &err);
        printf("%d ranks: %zu bytes, 1 rank: %zu bytes\n", comm_size(world), n, m);
        assert_int_equal(n, m);
        assert_memory_equal(a, b, n);
        free(a);
        free(b);
    }
    comm_barrier(world);
}

static void every_rank_reads_everything(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(write_sample(world, in_folder("all.h5"), -1, &err), 0);
    struct sealed *s = sealed_open(world, in_folder("all.h5"), &err);
    assert_non_null(s);
    assert_int_equal(sealed_arrays(s), SAMPLE_ARRAYS);
    assert_string_equal(sealed_attr_find(s, "/", "format")->s, "sample");
    assert_memory_equal(sealed_attr_find(s, "/state/run", "ints")->ints, sample_ints,
                        sizeof sample_ints);
    unsigned char data[90000];
    int a = sealed_find(s, sample_array[SAMPLE_STACK].path);
    for (int64_t l = 0; l < 3; l++) {
        assert_int_equal(sealed_read(s, a, l, 0, data, sizeof data, &err), 0);
        for (int64_t i = 0; i < (int64_t)sizeof data; i++)
            assert_int_equal(data[i], sample_byte(SAMPLE_STACK, l, i));
    }
    sealed_close(s);
    comm_barrier(world);
}

/* All ranks come back with the error, and nothing new lies in the folder. */
static void failures_are_agreed(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(write_sample(world, in_folder("all.h5"), -1, &err), 0);
    for (int skip = 0; skip < 4; skip++) {
        err.code = ERR_NONE;
        assert_int_equal(write_sample(world, in_folder("all.h5"), skip, &err), -1);
        assert_int_equal(err.code, ERR_OTHER);
        assert_non_null(strstr(err.text, "was written 0 times"));
    }
    err.code = ERR_NONE;
    assert_int_equal(write_sample(world, in_folder("absent/x.h5"), -1, &err), -1);
    assert_int_equal(err.code, ERR_IO);
    err.code = ERR_NONE;
    assert_null(sealed_open(world, in_folder("absent.h5"), &err));
    assert_int_equal(err.code, ERR_INPUT);
    if (comm_root(world)) {
        printf("%s\n", err.text);
        DIR *d = opendir(folder);
        struct dirent *e;
        while ((e = readdir(d)))
            assert_null(strstr(e->d_name, ".tmp-"));
        closedir(d);
    }
    comm_barrier(world);
}

/* A disk that fails one rank fails all, and the old file stays. */
static void one_rank_alone_cannot_write(void **state)
{
    (void)state;
    struct err err = {0};
    struct rlimit old, small;
    bool last = comm_rank(world) == comm_size(world) - 1;
    assert_int_equal(write_sample(world, in_folder("all.h5"), -1, &err), 0);
    struct sealed_writer *w =
        sealed_create(world, in_folder("all.h5"), true, sample_array, SAMPLE_ARRAYS,
                      sample_attr, SAMPLE_ATTRS, &err);
    assert_non_null(w);
    if (last) {
        static char zeros[SEALED_BLOCK_BYTES];
        signal(SIGXFSZ, SIG_IGN);
        getrlimit(RLIMIT_FSIZE, &old);
        small = old;
        small.rlim_cur = 8192;
        setrlimit(RLIMIT_FSIZE, &small);
        sealed_write(w, SAMPLE_FLAT, 0, 0, zeros, sizeof zeros, &err);
        setrlimit(RLIMIT_FSIZE, &old);
    }
    assert_int_equal(sealed_commit(w, &err), -1);
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "cannot write at byte"));
    if (comm_root(world))
        printf("%s\n", err.text);
    struct sealed *s = sealed_open(world, in_folder("all.h5"), &err);
    assert_non_null(s);
    sealed_close(s);
    comm_barrier(world);
}

/* The last rank alone finds no file, then another file, under the name. */
static void one_rank_alone_fails_for_all(void **state)
{
    (void)state;
    struct err err = {0};
    if (comm_size(world) == 1)
        skip();
    assert_int_equal(write_sample(world, in_folder("all.h5"), -1, &err), 0);
    bool last = comm_rank(world) == comm_size(world) - 1;
    const char *path = in_folder(last ? "absent.h5" : "all.h5");
    assert_null(sealed_open(world, path, &err));
    assert_int_equal(err.code, ERR_INPUT);
    if (comm_root(world))
        printf("%s\n", err.text);
    assert_non_null(strstr(err.text, "absent.h5"));
    if (last) {
        static const struct sealed_array other = {
            .path = "/x", .type = SEALED_U8, .dims = 1, .dim = {1}};
        struct sealed_writer *w = sealed_create(comm_self(), in_folder("other.h5"),
                                                true, &other, 1, NULL, 0, &err);
        assert_non_null(w);
        assert_int_equal(sealed_write(w, 0, 0, 0, "y", 1, &err), 0);
        assert_int_equal(sealed_commit(w, &err), 0);
    }
    assert_null(sealed_open(world, in_folder(last ? "other.h5" : "all.h5"), &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "rank 0 sees another file"));
    comm_barrier(world);
}

int main(int argc, char **argv)
{
    struct err err;
    world = comm_start(&argc, &argv, &err);
    if (!world)
        return 99;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/dusk-sealed-XXXXXX", tmp ? tmp : "/tmp");
    if (comm_root(world) && !mkdtemp(folder))
        return 99;
    comm_bcast(world, folder, sizeof folder, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_ranks_gives_the_same_bytes),
        cmocka_unit_test(every_rank_reads_everything),
        cmocka_unit_test(failures_are_agreed),
        cmocka_unit_test(one_rank_alone_cannot_write),
        cmocka_unit_test(one_rank_alone_fails_for_all),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_barrier(world);
    if (comm_root(world))
        file_remove_tree(folder, &err);
    comm_finish(world);
    return failed;
}
