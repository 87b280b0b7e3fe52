/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/precision.h"

#include "src/gemm/bf16.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct gemm *gemm_of(enum gemm_backend backend)
{
    struct err err = {0};
    struct gemm *g = gemm_create(backend, gemm_level_here(), &err);
    if (!g)
        fail_msg("%s", err.text);
    return g;
}

/* Plain loops are what a CPU without bf16 gets at worst: refused unless asked for. */
static void slow_products_are_refused(void **unused)
{
    (void)unused;
    static const struct {
        enum run_precision precision;
        bool allowed, refused;
    } rows[] = {{RUN_FP32, false, false},
                {RUN_FP32, true, false},
                {RUN_BF16, false, true},
                {RUN_BF16, true, false}};
    struct gemm *g = gemm_of(GEMM_REF);
    assert_false(gemm_bf16_fast(g));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct run r = {.train = {.precision = rows[i].precision,
                                  .allow_slow_bf16 = rows[i].allowed}};
        int failed = precision_check(&r, g, &err);
        printf("row %zu: %s\n", i, failed ? err.text : "taken");
        assert_int_equal(failed != 0, rows[i].refused);
        if (failed) {
            assert_int_equal(err.code, ERR_USAGE);
            assert_non_null(strstr(err.text, "train.precision is bf16"));
            assert_non_null(strstr(err.text, "train.allow_slow_bf16"));
        }
    }
    gemm_destroy(g);
}

/* What dusk check --precision says is what a run on this CPU takes. */
static void fast_products_are_taken(void **unused)
{
    (void)unused;
    struct err err = {0};
    struct run r = {.train = {.precision = RUN_BF16}};
    struct gemm *g = gemm_of(GEMM_BLIS);
    bool here = precision_here() == DTYPE_BF16;
    printf("here: %s, by %s\n", precision_name(precision_here()), gemm_bf16_name(g));
    assert_int_equal(precision_check(&r, g, &err) == 0, here);
    assert_int_equal(precision_check_program(&r, &err) == 0, gemm_bf16_built());
    gemm_destroy(g);
}

static void names_go_with_dtypes(void **unused)
{
    (void)unused;
    struct run r = {.train = {.precision = RUN_BF16}};
    struct gemm *g = gemm_of(GEMM_REF);
    assert_int_equal(precision_of(&r), DTYPE_BF16);
    assert_string_equal(precision_name(precision_of(&r)), "bf16");
    assert_string_equal(precision_gemm(DTYPE_BF16, g), gemm_bf16_name(g));
    r.train.precision = RUN_FP32;
    assert_int_equal(precision_of(&r), DTYPE_F32);
    assert_string_equal(precision_name(precision_of(&r)), "fp32");
    assert_string_equal(precision_gemm(DTYPE_F32, g), gemm_name(g));
    gemm_destroy(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slow_products_are_refused),
        cmocka_unit_test(fast_products_are_taken),
        cmocka_unit_test(names_go_with_dtypes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
