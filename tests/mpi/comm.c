/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/comm.h"

#include "mpi/grid.h"
#include "src/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Runs on any number of ranks; *state is the world. */

static void strings_of_any_length(void **state)
{
    struct comm *world = *state;
    static const size_t lengths[] = {0, 1, 1000, (1 << 20) - 1, 1 << 20, 3000001};
    for (int root = 0; root < comm_size(world); root++)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            char *want = malloc(lengths[i] + 1), *text = NULL;
            assert_non_null(want);
            memset(want, 'a' + (int)i, lengths[i]);
            want[lengths[i]] = '\0';
            if (comm_rank(world) == root)
                text = want;
            comm_bcast_string(world, &text, root);
            assert_string_equal(text, want);
            if (comm_rank(world) == root)
                assert_ptr_equal(text, want);
            else
                free(text);
            free(want);

            text = comm_rank(world) == root ? NULL : (char *)state;
            comm_bcast_string(world, &text, root);
            assert_null(text);
        }
}

static void big_broadcasts(void **state)
{
    struct comm *world = *state;
    enum { WORDS = (8 << 20) / 8 + 3 };
    uint64_t *x = malloc(sizeof *x * WORDS);
    assert_non_null(x);
    int root = comm_size(world) - 1;
    for (uint64_t i = 0; i < WORDS; i++)
        x[i] = comm_rank(world) == root ? rng_u64(1, 2, i) : 0;
    comm_bcast(world, x, sizeof *x * WORDS, root);
    for (uint64_t i = 0; i < WORDS; i++)
        if (x[i] != rng_u64(1, 2, i))
            fail_msg("word %llu of the broadcast", (unsigned long long)i);
    comm_bcast(world, x, 0, root);
    free(x);
}

static void agree_takes_the_lowest_failed_rank(void **state)
{
    struct comm *world = *state;
    int size = comm_size(world), rank = comm_rank(world);
    struct err err = {0};
    assert_int_equal(comm_agree(world, 0, &err), 0);
    assert_int_equal(err.code, ERR_NONE);
    for (int bad = 0; bad < size; bad++)
        for (int also = bad; also < size; also++) {
            int failed = rank == bad || rank == also;
            memset(&err, 0, sizeof err);
            if (failed)
                err_set(&err, rank == bad ? ERR_IO : ERR_INPUT, "disk of %d is full",
                        rank);
            assert_int_equal(comm_agree(world, failed, &err), -1);
            assert_int_equal(err.code, ERR_IO);
            char want[64], tail[64];
            snprintf(want, sizeof want, "rank %d (", bad);
            snprintf(tail, sizeof tail, "disk of %d is full", bad);
            if (bad == 0)
                assert_string_equal(err.text, tail);
            else if (strncmp(err.text, want, strlen(want)) || !strstr(err.text, tail))
                fail_msg("expected %s...: %s, got %s", want, tail, err.text);
        }
}

static void sums_with_zeros_are_exact(void **state)
{
    struct comm *world = *state;
    int size = comm_size(world), rank = comm_rank(world);
    enum { N = 300001 }; /* more than two pieces */
    double *x = malloc(sizeof *x * N);
    assert_non_null(x);
    for (int i = 0; i < N; i++)
        x[i] =
            i % size == rank ? rng_normal(3, 0, (uint64_t)i) * exp2(i % 999 - 500) : 0;
    comm_sum_f64(world, x, N);
    for (int i = 0; i < N; i++) {
        double want = rng_normal(3, 0, (uint64_t)i) * exp2(i % 999 - 500);
        if (x[i] != want)
            fail_msg("entry %d: expected %.17g, got %.17g", i, want, x[i]);
    }
    x[0] = rank == size - 1 ? NAN : 0;
    comm_sum_f64(world, x, 1);
    assert_true(isnan(x[0]));
    free(x);
}

static void integers(void **state)
{
    struct comm *world = *state;
    int64_t size = comm_size(world), rank = comm_rank(world);
    int64_t sum[2] = {rank + 1, (int64_t)1 << 60}, least[2] = {rank, -rank};
    int64_t most[2] = {rank, -rank};
    uint64_t wraps = UINT64_MAX;
    double top = (double)rank - 0.5;
    comm_sum_i64(world, sum, 1);
    comm_sum_u64(world, &wraps, 1);
    comm_min_i64(world, least, 2);
    comm_max_i64(world, most, 2);
    comm_max_f64(world, &top, 1);
    assert_int_equal(sum[0], size * (size + 1) / 2);
    assert_true(sum[1] == (int64_t)1 << 60); /* beyond n: untouched */
    assert_true(wraps == 0 - (uint64_t)size);
    assert_int_equal(least[0], 0);
    assert_int_equal(least[1], 1 - size);
    assert_int_equal(most[0], size - 1);
    assert_int_equal(most[1], 0);
    assert_true(top == (double)(size - 1) - 0.5);

    int64_t mine[3] = {rank, -rank, rank * rank};
    int64_t *all = malloc(sizeof mine * (size_t)size);
    assert_non_null(all);
    comm_gather_i64(world, mine, 3, all);
    for (int64_t r = 0; r < size; r++) {
        assert_int_equal(all[3 * r], r);
        assert_int_equal(all[3 * r + 1], -r);
        assert_int_equal(all[3 * r + 2], r * r);
    }
    comm_gather_i64(world, mine, 0, NULL);
    free(all);
}

