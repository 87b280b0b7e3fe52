/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/schedule.h"
#include "mpi/schedule_file.h"
#include "mpi/schedule_times.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static struct schedule table(enum schedule_kind kind, int p, int c, int m)
{
    struct schedule_spec spec = {
        .kind = kind, .ranks = p, .chunks = c, .micro_batches = m};
    struct schedule s;
    struct err err = {0};
    if (schedule_init(&s, &spec, &err))
        fail_msg("p = %d, c = %d, m = %d: %s", p, c, m, err.text);
    return s;
}

static struct schedule_times times(const struct schedule *s)
{
    const struct schedule_costs units = {1, 1, 1};
    struct schedule_times t;
    struct err err = {0};
    assert_int_equal(schedule_times_init(&t, s, &units, &err), 0);
    return t;
}

static void proven(const struct schedule *s)
{
    struct err err = {0};
    if (schedule_check(s, &err))
        fail_msg("%s, p = %d, c = %d, m = %d: %s", schedule_name(s->kind), s->ranks,
                 s->chunks, s->micro_batches, err.text);
}

/* Of all stages of a rank at once. */
static void holds_at_most(const struct schedule *s, const struct schedule_times *t,
                          int rank, int most)
{
    if (t->held[rank] > most)
        fail_msg("%s, p = %d, c = %d, m = %d: rank %d holds %d, promised %d",
                 schedule_name(s->kind), s->ranks, s->chunks, s->micro_batches, rank,
                 t->held[rank], most);
}

/* arXiv 2104.04473, section 2.2: the bubble's time is that of 1f1b over the chunks:
 * (p - 1) forwards and backwards of a chunk. */
static void interleaved_keeps_its_promises(void **state)
{
    (void)state;
    int tables = 0;
    for (int c = 1; c <= 4; c++)
        for (int p = 1; p <= 16; p++)
            for (int m = p; m <= 64; m += p) {
                struct schedule s = table(SCHEDULE_INTERLEAVED, p, c, m);
                struct schedule_times t = times(&s);
                proven(&s);
                if (t.length != 3 * c * m + 3 * (p - 1))
                    fail_msg("p = %d, c = %d, m = %d: %g units", p, c, m, t.length);
                for (int r = 0; r < p; r++) {
                    int most = (c + 1) * p - 1 - 2 * r;
                    if (c > 1)
                        holds_at_most(&s, &t, r, m == p ? c * p : smaller(most, c * m));
                    for (int k = 0; k < c; k++)
                        assert_int_equal(schedule_stage(&s, r, k), r + k * p);
                }
                schedule_times_fini(&t);
                schedule_fini(&s);
                tables++;
            }
    printf("# %d tables proven\n", tables);
}

/* No more memory than 1f1b's first rank, and hardly a bubble: beyond the p - 1 units
 * before the last rank's first forward only few. */
static void zb_v_keeps_its_promises(void **state)
{
    (void)state;
    double worst = 0;
    int tables = 0;
    for (int p = 1; p <= 16; p++)
        for (int m = 1; m <= 64; m++) {
            struct schedule s = table(SCHEDULE_ZB_V, p, 2, m);
            struct schedule_times t = times(&s);
            proven(&s);
            for (int r = 0; r < p; r++) {
                holds_at_most(&s, &t, r, 2 * p);
                assert_int_equal(schedule_stage(&s, r, 0), r);
                assert_int_equal(schedule_stage(&s, r, 1), 2 * p - 1 - r);
                assert_true(t.busy[r] == 6 * m);
            }
            if (m >= 2 * p) /* in chunks' units; 1f1b's is 6 (p - 1) */
                worst = fmax(worst, (t.length - 6 * m) / p);
            schedule_times_fini(&t);
            schedule_fini(&s);
            tables++;
        }
    printf("# %d tables proven; bubble of zb-v: %.2f p units of a chunk\n", tables,
           worst);
    assert_true(worst < 1.34); /* as mpi/schedule.h says */
}

