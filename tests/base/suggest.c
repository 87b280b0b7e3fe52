/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/suggest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_try(void **state)
{
    (void)state;
    static const char *const known[] = {"import", "export", "upscale", "train", "eval"};
    static const struct {
        const char *word, *best;
    } rows[] = {
        {"imprt", "import"}, {"exprot", "export"}, {"upsacle", "upscale"},
        {"evla", "eval"},    {"tran", "train"},    {"frobnicate", NULL},
        {"xy", NULL},        {"", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct suggest s = suggest_for(rows[i].word);
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            suggest_try(&s, known[k]);
        print_message("%s: %s, %d away\n", s.word, s.best ? s.best : "-", s.distance);
        if (rows[i].best)
            assert_string_equal(s.best, rows[i].best);
        else
            assert_null(s.best);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_try),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