static void messages_keep_their_order(void **state)
{
    struct comm *world = *state;
    int size = comm_size(world), rank = comm_rank(world);
    enum { BYTES = 3 << 20 };
    unsigned char *x = calloc(1, BYTES);
    assert_non_null(x);
    for (int from = 0; from < size; from++)
        for (int to = 0; to < size; to++) {
            if (from == to)
                continue;
            if (rank == from) {
                memset(x, from + 1, BYTES);
                comm_send(world, x, BYTES, to);
                comm_send(world, "end", 4, to);
            } else if (rank == to) {
                char end[4];
                comm_recv(world, x, BYTES, from);
                comm_recv(world, end, 4, from);
                assert_int_equal(x[0], from + 1);
                assert_int_equal(x[BYTES - 1], from + 1);
                assert_string_equal(end, "end");
            }
        }
    free(x);
}

static void parts(void **state)
{
    struct comm *world = *state;
    int size = comm_size(world), rank = comm_rank(world);
    struct comm *half = comm_split(world, rank % 2, -rank);
    assert_int_equal(comm_size(half), (size + 1 - rank % 2) / 2);
    int64_t sum = rank;
    comm_sum_i64(half, &sum, 1);
    int64_t want = 0;
    for (int r = rank % 2; r < size; r += 2)
        want += r;
    assert_int_equal(sum, want);
    if (rank == (size - 1) / 2 * 2) /* the highest even rank comes first */
        assert_true(comm_root(half));
    comm_barrier(half);
    comm_free(half);
    comm_free(NULL);
    assert_true(strlen(comm_host(world)) > 0);
}

static void grids(void **state)
{
    struct comm *world = *state;
    int size = comm_size(world), rank = comm_rank(world);
    for (int pipeline = 1; pipeline <= size; pipeline++) {
        struct err err = {0};
        struct grid g;
        int failed = grid_init(&g, world, pipeline, 0, &err);
        assert_int_equal(failed, size % pipeline ? -1 : 0);
        if (failed) {
            assert_int_equal(err.code, ERR_USAGE);
            continue;
        }
        assert_int_equal(g.data, size / pipeline);
        assert_int_equal(g.replica * pipeline + g.stage, rank);
        assert_int_equal(comm_size(g.pipe_axis), pipeline);
        assert_int_equal(comm_rank(g.pipe_axis), g.stage);
        assert_int_equal(comm_size(g.data_axis), g.data);
        assert_int_equal(comm_rank(g.data_axis), g.replica);
        char *map = grid_describe(&g, 1, &g.stage);
        assert_int_equal(map != NULL, rank == 0);
        if (map) {
            int lines = 0, r, stage, replica;
            char host[300];
            for (char *at = map; *at; at = strchr(at, '\n') + 1, lines++) {
                assert_int_equal(
                    sscanf(at, "%d %299s %d %d\n", &r, host, &stage, &replica), 4);
                assert_int_equal(r, lines);
                assert_int_equal(replica * pipeline + stage, r);
                assert_string_equal(host, comm_host(world));
            }
            assert_int_equal(lines, size);
        }
        free(map);
        grid_fini(&g);
    }
    struct err err = {0};
    struct grid g;
    assert_int_equal(grid_init(&g, world, 2, 7, &err), -1);
    assert_non_null(strstr(err.text, "pipeline 2 x data 7 needs 14 ranks"));
    assert_int_equal(grid_init(&g, world, 0, 1, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
}

/* Set before MPI reads it, unless the user chose another. */
static void files_go_through_romio(void **state)
{
    (void)state;
    assert_string_equal(getenv("OMPI_MCA_io"), "romio321");
}

static int run_all(struct comm *c)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(strings_of_any_length, c),
        cmocka_unit_test_prestate(big_broadcasts, c),
        cmocka_unit_test_prestate(agree_takes_the_lowest_failed_rank, c),
        cmocka_unit_test_prestate(sums_with_zeros_are_exact, c),
        cmocka_unit_test_prestate(integers, c),
        cmocka_unit_test_prestate(messages_keep_their_order, c),
        cmocka_unit_test_prestate(parts, c),
        cmocka_unit_test_prestate(grids, c),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    unsetenv("OMPI_MCA_io");
    /* First without MPI. */
    int failures = run_all(comm_self());
    struct err err = {0};
    struct comm *world = comm_start(&argc, &argv, &err);
    if (!world) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    failures += run_all(world);
    const struct CMUnitTest started[] = {cmocka_unit_test(files_go_through_romio)};
    failures += cmocka_run_group_tests(started, NULL, NULL);
    comm_finish(world);
    return failures ? 1 : 0;
}