/* Forwards alone go through any placement. */
static void forwards_follow_the_placement(void **state)
{
    (void)state;
    for (int p = 1; p <= 8; p++)
        for (int m = 1; m <= 16; m++) {
            struct schedule v = table(SCHEDULE_ZB_V, p, 2, m), s;
            struct schedule_spec spec = {.kind = SCHEDULE_FORWARD,
                                         .ranks = p,
                                         .chunks = 2,
                                         .micro_batches = m,
                                         .rank_of = v.rank_of};
            struct err err = {0};
            assert_int_equal(schedule_init(&s, &spec, &err), 0);
            proven(&s);
            assert_memory_equal(s.rank_of, v.rank_of, 2 * (size_t)p * sizeof(int));
            schedule_fini(&s);
            schedule_fini(&v);
        }
}

static int from_text(struct schedule *s, int p, int c, int m, const char *text,
                     struct err *err)
{
    struct schedule_spec spec = {.kind = SCHEDULE_FILE,
                                 .ranks = p,
                                 .chunks = c,
                                 .micro_batches = m,
                                 .file = "mine.csv",
                                 .text = text};
    return schedule_init(s, &spec, err);
}

/* A table written and read again is the same table. */
static void files_give_the_same_lists(void **state)
{
    (void)state;
    static const struct {
        enum schedule_kind kind;
        int chunks;
    } kinds[] = {{SCHEDULE_GPIPE, 1},       {SCHEDULE_1F1B, 1},
                 {SCHEDULE_ZB_H1, 1},       {SCHEDULE_INTERLEAVED, 2},
                 {SCHEDULE_INTERLEAVED, 3}, {SCHEDULE_ZB_V, 2}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int p = 1; p <= 5; p++)
            for (int m = p; m <= 4 * p; m += p) {
                struct schedule a = table(kinds[k].kind, p, kinds[k].chunks, m), b;
                struct err err = {0};
                char *text = schedule_file_text(&a, &err);
                assert_non_null(text);
                if (from_text(&b, p, a.chunks, m, text, &err))
                    fail_msg("%s: %s\n%s", schedule_name(a.kind), err.text, text);
                proven(&b);
                assert_int_equal(a.split, b.split);
                for (int r = 0; r < p; r++) {
                    assert_int_equal(a.ops[r], b.ops[r]);
                    assert_memory_equal(a.op[r], b.op[r],
                                        (size_t)a.ops[r] * sizeof **a.op);
                }
                for (int s = 0; s < a.stages; s++)
                    assert_int_equal(a.rank_of[s], b.rank_of[s]);
                free(text);
                schedule_fini(&a);
                schedule_fini(&b);
            }
}

