/* SPDX-License-Identifier: Apache-2.0 */
#include "src/optim/master.h"

#include "src/base/dtype.h"
#include "src/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void known_pairs(void **unused)
{
    (void)unused;
    static const struct {
        uint32_t master;
        uint16_t weight;
        int16_t rest;
    } rows[] = {{0x3f800000, 0x3f80, 0},      /* 1 */
                {0x3f807fff, 0x3f80, 32767},  /* just below a tie */
                {0x3f808000, 0x3f81, -32768}, /* a tie: away from zero */
                {0xbf818000, 0xbf82, -32768}, /* and below it */
                {0x3fffffff, 0x4000, -1},     /* into the next binade */
                {0x00000001, 0x0000, 1},      /* the smallest */
                {0x80000000, 0x8000, 0},      /* -0 */
                {0x7f7fffff, 0x7f80, -1},     /* rounds to Inf, is kept */
                {0x7f800000, 0x7f80, 0},      /* Inf */
                {0xffc00000, 0xffc0, 0}};     /* the NaN of arithmetic */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float x = float_of(rows[i].master);
        uint16_t weight = master_weight(x);
        int16_t rest = master_rest(x);
        printf("%08x: %04x %d\n", rows[i].master, weight, rest);
        assert_int_equal(weight, rows[i].weight);
        assert_int_equal(rest, rows[i].rest);
        assert_int_equal(bits_of(master_join(weight, rest)), rows[i].master);
    }
}

/* One in 251 of all fp32 numbers. */
static void every_master_comes_back(void **unused)
{
    (void)unused;
    int64_t ties = 0, other = 0;
    for (uint64_t bits = 0; bits < 0x100000000ull; bits += 251) {
        float x = float_of((uint32_t)bits);
        uint16_t weight = master_weight(x);
        assert_int_equal(bits_of(master_join(weight, master_rest(x))), bits);
        if (isnan(x))
            continue;
        bool tie = (bits & 0xffff) == 0x8000;
        ties += tie;
        other += !tie && weight != bf16_from_f32(x);
    }
    printf("%lld ties, %lld others not rounded to nearest\n", (long long)ties,
           (long long)other);
    assert_true(ties > 0);
    assert_int_equal(other, 0);
}

static void arrays_as_numbers(void **unused)
{
    (void)unused;
    enum { N = 40003 };
    float *master = malloc(2 * N * sizeof *master), *back = master + N;
    uint16_t *weight = malloc(2 * N * sizeof *weight), *alone = weight + N;
    int16_t *rest = malloc(N * sizeof *rest);
    assert_true(master && weight && rest);
    for (int i = 0; i < N; i++)
        master[i] = float_of((uint32_t)rng_u64(5, 0, (uint64_t)i));
    for (int n = 0; n <= N; n = 3 * n + 1) {
        master_split(n, master, weight, rest);
        master_split(n, master, alone, NULL);
        master_gather(n, weight, rest, back);
        assert_memory_equal(master, back, (size_t)n * sizeof *back);
        assert_memory_equal(weight, alone, (size_t)n * sizeof *alone);
    }
    free(master);
    free(weight);
    free(rest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_pairs),
        cmocka_unit_test(every_master_comes_back),
        cmocka_unit_test(arrays_as_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
