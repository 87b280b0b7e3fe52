/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/svg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void marks_are_round(void **state)
{
    (void)state;
    static const double rows[][2] = {
        {1, 1},    {1.2, 2},       {2, 2},       {2.1, 5},      {5.5, 10},
        {99, 100}, {0.003, 0.005}, {1e-7, 1e-7}, {0.011, 0.02}, {1000, 1000}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double mark = svg_mark(rows[i][0]);
        if (fabs(mark / rows[i][1] - 1) > 1e-9)
            fail_msg("mark of %g: %g, expected %g", rows[i][0], mark, rows[i][1]);
    }
}

/* Three figures take 21 pixels and one on each side. */
static void a_label_that_does_not_fit_is_left_out(void **state)
{
    (void)state;
    static const struct svg_paint paint = {"#000000", "#ffffff", "an operation"};
    for (int fits = 0; fits < 2; fits++) {
        char *text = NULL;
        size_t bytes = 0;
        FILE *f = open_memstream(&text, &bytes);
        svg_box(f, &paint,
                &(struct svg_box){.width = 22 + fits,
                                  .height = 10,
                                  .label = "123",
                                  .hint = fits ? "forward" : NULL});
        assert_int_equal(fclose(f), 0);
        assert_int_equal(strstr(text, ">123</text>") != NULL, fits);
        assert_int_equal(strstr(text, "<title>forward</title></rect>") != NULL, fits);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_are_round),
        cmocka_unit_test(a_label_that_does_not_fit_is_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
