/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Values of the same functions in Python's integers; runs of old checkpoints depend on
 * them for ever. */
static void values_never_change(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed, stream, index, value;
    } rows[] = {
        {0, 0, 0, 0x238275bc38fcbe91},
        {1, 2, 3, 0xd0734750fde362b3},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, 0x595b17f487c0e71b},
        {42, 0, 1ull << 40, 0xbd8cc3934a525231},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t v = rng_u64(rows[i].seed, rows[i].stream, rows[i].index);
        print_message("%016llx\n", (unsigned long long)v);
        assert_true(v == rows[i].value);
    }
    static const int64_t ten[] = {7, 2, 3, 1, 0, 9, 4, 5, 6, 8};
    for (int i = 0; i < 10; i++)
        assert_int_equal(rng_permute(7, 1, 10, i), ten[i]);
    assert_int_equal(rng_permute(7, 1, 1000000000000, 123456789), 760680176317);
}

static void check_bijection(uint64_t seed, uint64_t stream, int64_t n)
{
    unsigned char *seen = calloc((size_t)n, 1);
    assert_non_null(seen);
    for (int64_t i = 0; i < n; i++) {
        int64_t to = rng_permute(seed, stream, n, i);
        if (to < 0 || to >= n || seen[to]++)
            fail_msg("n %lld, seed %llu: %lld goes to %lld, again or outside",
                     (long long)n, (unsigned long long)seed, (long long)i,
                     (long long)to);
    }
    free(seen);
}

static void permute_is_a_bijection(void **state)
{
    (void)state;
    static const int64_t more[] = {1023,  1024,  1025,  4095,   4096,   4097,
                                   65535, 65536, 65537, 100003, 262144, 262145};
    for (int64_t n = 1; n <= 400; n++)
        for (uint64_t seed = 0; seed < 3; seed++)
            check_bijection(seed, seed * 5, n);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        check_bijection(11, UINT64_MAX, more[i]);
    print_message("n 1 to 400 with 3 seeds, and %zu larger\n",
                  sizeof more / sizeof *more);
}

static void permute_stays_inside_huge_ranges(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1ll << 40, (1ll << 40) + 1, (1ll << 61) + 12345,
                                    1ll << 62};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        int64_t n = sizes[k];
        for (int64_t i = 0; i < 1000; i++) {
            int64_t a = rng_permute(3, 4, n, i), b = rng_permute(3, 4, n, n - 1 - i);
            assert_true(a >= 0 && a < n && b >= 0 && b < n && a != b);
        }
    }
}

/* Fixed points of a random permutation number 1 on average; neighbours should not stay
 * neighbours. */
static void permute_mixes_and_depends_on_its_seed(void **state)
{
    (void)state;
    enum { N = 10000 };
    int fixed = 0, neighbours = 0, same = 0;
    for (int64_t i = 0; i < N; i++) {
        int64_t a = rng_permute(1, 0, N, i);
        fixed += a == i;
        same += a == rng_permute(2, 0, N, i);
        same += a == rng_permute(1, 1, N, i);
        neighbours += i > 0 && llabs(a - rng_permute(1, 0, N, i - 1)) == 1;
    }
    print_message("fixed %d, neighbours %d, same with other seeds %d\n", fixed,
                  neighbours, same);
    assert_true(fixed < 10 && neighbours < 12 && same < 15);
}

static void draws_have_the_right_moments(void **state)
{
    (void)state;
    enum { N = 200000 };
    double sum = 0, squares = 0, least = 1, most = 0, normal = 0, normal2 = 0,
           normal4 = 0, lag = 0, last = 0;
    for (uint64_t i = 0; i < N; i++) {
        double u = rng_uniform(9, 1, i), z = rng_normal(9, 2, i);
        assert_true(u >= 0 && u < 1 && isfinite(z));
        sum += u;
        squares += u * u;
        least = fmin(least, u);
        most = fmax(most, u);
        normal += z;
        normal2 += z * z;
        normal4 += z * z * z * z;
        lag += z * last;
        last = z;
    }
    print_message("uniform: mean %.4f, variance %.5f, %.1e to 1 - %.1e\n", sum / N,
                  squares / N - sum / N * sum / N, least, 1 - most);
    print_message("normal: mean %.4f, variance %.4f, fourth %.3f, lag %.4f\n",
                  normal / N, normal2 / N, normal4 / N, lag / N);
    assert_true(fabs(sum / N - 0.5) < 0.003);
    assert_true(fabs(squares / N - 1.0 / 3) < 0.003);
    assert_true(least < 1e-4 && most > 1 - 1e-4);
    assert_true(fabs(normal / N) < 0.01);
    assert_true(fabs(normal2 / N - 1) < 0.015);
    assert_true(fabs(normal4 / N - 3) < 0.12);
    assert_true(fabs(lag / N) < 0.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_never_change),
        cmocka_unit_test(permute_is_a_bijection),
        cmocka_unit_test(permute_stays_inside_huge_ranges),
        cmocka_unit_test(permute_mixes_and_depends_on_its_seed),
        cmocka_unit_test(draws_have_the_right_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
