/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Both 16-bit types behind one face; inf is the pattern of +Inf. */
static const struct half {
    const char *name;
    enum dtype type;
    float (*widen)(uint16_t);
    uint16_t (*narrow)(float);
    uint16_t inf;
    int fraction_bits, exponent_bias;
} halves[] = {
    {"bf16", DTYPE_BF16, bf16_to_f32, bf16_from_f32, 0x7f80, 7, 127},
    {"f16", DTYPE_F16, f16_to_f32, f16_from_f32, 0x7c00, 10, 15},
};
enum { HALVES = sizeof halves / sizeof *halves };

static float of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The value of a finite pattern by the definition of the format, in double. */
static double value_of(const struct half *h, uint16_t bits)
{
    int fraction = bits & ((1 << h->fraction_bits) - 1);
    int exponent = (bits & 0x7fff) >> h->fraction_bits;
    double v = exponent ? ldexp(fraction + (1 << h->fraction_bits),
                                exponent - h->exponent_bias - h->fraction_bits)
                        : ldexp(fraction, 1 - h->exponent_bias - h->fraction_bits);
    return bits & 0x8000 ? -v : v;
}

static void every_pattern_has_its_value_and_comes_back(void **state)
{
    (void)state;
    for (int k = 0; k < HALVES; k++) {
        const struct half *h = &halves[k];
        for (uint32_t u = 0; u <= 0xffff; u++) {
            uint16_t bits = (uint16_t)u;
            float wide = h->widen(bits);
            if ((bits & 0x7fff) < h->inf) {
                double expected = value_of(h, bits);
                if ((double)wide < expected || (double)wide > expected ||
                    !signbit(wide) != !(bits >> 15))
                    fail_msg("%s %04x: %g, expected %g", h->name, bits, (double)wide,
                             expected);
            } else {
                assert_true((bits & 0x7fff) == h->inf ? isinf(wide) : isnan(wide));
            }
            if (h->narrow(wide) != bits)
                fail_msg("%s %04x -> %g -> %04x", h->name, bits, (double)wide,
                         h->narrow(wide));
        }
        print_message("%s: 65536 patterns\n", h->name);
    }
}

/* Between each pair of neighbours: the middle goes to the even one, the next floats on
 * both sides to the nearer. All of them are exact in fp32. */
static void narrowing_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (int k = 0; k < HALVES; k++) {
        const struct half *h = &halves[k];
        for (uint16_t low = 0; low + 1 < h->inf; low++) {
            uint16_t high = (uint16_t)(low + 1), even = low & 1 ? high : low;
            double exact = (value_of(h, low) + value_of(h, high)) / 2;
            float middle = (float)exact;
            assert_true((double)middle <= exact && (double)middle >= exact);
            const struct {
                float value;
                uint16_t bits;
            } rows[] = {{middle, even},
                        {nextafterf(middle, 0), low},
                        {nextafterf(middle, INFINITY), high}};
            for (int i = 0; i < 3; i++) {
                uint16_t plus = h->narrow(rows[i].value);
                uint16_t minus = h->narrow(-rows[i].value);
                if (plus != rows[i].bits || minus != (rows[i].bits | 0x8000))
                    fail_msg("%s: %a gives %04x, its negative %04x, expected %04x",
                             h->name, (double)rows[i].value, plus, minus, rows[i].bits);
            }
        }
        print_message("%s: %d intervals\n", h->name, h->inf - 1);
    }
}

