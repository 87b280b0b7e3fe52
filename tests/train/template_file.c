/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/template_file.h"

#include "src/base/file.h"
#include "tests/support/arrays.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct tokenizer *tokenizer;

static int setup(void **state)
{
    (void)state;
    struct err err = {0};
    size_t bytes;
    char *path = oracle_path("../align/tokenizer/tokenizer.model");
    char *model = file_read(path, 1 << 20, &bytes, &err);
    tokenizer = model ? tokenizer_create(model, bytes, path, &err) : NULL;
    free(model);
    free(path);
    return tokenizer ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    tokenizer_destroy(tokenizer);
    return 0;
}

static struct template *parse(const char *text)
{
    struct err err = {0};
    struct template *t = template_parse("t.yaml", text, strlen(text), tokenizer, &err);
    if (!t)
        print_error("%s\n", err.text);
    assert_non_null(t);
    return t;
}

/* A set keeps a template as its description: a file of it is the same template. */
static void reads_what_it_describes(void **state)
{
    (void)state;
    struct err err = {0};
    int n = 0;
    for (; template_builtin(n); n++) {
        struct template *t =
            template_load(comm_self(), template_builtin(n)->name, tokenizer, &err);
        assert_non_null(t);
        char *text = template_describe(t, &err);
        struct template *read = parse(text);
        char *again = template_describe(read, &err);
        assert_string_equal(again, text);
        free(text);
        free(again);
        template_destroy(t);
        template_destroy(read);
    }
    assert_int_equal(n, 10);
}

static void renders_as_the_file_says(void **state)
{
    (void)state;
    static const char file[] = "name: mine\n"
                               "start: \"{bos}\"\n"
                               "system_after: '; '\n"
                               "user_before: \"Q: \"\n"
                               "user_after: \"\\n\"\n"
                               "reply_before: \"A:\"\n"
                               "reply_end: \"{eos}\"\n"
                               "system: merged\n"
                               "strip: true\n"
                               "one_turn: false\n";
    static const struct message m[] = {
        {.role = ROLE_SYSTEM, .text = "S", .bytes = 1},
        {.role = ROLE_USER, .text = " u ", .bytes = 3},
        {.role = ROLE_ASSISTANT, .text = "r", .bytes = 1}};
    struct err err = {0};
    struct marked_text out = {0};
    struct template *t = parse(file);
    assert_string_equal(template_name(t), "mine");
    assert_false(template_bos(t));
    assert_true(template_ends_replies(t));
    assert_int_equal(template_render(t, m, 3, false, &out, &err), 0);
    marked_text_append(&out, "", 1);
    assert_string_equal(out.text, "<s>Q: S;  u\nA:r</s>");
    assert_int_equal(out.spans, 1);
    assert_int_equal(out.span[0].begin, 14);
    marked_text_fini(&out);
    template_destroy(t);
}

static void takes_tokens_and_an_eos_of_its_own(void **state)
{
    (void)state;
    struct template *t = parse(
        "{name: b, tokens: ['<|a|>', '<|b|>'], eos: '<|b|>', reply_end: '{eos}'}");
    assert_string_equal(template_token(t, 0), "<|a|>");
    assert_string_equal(template_token(t, 1), "<|b|>");
    assert_null(template_token(t, 2));
    assert_string_equal(template_eos(t), "<|b|>");
    assert_true(template_ends_replies(t));
    template_destroy(t);
}

static void refuses_bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "expected the keys of a template"},
        {"[a]", "expected the keys of a template"},
        {"user_before: a\n", "expected a key name, found none"},
        {"name: ''\n", "expected a key name, found none"},
        {"name: a\nusr_before: b\n", "t.yaml:2:1: unknown key \"usr_before\""},
        {"name: a\nname: b\n", "t.yaml:2:1"},
        {"name: a\nuser_before: [b]\n", "t.yaml:2:14: user_before: expected a text"},
        {"name: a\nuser_before:\n", "user_before: expected a text, found nothing"},
        {"name: a\nuser_before: \"a\\0b\"\n", "user_before: expected a text"},
        {"name: a\nbos: 1\n", "t.yaml:2:6: bos: expected true or false, found 1"},
        {"name: a\nbos: 'true'\n", "bos: expected true or false"},
        {"name: a\nsystem: no\n", "system: expected turn, merged or refused"},
        {"name: a\ntokens: b\n", "tokens: expected a list of texts"},
        {"name: a\ntokens: [a, [b]]\n", "tokens: expected a text"},
        {"name: a\ntokens: [1, 2, 3, 4, 5, 6, 7, 8, 9]\n", "at most 8 texts"},
        {"name: &a a\n", "t.yaml:1:"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        assert_null(template_parse("t.yaml", rows[i].text, strlen(rows[i].text),
                                   tokenizer, &err));
        printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_USAGE);
        assert_int_equal(strncmp(err.text, "t.yaml", 6), 0);
        assert_non_null(strstr(err.text, rows[i].says));
    }
    struct err err = {0};
    assert_null(template_load(comm_self(), "nowhere.yaml", tokenizer, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_null(template_load(comm_self(), "nowhere", tokenizer, &err));
    assert_int_equal(err.code, ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_it_describes),
        cmocka_unit_test(renders_as_the_file_says),
        cmocka_unit_test(takes_tokens_and_an_eos_of_its_own),
        cmocka_unit_test(refuses_bad_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
