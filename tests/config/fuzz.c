/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/rng.h"
#include "src/config/run.h"
#include "src/config/schema.h"
#include "tests/config/sample.h"

/* Damaged run files: read, or refused in one line with a place and code 2. Under the
 * sanitizers this is where memory errors of the reader show. */

static int accepted, refused;

static void try(const char *text)
{
    struct err err = {0};
    struct run r;
    if (run_parse(&r, "run.yaml", text, &err) == 0) {
        char *again = run_format(&r, &err);
        assert_non_null(again);
        struct run back;
        if (run_parse(&back, "resolved", again, &err))
            fail_msg("accepted, but not as resolved: %s\n%s", err.text, again);
        free(again);
        run_fini(&back);
        run_fini(&r);
        accepted++;
        return;
    }
    if (err.code != ERR_USAGE || strncmp(err.text, "run.yaml:", 9) != 0 ||
        strpbrk(err.text, "\n\r\t\033"))
        fail_msg("code %d: %s\nfor\n%s", (int)err.code, err.text, text);
    refused++;
}

static void report(const char *what)
{
    print_message("%s: %d accepted, %d refused\n", what, accepted, refused);
    assert_true(refused > 100);
    accepted = refused = 0;
}

/* All samples, the reference file among them. Owned. */
static char *text_of(int i)
{
    struct err err = {0};
    char *text = i == 0   ? strdup(sample)
                 : i == 1 ? strdup(sample_random)
                          : schema_reference(&err);
    assert_non_null(text);
    return text;
}

static void cut_at_every_byte(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        char *text = text_of(i);
        for (size_t n = strlen(text); n-- > 0;) {
            text[n] = '\0';
            try(text);
        }
        free(text);
    }
    report("cut");
}

static void one_byte_left_out(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        char *text = text_of(i);
        size_t n = strlen(text);
        for (size_t k = 0; k < n; k++) {
            char *shorter = text_of(i);
            memmove(shorter + k, shorter + k + 1, n - k);
            try(shorter);
            free(shorter);
        }
        free(text);
    }
    report("one byte left out");
}

static void random_bytes(void **state)
{
    (void)state;
    static const char hostile[] = "[]{}:,-?!&*#|>%@`\"'\\\t\n \x7f\xff\xc3\x80~0eE.+";
    for (uint64_t i = 0; i < 3000; i++) {
        char *text = text_of(i % 10 == 9 ? 2 : (int)(i % 2));
        size_t n = strlen(text);
        uint64_t changes = 1 + rng_u64(1, i, 0) % 4;
        for (uint64_t k = 1; k <= changes; k++) {
            uint64_t draw = rng_u64(1, i, k);
            char *at = &text[draw % n];
            if (draw >> 40 & 1) /* one bit, else a byte with a meaning in YAML */
                *at = (char)(*at ^ (1 << (draw >> 32 & 7)));
            else
                *at = hostile[(draw >> 41) % (sizeof hostile - 1)];
        }
        try(text);
        free(text);
    }
    report("random bytes");
}

/* Lines in another order, twice, or without their indent. */
static void lines_moved_about(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 1000; i++) {
        char *text = text_of((int)(i % 2)), *lines[64], out[4096] = "";
        int n = 0;
        for (char *line = strtok(text, "\n"); line && n < 64; line = strtok(NULL, "\n"))
            lines[n++] = line;
        for (int k = 0; k < n; k++) {
            uint64_t draw = rng_u64(2, i, (uint64_t)k);
            const char *line = lines[draw % 8 == 0 ? (int)(draw / 8 % (uint64_t)n) : k];
            if (draw % 16 == 5)
                line += strspn(line, " ");
            strcat(out, line);
            strcat(out, draw % 32 == 7 ? "\r\n" : "\n");
        }
        try(out);
        free(text);
    }
    report("lines moved");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(one_byte_left_out),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(lines_moved_about),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
