/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/embed.h"

#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model/plain.h"

enum { VOCAB = 9, DIM = 131, ROWS = 12 };

static const int32_t ids[ROWS] = {3, 0, 8, 3, 3, 1, 8, 5, 0, 3, 2, 2};

static void takes_rows(void **state)
{
    (void)state;
    struct values table = values_create(VOCAB * DIM, 1, 1), x = values_zero(ROWS * DIM);
    embed_forward(ROWS, DIM, DTYPE_F32, ids, table.single, x.single);
    for (int t = 0; t < ROWS; t++)
        assert_memory_equal(x.single + t * DIM, table.single + ids[t] * DIM,
                            DIM * sizeof(float));
    values_destroy(&table);
    values_destroy(&x);
}

static void adds_gradients_in_row_order_on_any_threads(void **state)
{
    (void)state;
    struct values dx = values_create(ROWS * DIM, 1, 1);
    struct values start = values_create(VOCAB * DIM, 1, 2);
    float expect[VOCAB * DIM], got[VOCAB * DIM];
    memcpy(expect, start.single, sizeof expect);
    for (int t = 0; t < ROWS; t++)
        for (int j = 0; j < DIM; j++)
            expect[ids[t] * DIM + j] += dx.single[t * DIM + j];
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        memcpy(got, start.single, sizeof got);
        embed_backward(ROWS, DIM, DTYPE_F32, ids, dx.single, got);
        assert_memory_equal(got, expect, sizeof got);
    }
    /* Rows 4, 6 and 7 of the table were never used. */
    assert_memory_equal(got + 4 * DIM, start.single + 4 * DIM, DIM * sizeof *got);
    values_destroy(&dx);
    values_destroy(&start);
}

static void does_the_same_in_bf16(void **state)
{
    (void)state;
    struct values table = values_create(VOCAB * DIM, 1, 1);
    struct values dx = values_create(ROWS * DIM, 1, 2), x = values_zero(ROWS * DIM);
    struct values expect = values_zero(VOCAB * DIM), got = values_zero(VOCAB * DIM);
    uint16_t *table_bits = values_round(&table), *dx_bits = values_round(&dx);
    uint16_t x_bits[ROWS * DIM];
    embed_forward(ROWS, DIM, DTYPE_F32, ids, table.single, x.single);
    embed_forward(ROWS, DIM, DTYPE_BF16, ids, table_bits, x_bits);
    expect_rounded("x", x.n, x_bits, x.single);
    embed_backward(ROWS, DIM, DTYPE_F32, ids, dx.single, expect.single);
    embed_backward(ROWS, DIM, DTYPE_BF16, ids, dx_bits, got.single);
    assert_memory_equal(got.single, expect.single, VOCAB * DIM * sizeof(float));
    struct values *all[] = {&table, &dx, &x, &expect, &got};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        values_destroy(all[i]);
    free(table_bits);
    free(dx_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_rows),
        cmocka_unit_test(adds_gradients_in_row_order_on_any_threads),
        cmocka_unit_test(does_the_same_in_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
