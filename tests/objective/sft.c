/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/sft.h"

#include "src/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEQ_LEN = 12, SLOT = SEQ_LEN + 1, SAMPLES = 3 };

/* A pack of three documents, the middle one with nothing to learn; a record whose last
 * tokens do not count; a record of one token. */
static const int32_t ids[] = {5, 6, 7, 8, 9, 10, 11, 12, 13};
static const uint8_t pack_counted[] = {0, 0, 1, 1, 0, 0, 0, 1, 1};
static const int64_t pack_ends[] = {4, 6, 9};
static const uint8_t record_counted[] = {1, 1, 0, 1, 0, 0};
static const int64_t record_end[] = {6}, one_end[] = {1};

static void slots_fill(int32_t *slots)
{
    memset(slots, 0x55, SAMPLES * SLOT * sizeof *slots);
    sft_store(slots, SEQ_LEN, 9, ids, pack_counted, 3, pack_ends);
    sft_store(slots + SLOT, SEQ_LEN, 6, ids, record_counted, 1, record_end);
    sft_store(slots + 2 * SLOT, SEQ_LEN, 1, ids, record_counted, 1, one_end);
}

static void batch_make(struct batch *b, int rows, int segments)
{
    struct err err = {0};
    if (batch_init(b, rows, segments, &err))
        fail_msg("%s", err.text);
}

static void rows_are_documents(void **state)
{
    (void)state;
    static const int32_t id[] = {5, 6, 7, 11, 12, 5, 6, 7};
    static const int32_t target[] = {-1, 7, 8, 12, 13, 6, -1, 8};
    static const int position[] = {0, 1, 2, 0, 1, 0, 1, 2};
    static const int begin[] = {0, 3, 5, 8}, sample[] = {0, 0, 1};
    int32_t slots[SAMPLES * SLOT];
    struct batch b;
    slots_fill(slots);
    batch_make(&b, SAMPLES * SEQ_LEN, sft_max_segments(SAMPLES, SEQ_LEN, true));
    for (int again = 0; again < 2; again++) {
        sft_fill(&b, SAMPLES, SEQ_LEN, slots);
        assert_int_equal(b.rows.rows, 8);
        assert_int_equal(b.rows.segments, 3);
        assert_memory_equal(b.ids, id, sizeof id);
        assert_memory_equal(b.target, target, sizeof target);
        assert_memory_equal(b.rows.position, position, sizeof position);
        assert_memory_equal(b.rows.segment_begin, begin, sizeof begin);
        assert_memory_equal(b.sample, sample, sizeof sample);
    }
    assert_int_equal(sft_counted(slots), 4);
    assert_int_equal(sft_counted(slots + SLOT), 2); /* the first is never a target */
    assert_int_equal(sft_counted(slots + 2 * SLOT), 0);
    assert_int_equal(batch_counted(&b), 6);
    sft_fill(&b, 1, SEQ_LEN, slots + 2 * SLOT);
    assert_int_equal(b.rows.rows, 0);
    assert_int_equal(b.rows.segments, 0);
    batch_fini(&b);
}

/* The most documents that fit: of two tokens each. */
static void full_pack(void **state)
{
    (void)state;
    for (int seq_len = 1; seq_len <= SEQ_LEN; seq_len++) {
        int32_t slot[SLOT];
        uint8_t counted[SEQ_LEN];
        int64_t end[SEQ_LEN];
        int documents = 0;
        struct batch b;
        memset(counted, 1, sizeof counted);
        for (int t = 2; t <= seq_len; t += 2)
            end[documents++] = t;
        sft_store(slot, seq_len, 2 * documents, (const int32_t[SEQ_LEN]){0}, counted,
                  documents, end);
        batch_make(&b, seq_len, sft_max_segments(1, seq_len, true));
        sft_fill(&b, 1, seq_len, slot);
        assert_int_equal(b.rows.segments, documents);
        assert_int_equal(sft_counted(slot), documents);
        batch_fini(&b);
    }
}

static int64_t rows_of(const int32_t *order, int n, const int64_t *length)
{
    int64_t rows = 0;
    for (int i = 0; i < n; i++)
        rows += length[order[i]];
    return rows;
}

static void order_by_length(void **state)
{
    (void)state;
    static const int64_t length[] = {3, 9, 5, 9, 1, 5, 7, 2};
    static const int32_t one[] = {1, 3, 6, 2, 5, 0, 7, 4};
    static const int32_t two[] = {1, 3, 5, 0, 6, 2, 7, 4};
    int64_t key[8];
    int32_t order[8];
    sft_order(8, 2, 1, length, key, order);
    assert_memory_equal(order, one, sizeof one);
    sft_order(8, 2, 2, length, key, order);
    assert_memory_equal(order, two, sizeof two);
}

/* Every sample once; rising within the order; replicas differ by a few rows. */
static void order_of_many(void **state)
{
    (void)state;
    enum { N = 480, LONGEST = 1000 };
    int64_t length[N], key[N];
    int32_t order[N];
    for (int seed = 0; seed < 20; seed++) {
        int replicas = 1 + seed % 4, micro_batch = 1 + seed % 2;
        int seen[N] = {0};
        for (int i = 0; i < N; i++)
            length[i] = 1 + (int64_t)(rng_u64((uint64_t)seed, 1, (uint64_t)i) %
                                      (seed == 19 ? 1 : LONGEST));
        sft_order(N, micro_batch, replicas, length, key, order);
        int64_t most = 0, least = INT64_MAX;
        for (int r = 0; r < replicas; r++) {
            const int32_t *mine = order + r * (N / replicas);
            int64_t rows = rows_of(mine, N / replicas, length);
            most = rows > most ? rows : most;
            least = rows < least ? rows : least;
            for (int i = 0; i < N / replicas; i++) {
                seen[mine[i]]++;
                if (i == 0)
                    continue;
                int64_t a = length[mine[i - 1]], b = length[mine[i]];
                assert_true(a > b || (a == b && mine[i - 1] < mine[i]));
            }
        }
        for (int i = 0; i < N; i++)
            assert_int_equal(seen[i], 1);
        assert_true(most - least <= 2 * LONGEST);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_documents),
        cmocka_unit_test(full_pack),
        cmocka_unit_test(order_by_length),
        cmocka_unit_test(order_of_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
