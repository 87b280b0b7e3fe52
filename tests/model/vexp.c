/* SPDX-License-Identifier: Apache-2.0 */
/* vexp and vexp2 against libm's in double, over the floats. */
#include "src/model/vexp.h"

#include "src/base/clones.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { BATCH = 64 };

CLONES static void exps(const float *restrict x, float *restrict y)
{
    for (int i = 0; i < BATCH; i++)
        y[i] = vexp(x[i]);
}

static double ulps(float x, float y)
{
    double exact = exp((double)x);
    double unit = exact < 0x1p-126 ? 0x1p-149 : ldexp(1, ilogb(exact) - 23);
    return fabs((double)y - exact) / unit;
}

static void is_within_two_ulps_everywhere(void **state)
{
    (void)state;
    double worst = 0;
    float worst_at = 0;
    int64_t checked = 0;
    /* Every 211th float, negative ones, infinities and NaNs included. */
    for (uint64_t u = 0; u < UINT32_MAX; u += 211 * BATCH) {
        float x[BATCH], y[BATCH];
        for (int i = 0; i < BATCH; i++) {
            uint32_t bits = (uint32_t)(u + 211 * (uint64_t)i);
            memcpy(&x[i], &bits, sizeof bits);
        }
        exps(x, y);
        for (int i = 0; i < BATCH; i++, checked++) {
            float exact = (float)exp((double)x[i]);
            if (isnan(x[i])) {
                assert_true(isnan(y[i]));
            } else if (isinf(exact) || isinf(y[i])) {
                assert_true(y[i] == exact);
            } else if (ulps(x[i], y[i]) > worst) {
                worst = ulps(x[i], y[i]);
                worst_at = x[i];
            }
        }
    }
    print_message("%lld floats, largest error %.3f ulp at %a\n", (long long)checked,
                  worst, (double)worst_at);
    assert_true(worst <= 2);
}

static void keeps_the_special_values(void **state)
{
    (void)state;
    static const struct {
        float x, y;
    } rows[] = {{0, 1},
                {-0.0f, 1},
                {-INFINITY, 0},
                {INFINITY, INFINITY},
                {-104, 0},
                {-1e30f, 0},
                {1e30f, INFINITY},
                {88.73f, INFINITY},
                {-103.9f, 0x1p-149f}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float y = vexp(rows[i].x);
        print_message("exp(%g) = %g, expected %g\n", (double)rows[i].x, (double)y,
                      (double)rows[i].y);
        assert_true(y == rows[i].y);
    }
    assert_true(isnan(vexp(NAN)));
    assert_true(isfinite(vexp(88.72f)));
}

CLONES static void powers(const float *restrict x, float *restrict y)
{
    for (int i = 0; i < BATCH; i++)
        y[i] = vexp2(x[i]);
}

static void powers_of_two_are_near_enough_for_bf16(void **state)
{
    (void)state;
    double worst = 0;
    for (int k = 0; k < 20000; k++) { /* from 1 down to -129 */
        float x[BATCH], y[BATCH];
        for (int i = 0; i < BATCH; i++)
            x[i] = 1.0f - (float)(k * BATCH + i) * (130.0f / (20000 * BATCH));
        powers(x, y);
        for (int i = 0; i < BATCH; i++) {
            float alone = vexp2(x[i]);
            double exact = exp2((double)x[i]);
            assert_memory_equal(&alone, &y[i], sizeof alone);
            if (x[i] < -126.5f)
                assert_true(y[i] == 0);
            else
                worst = fmax(worst, fabs((double)y[i] / exact - 1));
        }
    }
    print_message("2^x: largest relative error %.2e\n", worst);
    assert_true(worst <= 3e-6);
    assert_true(vexp2(0) == 1 && vexp2(-1e30f) == 0 && vexp2(-INFINITY) == 0);
    assert_true(vexp2(-20) == 0x1p-20f && isnan(vexp2(NAN)));
}

/* A clone of another CPU level must agree, so the scalar form must with the vector. */
static void gives_the_same_bits_alone_and_in_a_vector(void **state)
{
    (void)state;
    float x[BATCH], y[BATCH];
    for (int k = 0; k < 1000; k++) {
        for (int i = 0; i < BATCH; i++)
            x[i] = (float)(i - BATCH / 2) * (float)k * 3.7e-3f;
        exps(x, y);
        for (int i = 0; i < BATCH; i++) {
            float alone = vexp(x[i]);
            assert_memory_equal(&alone, &y[i], sizeof alone);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_within_two_ulps_everywhere),
        cmocka_unit_test(keeps_the_special_values),
        cmocka_unit_test(gives_the_same_bits_alone_and_in_a_vector),
        cmocka_unit_test(powers_of_two_are_near_enough_for_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
