/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_chunks.h"
#include "io/hf_nonfinite.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Over any number of ranks the shares are the whole, once, in order. */
static void shares_are_the_whole(void **state)
{
    (void)state;
    static const int64_t elements[] = {
        1, HF_CHUNK, HF_CHUNK + 1, 5, 3 * (int64_t)HF_CHUNK - 1, 7, 7, 7};
    enum { TENSORS = sizeof elements / sizeof *elements };
    for (int ranks = 1; ranks <= 16; ranks++) {
        int tensor = 0, chunks = 0;
        int64_t at = 0;
        for (int rank = 0; rank < ranks; rank++) {
            struct hf_chunks k;
            hf_chunks_begin(&k, elements, TENSORS, rank, ranks);
            for (; hf_chunks_next(&k); chunks++) {
                if (at == elements[tensor]) {
                    tensor++;
                    at = 0;
                }
                assert_int_equal(k.tensor, tensor);
                assert_int_equal(k.begin, at);
                assert_int_equal(k.begin % 32768, 0);
                assert_in_range(k.n, 1, HF_CHUNK);
                at += k.n;
            }
            assert_false(hf_chunks_next(&k));
        }
        printf("%d ranks: %d chunks\n", ranks, chunks);
        assert_int_equal(chunks, 11);
        assert_int_equal(tensor, TENSORS - 1);
        assert_int_equal(at, elements[tensor]);
    }
}

static void counts_nan_and_inf(void **state)
{
    (void)state;
    enum { N = 100003 };
    static float wide[N];
    static uint16_t narrow[N];
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    for (int i = 0; i < N; i++)
        wide[i] = (float)i - 50000;
    wide[0] = NAN;
    wide[40000] = -INFINITY;
    wide[N - 1] = INFINITY;
    for (int i = 0; i < 3; i++) {
        dtype_from_f32(types[i], wide, N, i ? (void *)narrow : (void *)wide);
        int64_t found = nonfinite_count(types[i], i ? (void *)narrow : (void *)wide, N);
        printf("%s: %lld\n", dtype_name(types[i]), (long long)found);
        assert_int_equal(found, 3);
    }
    for (int i = 0; i < N; i++)
        narrow[i] = 0x7f80; /* more than fit in 16 bits */
    assert_int_equal(nonfinite_count(DTYPE_BF16, narrow, N), N);
    assert_int_equal(nonfinite_count(DTYPE_F32, wide, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shares_are_the_whole),
                                       cmocka_unit_test(counts_nan_and_inf)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