/* Two ranks, two micro-batches, one stage each. */
static void bad_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"0F0,0F1,,,0B0,,0B1\n,1F0,1B0,1F1,1B1\n", NULL},
        {"0F0,0F1,,,0I0,0W0,0B1\r\n , 1F0 ,1B0,1F1,1B1\r\n\r\n", NULL},
        {"", "mine.csv: expected 2 rows, one for each rank"},
        {"0F0,0F1,,,0B0,,0B1\n", "found 1"},
        {"0F0,0F1\n,1F0\n,\n0F1\n", "found 4"},
        {"0X0\n1F0\n",
         "mine.csv: row 1, cell 1: expected nothing or a stage, one of F"},
        {"0F\n1F0\n", "found \"0F\""},
        {"0F0 1\n1F0\n", "found \"0F0 1\""},
        {"2F0\n1F0\n", "row 1, cell 1: expected a stage below 2"},
        {"0F2\n1F0\n", "row 1, cell 1: expected a micro-batch below 2"},
        {"0F99999999999\n1F0\n", "row 1, cell 1: expected nothing or a stage"},
        {"0F0,0F0\n1F0\n", "row 1, cell 2: expected 0F0 once, found it in cell 1 too"},
        {"0F0\n1F0,0F1\n", "row 2, cell 2: expected stage 0 in row 1 alone"},
        {"0F0,0B0,0W0\n1F0\n", "row 1, cell 3: expected 0B0 alone or its halves"},
        {"0F0,0F1\n,\n", "mine.csv: expected stage 1 in a row"},
        {"0F0,0F1,,,0B0\n,1F0,1B0,1F1,1B1\n", "row 1: expected 0B1, or 0I1 and 0W1"},
        {"0F0,0F1,,,0I0,0B1\n,1F0,1B0,1F1,1B1\n", "row 1: expected 0W0, found no cell"},
        {"0F0,0F1,,,0B0,,0B1\n1F0,,1B0,1F1,1B1\n",
         "row 2, cell 1: expected 1F0 after 0F0, found that in cell 1 of row 1"},
        {"0F0,0F1,,,0B1,,0B0\n,1F0,1B0,1F1,1B1\n", "after 0B0, found that in cell 7"},
        {"0F0,0F1,0B0,,,,0B1\n,1F0,1B0,1F1,1B1\n",
         "row 1, cell 3: expected 0B0 after 1B0, found that in cell 3 of row 2"},
        {"0F0,0F1,,,0W0,0I0,0B1\n,1F0,1B0,1F1,1B1\n", "expected 0W0 after 0I0"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct schedule s;
        int rc = from_text(&s, 2, 1, 2, rows[i].text, &err);
        if (!rows[i].says) {
            if (rc)
                fail_msg("file %zu: %s", i, err.text);
            proven(&s);
            schedule_fini(&s);
            continue;
        }
        assert_int_equal(rc, -1);
        assert_int_equal(err.code, ERR_USAGE);
        if (!strstr(err.text, rows[i].says))
            fail_msg("file %zu: expected \"%s\", got \"%s\"", i, rows[i].says,
                     err.text);
    }
}

/* In slots of time all is well, but rank 1 makes more gradients than two buffers hold
 * before rank 0, busy with its forwards, takes the first. */
static void a_file_that_cannot_run_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct schedule s;
    assert_int_equal(
        from_text(&s, 2, 1, 8,
                  "0F0,0F1,0F2,0F3,0F4,0F5,0F6,0F7,,,,,,,,,,0B0,0B1,0B2,0B3,0B4,0B5,"
                  "0B6,0B7\n"
                  ",1F0,1B0,1F1,1B1,1F2,1B2,1F3,1B3,1F4,1B4,1F5,1B5,1F6,1B6,1F7,1B7\n",
                  &err),
        -1);
    print_message("# %s\n", err.text);
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "mine.csv: row"));
}

static void sizes_are_checked(void **state)
{
    (void)state;
    static const struct {
        enum schedule_kind kind;
        int p, c, m;
        const char *says;
    } rows[] = {
        {SCHEDULE_INTERLEAVED, 4, 2, 6, "interleaved"},
        {SCHEDULE_ZB_V, 4, 1, 8, "zb-v"},
        {SCHEDULE_ZB_V, 4, 3, 8, "zb-v"},
        {SCHEDULE_1F1B, 4, 2, 8, "1f1b"},
        {SCHEDULE_GPIPE, 4, 2, 8, "gpipe"},
        {SCHEDULE_ZB_H1, 4, 2, 8, "zb-h1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct schedule_spec spec = {.kind = rows[i].kind,
                                     .ranks = rows[i].p,
                                     .chunks = rows[i].c,
                                     .micro_batches = rows[i].m};
        struct err err = {0};
        struct schedule s;
        assert_int_equal(schedule_init(&s, &spec, &err), -1);
        assert_int_equal(err.code, ERR_USAGE);
        print_message("# %s\n", err.text);
        assert_non_null(strstr(err.text, rows[i].says));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interleaved_keeps_its_promises),
        cmocka_unit_test(zb_v_keeps_its_promises),
        cmocka_unit_test(forwards_follow_the_placement),
        cmocka_unit_test(files_give_the_same_lists),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(a_file_that_cannot_run_is_refused),
        cmocka_unit_test(sizes_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
