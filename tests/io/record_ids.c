/* SPDX-License-Identifier: Apache-2.0 */
#include "io/record_ids.h"

#include "src/base/file.h"
#include "src/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* The oracles' rules for whole records: tests/train/records.c. */

static struct tokenizer *load_added(const struct added_token *added, int n)
{
    struct err err = {0};
    size_t bytes;
    const char *srcdir = getenv("srcdir");
    char *path = mem_printf(&err, "%s/tests/oracle/align/tokenizer/tokenizer.model",
                            srcdir ? srcdir : ".");
    char *model = file_read(path, 1 << 20, &bytes, &err);
    struct tokenizer *t =
        model ? tokenizer_create_added(model, bytes, added, n, "align", &err) : NULL;
    if (!t)
        print_error("%s\n", err.text);
    assert_non_null(t);
    free(model);
    free(path);
    return t;
}

static struct tokenizer *load(void)
{
    return load_added(NULL, 0);
}

static struct record_encoder *create(const struct tokenizer *t)
{
    struct err err = {0};
    struct record_encoder *e = record_encoder_create(t, &err);
    assert_non_null(e);
    return e;
}

/* "a[b]c": b is marked. */
static struct marked_text marked(const char *text)
{
    struct marked_text m = {0};
    size_t begin = 0;
    for (; *text; text++) {
        if (*text == '[')
            begin = m.bytes;
        else if (*text == ']')
            marked_text_mark(&m, begin);
        else
            marked_text_append(&m, text, 1);
    }
    return m;
}

/* The pieces one after another; those in the loss in brackets. */
static void show(const struct tokenizer *t, const struct record_ids *r, char *to,
                 size_t size)
{
    size_t used = 0;
    to[0] = '\0';
    for (int64_t i = 0; i < r->n; i++) {
        const char *piece = tokenizer_piece(t, r->id[i]);
        used += (size_t)snprintf(to + used, size - used, r->mask[i] ? "[%s]" : " %s ",
                                 piece);
    }
}

static void cuts_at_special_tokens_and_masks(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool bos;
        const char *expect;
    } rows[] = {
        {"", false, ""},
        {"", true, " <s> "},
        {"1[2]", true, " <s>  \xe2\x96\x81  1 [2]"},
        /* BOS and space stand inside the span */
        {"[1]", true, "[<s>][\xe2\x96\x81][1]"},
        {"[1 2]3", false, "[\xe2\x96\x81][1][\xe2\x96\x81][2] 3 "},
        {"1[2</s>]3", false, " \xe2\x96\x81  1 [2][</s>] \xe2\x96\x81  3 "},
        {"1</s>[2]", false, " \xe2\x96\x81  1  </s> [\xe2\x96\x81][2]"},
        {"[1</s>2]", false, "[\xe2\x96\x81][1][</s>][\xe2\x96\x81][2]"},
        {"<s>[1]", true, " <s> [\xe2\x96\x81][1]"}, /* never twice */
        {"<s>[1]", false, " <s> [\xe2\x96\x81][1]"},
        {"</s>[1]", true, " <s>  </s> [\xe2\x96\x81][1]"},
        {"<s", true, " <s>  \xe2\x96\x81  <  s "},
        {"1[<m>2<m>>]<m", false,
         " \xe2\x96\x81  1 [<m>][\xe2\x96\x81][2][<m>>] \xe2\x96\x81  <  m "},
        {"<m>>>", false, " <m>>  \xe2\x96\x81  > "},
        {"1[\xed\x95\x9c]2", false, " \xe2\x96\x81  1 [<0xED>][<0x95>][<0x9C>] 2 "},
        {"[\xed\x95\x9c]\xea\xb5\xad", false,
         "[\xe2\x96\x81][<0xED>][<0x95>][<0x9C>] <0xEA>  <0xB5>  <0xAD> "},
    };
    static const struct added_token added[] = {{"<m>", 600}, {"<m>>", 601}};
    struct tokenizer *t = load_added(added, 2);
    struct record_encoder *e = create(t);
    struct record_ids r = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        char found[512];
        struct marked_text m = marked(rows[i].text);
        assert_int_equal(record_encode(e, &m, rows[i].bos, &r, &err), 0);
        show(t, &r, found, sizeof found);
        assert_string_equal(found, rows[i].expect);
        marked_text_fini(&m);
    }
    record_ids_fini(&r);
    record_encoder_destroy(e);
    tokenizer_destroy(t);
}