static void the_ends_of_the_range(void **state)
{
    (void)state;
    const struct {
        uint32_t f32;
        uint16_t bf16, f16;
    } rows[] = {
        {0x00000000, 0x0000, 0x0000}, /* 0 */
        {0x80000000, 0x8000, 0x8000}, /* -0 */
        {0x00000001, 0x0000, 0x0000}, /* least subnormal */
        {0x33000000, 0x3300, 0x0000}, /* 2^-25: halfway to f16's least */
        {0x33000001, 0x3300, 0x0001},
        {0x477fdfff, 0x4780, 0x7bff}, /* just below 65504 */
        {0x477fefff, 0x4780, 0x7bff}, /* just below 65520 */
        {0x477ff000, 0x4780, 0x7c00}, /* 65520: f16 overflows */
        {0x7f7f7fff, 0x7f7f, 0x7c00},
        {0x7f7f8000, 0x7f80, 0x7c00}, /* bf16 overflows (a tie, to even) */
        {0x7f7fffff, 0x7f80, 0x7c00}, /* FLT_MAX */
        {0x7f800000, 0x7f80, 0x7c00}, /* Inf */
        {0xff800000, 0xff80, 0xfc00}, /* -Inf */
        {0x7f800001, 0x7fc0, 0x7e00}, /* NaN whose payload is cut off: still NaN */
        {0x7fc00000, 0x7fc0, 0x7e00},
        {0xffc10000, 0xffc1, 0xfe08},
        {0x7fffffff, 0x7fff, 0x7fff},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float f = of_bits(rows[i].f32);
        print_message("%08x: bf16 %04x, f16 %04x\n", rows[i].f32, bf16_from_f32(f),
                      f16_from_f32(f));
        assert_int_equal(bf16_from_f32(f), rows[i].bf16);
        assert_int_equal(f16_from_f32(f), rows[i].f16);
    }
}

static void arrays_are_converted_like_elements(void **state)
{
    (void)state;
    float in[37], wide[37];
    uint16_t half[38];
    for (int i = 0; i < 37; i++)
        in[i] = (float)(i - 18) * 1.2345678f;
    for (int k = 0; k < HALVES; k++) {
        half[37] = 0xabcd;
        dtype_from_f32(halves[k].type, in, 37, half);
        dtype_to_f32(halves[k].type, half, 37, wide);
        for (int i = 0; i < 37; i++) {
            assert_int_equal(half[i], halves[k].narrow(in[i]));
            float expected = halves[k].widen(half[i]);
            assert_memory_equal(&wide[i], &expected, sizeof expected);
        }
        assert_int_equal(half[37], 0xabcd);
    }
    dtype_from_f32(DTYPE_F32, in, 37, wide);
    assert_memory_equal(in, wide, sizeof in);
    memset(wide, 0, sizeof wide);
    dtype_to_f32(DTYPE_F32, in, 37, wide);
    assert_memory_equal(in, wide, sizeof in);
}

static void names_sizes_and_the_widest(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum dtype type;
        size_t bytes;
    } rows[] = {{"F32", DTYPE_F32, 4}, {"BF16", DTYPE_BF16, 2}, {"F16", DTYPE_F16, 2}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum dtype t;
        assert_int_equal(dtype_parse(rows[i].name, &t), 0);
        assert_int_equal(t, rows[i].type);
        assert_string_equal(dtype_name(t), rows[i].name);
        assert_int_equal(dtype_bytes(t), rows[i].bytes);
        assert_int_equal(dtype_widest(t, t), t);
        assert_int_equal(dtype_widest(t, DTYPE_F32), DTYPE_F32);
    }
    assert_int_equal(dtype_widest(DTYPE_BF16, DTYPE_F16), DTYPE_F32);
    static const char *const foreign[] = {"", "f32", "F64", "I64", "F8_E4M3", "F32 "};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        enum dtype t = DTYPE_F16;
        assert_int_equal(dtype_parse(foreign[i], &t), -1);
        assert_int_equal(t, DTYPE_F16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pattern_has_its_value_and_comes_back),
        cmocka_unit_test(narrowing_rounds_to_nearest_even),
        cmocka_unit_test(the_ends_of_the_range),
        cmocka_unit_test(arrays_are_converted_like_elements),
        cmocka_unit_test(names_sizes_and_the_widest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
