/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/shard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void shards_of_known_tensors(void **state)
{
    (void)state;
    enum { P = SHARD_PIECE };
    static const struct {
        int64_t elements;
        int index, data, rank;
        int64_t begin, end;
    } rows[] = {
        {1000, 5, 1, 0, 0, 1000}, /* one rank owns all */
        {10 * P, 5, 1, 0, 0, 10 * P},
        {1000, 5, 4, 1, 0, 1000}, /* small: whole, by table index */
        {1000, 5, 4, 0, 0, 0},
        {1000, 6, 4, 2, 0, 1000},               /* the next one goes to the next rank */
        {2 * P, 4, 3, 1, 0, 2 * P},             /* 2 pieces for 3 ranks: whole */
        {2 * P + 1, 4, 3, 2, 2 * P, 2 * P + 1}, /* 3 pieces, the last one short */
        {2 * P + 1, 4, 3, 1, P, 2 * P},
        {5 * P, 0, 2, 0, 0, 2 * P}, /* uneven: the later ranks get more */
        {5 * P, 0, 2, 1, 2 * P, 5 * P},
        {(int64_t)131072 * 65536, 0, 7, 6, (int64_t)224694 * P, (int64_t)262144 * P},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tensor t = {.elements = rows[i].elements, .index = rows[i].index};
        struct shard s = shard_of(&t, rows[i].data, rows[i].rank);
        if (s.begin != rows[i].begin || s.end != rows[i].end)
            fail_msg("row %zu: expected [%lld, %lld), got [%lld, %lld)", i,
                     (long long)rows[i].begin, (long long)rows[i].end,
                     (long long)s.begin, (long long)s.end);
    }
}

/* Every element has one owner, and every boundary is a piece's. */
static void shards_cover_the_tensor(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1,     64,     32767,  32768,
                                    32769, 100000, 524288, 7654321};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int data = 1; data <= 40; data++)
            for (int index = 0; index < 3; index++) {
                struct tensor t = {.elements = sizes[i], .index = index};
                int64_t at = 0;
                for (int r = 0; r < data; r++) {
                    struct shard s = shard_of(&t, data, r);
                    if (s.begin == s.end)
                        continue;
                    assert_true(s.begin == at && s.end > s.begin);
                    assert_int_equal(s.begin % SHARD_PIECE, 0);
                    at = s.end;
                }
                assert_true(at == sizes[i]);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_of_known_tensors),
        cmocka_unit_test(shards_cover_the_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