/* Longer than what the tokenizer encodes at once: spans go on across its parts. */
static void masks_long_texts_by_character(void **state)
{
    (void)state;
    enum { WORDS = 400 };
    struct tokenizer *t = load();
    struct record_encoder *e = create(t);
    struct marked_text m = {0};
    struct record_ids r = {0};
    struct err err = {0};
    for (int i = 0; i < WORDS; i++) {
        size_t begin = m.bytes;
        marked_text_append(&m, " 7", 2);
        if (i % 3 == 1)
            marked_text_mark(&m, begin); /* the space before the 7, and the 7 */
    }
    assert_int_equal(record_encode(e, &m, false, &r, &err), 0);
    assert_true(r.n > WORDS);
    int sevens = 0;
    for (int64_t i = 0; i < r.n; i++) {
        if (strcmp(tokenizer_piece(t, r.id[i]), "7") != 0)
            continue;
        assert_int_equal(r.mask[i], sevens % 3 == 1);
        if (sevens)
            assert_int_equal(r.mask[i - 1], sevens % 3 == 1);
        sevens++;
    }
    assert_int_equal(sevens, WORDS);
    record_ids_fini(&r);
    marked_text_fini(&m);
    record_encoder_destroy(e);
    tokenizer_destroy(t);
}

static void counts_and_truncates(void **state)
{
    (void)state;
    static const struct {
        int64_t max, n, counted;
    } rows[] = {{100, 5, 3}, {5, 5, 3}, {4, 4, 2}, {2, 2, 0}, {0, 0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int32_t id[5] = {1, 2, 3, 4, 5};
        uint8_t mask[5] = {1, 0, 1, 1, 1};
        struct record_ids r = {id, mask, 5, 5};
        record_ids_truncate(&r, rows[i].max);
        assert_int_equal(r.n, rows[i].n);
        assert_int_equal(record_ids_counted(&r), rows[i].counted);
    }
}

static void masks_the_ends_of_pairs(void **state)
{
    (void)state;
    static const struct {
        const char *prompt, *chosen, *rejected, *chosen_ids, *rejected_ids;
        int64_t common;
        bool equal;
    } rows[] = {
        /* what follows the end mark is not learnt */
        {"1\n", "1\n[2</s>]\n", "1\n[3</s>]\n",
         " \xe2\x96\x81  1  <0x0A> [2][</s>] \xe2\x96\x81  <0x0A> ",
         " \xe2\x96\x81  1  <0x0A> [3][</s>] \xe2\x96\x81  <0x0A> ", 3, false},
        {"1", "1[2]", "1[2]", " \xe2\x96\x81  1 [2]", " \xe2\x96\x81  1 [2]", 2, true},
        {"1", "1[2]", "1[2 2]", " \xe2\x96\x81  1 [2]",
         " \xe2\x96\x81  1 [2][\xe2\x96\x81][2]", 2, false},
    };
    struct tokenizer *t = load();
    struct record_encoder *e = create(t);
    struct pair_ids p = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        char found[256];
        struct marked_text m[] = {marked(rows[i].prompt), marked(rows[i].chosen),
                                  marked(rows[i].rejected)};
        assert_int_equal(pair_encode(e, &m[0], &m[1], &m[2], false, &p, &err), 0);
        show(t, &p.chosen, found, sizeof found);
        assert_string_equal(found, rows[i].chosen_ids);
        show(t, &p.rejected, found, sizeof found);
        assert_string_equal(found, rows[i].rejected_ids);
        assert_int_equal(p.prompt, rows[i].common);
        assert_int_equal(pair_ids_equal(&p), rows[i].equal);
        for (int k = 0; k < 3; k++)
            marked_text_fini(&m[k]);
    }
    pair_ids_fini(&p);
    record_encoder_destroy(e);
    tokenizer_destroy(t);
}

static void needs_the_bos_that_is_asked_for(void **state)
{
    (void)state;
    /* two pieces: "<unk>", of type 2, and "a" */
    static const char model[] = "\x0a\x09\x0a\x05<unk>\x18\x02\x0a\x03\x0a\x01"
                                "a";
    struct err err = {0};
    struct tokenizer *t = tokenizer_create(model, sizeof model - 1, "two", &err);
    assert_non_null(t);
    struct record_encoder *e = create(t);
    struct marked_text m = marked("a");
    struct record_ids r = {0};
    assert_int_equal(record_encode(e, &m, true, &r, &err), -1);
    printf("%s\n", err.text);
    assert_non_null(strstr(err.text, "expected a tokenizer with a BOS"));
    assert_int_equal(err.code, ERR_USAGE);
    assert_int_equal(record_encode(e, &m, false, &r, &err), 0);
    assert_true(r.n > 0);
    record_ids_fini(&r);
    marked_text_fini(&m);
    record_encoder_destroy(e);
    tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_at_special_tokens_and_masks),
        cmocka_unit_test(masks_long_texts_by_character),
        cmocka_unit_test(counts_and_truncates),
        cmocka_unit_test(masks_the_ends_of_pairs),
        cmocka_unit_test(needs_the_bos_that_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
