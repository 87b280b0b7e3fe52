/* SPDX-License-Identifier: Apache-2.0 */
#include "io/added_tokens.h"

#include "io/add_tokens.h"
#include "io/tokenizer_load.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { PIECES = 512, FILES = 5 };

static struct ckpt_file file_of(const char *name, const char *text)
{
    return (struct ckpt_file){
        .name = (char *)name, .data = (unsigned char *)text, .bytes = strlen(text)};
}

/* "600 a, 601 b | 700 c": those with rows, and those without. */
static char *describe(const struct added_tokens *a)
{
    struct err err;
    char *text = mem_printf(&err, "%s", "");
    for (int i = 0; i < a->all; i++) {
        char *longer = mem_printf(&err, "%s%s%d %s", text,
                                  i == a->n ? " | "
                                  : i       ? ", "
                                            : "",
                                  (int)a->token[i].id, a->token[i].text);
        free(text);
        text = longer;
    }
    return text;
}

static void reads_what_hugging_face_lists(void **state)
{
    (void)state;
    static const struct {
        const char *list, *config, *map; /* NULL: no such file */
        int vocab;
        const char *expect;
    } rows[] = {
        {NULL, NULL, NULL, 512, ""},
        {NULL, "{}", "{}", 512, ""},
        {NULL, NULL, "{\"b\": 513, \"a\": 512, \"<s>\": 1}", 514, "512 a, 513 b"},
        {NULL, NULL, "{\"<pad>\": 512}", 512, " | 512 <pad>"},
        {NULL,
         "{\"added_tokens_decoder\": {\"1\": {\"content\": \"<s>\"}, \"512\": "
         "{\"content\": \"a\", \"special\": true}}}",
         NULL, 600, "512 a"},
        {"{\"added_tokens\": [{\"id\": 2, \"content\": \"</s>\"}, {\"id\": 513, "
         "\"content\": \"b\"}], \"model\": {\"vocab\": {\"a\": 512}}}",
         NULL, NULL, 600, "513 b"},
        /* one list of all three; the first file is right */
        {"{\"added_tokens\": [{\"id\": 512, \"content\": \"a\"}]}",
         "{\"added_tokens_decoder\": {\"512\": {\"content\": \"x\"}, \"513\": "
         "{\"content\": \"a\"}, \"514\": {\"content\": \"c\"}}}",
         "{\"c\": 515, \"d\": 600, \"e\": 514, \"f\": 599}", 600,
         "512 a, 514 c, 599 f | 600 d"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct ckpt_file file[3];
        struct added_tokens a;
        struct err err = {0};
        int n = 0;
        if (rows[i].map)
            file[n++] = file_of("added_tokens.json", rows[i].map);
        if (rows[i].list)
            file[n++] = file_of("tokenizer.json", rows[i].list);
        if (rows[i].config)
            file[n++] = file_of("tokenizer_config.json", rows[i].config);
        assert_int_equal(added_tokens_read(&a, file, n, PIECES, rows[i].vocab, &err),
                         0);
        char *found = describe(&a);
        assert_string_equal(found, rows[i].expect);
        free(found);
        added_tokens_fini(&a);
    }
}

static void refuses_broken_files(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *says;
    } rows[] = {
        {"added_tokens.json", "{\"a\": 5", "added_tokens.json: not valid JSON"},
        {"added_tokens.json", "{\"a\": \"5\"}",
         "added token \"a\": expected a text and"},
        {"added_tokens.json", "{\"a\": -1}", "\"a\": expected a text and an id from 0"},
        {"added_tokens.json", "{\"a\": 2147483647}",
         "\"a\": expected a text and an id"},
        {"tokenizer_config.json",
         "{\"added_tokens_decoder\": {\"5x\": {\"content\": \"b\"}}}",
         "tokenizer_config.json: added token \"b\": expected"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"5\": \"b\"}}",
         "tokenizer_config.json: added token \"\": expected"},
        {"tokenizer.json", "{\"added_tokens\": [{\"id\": 600}]}",
         "tokenizer.json: added token \"\": expected"},
        {"tokenizer.json", "[]", "tokenizer.json: expected a JSON object"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct ckpt_file file = file_of(rows[i].name, rows[i].text);
        struct added_tokens a;
        struct err err = {0};
        assert_int_equal(added_tokens_read(&a, &file, 1, PIECES, 600, &err), -1);
        printf("%s\n", err.text);
        assert_non_null(strstr(err.text, rows[i].says));
        assert_int_equal(err.code, ERR_INPUT);
        assert_null(a.token);
    }
}

static void parses_lists(void **state)
{
    (void)state;
    static const struct {
        const char *list, *expect, *says;
    } rows[] = {
        {"a", "512 a", NULL},
        {"<|im_start|>,<|im_end|>", "512 <|im_start|>, 513 <|im_end|>", NULL},
        {"b c,\xed\x95\x9c", "512 b c, 513 \xed\x95\x9c", NULL},
        {"", NULL, "found an empty one"},
        {"a,,b", NULL, "found an empty one"},
        {"a,b,", NULL, "found an empty one"},
        {"a, b", NULL, "token \" b\": expected no white space"},
        {"a\n", NULL, "token \"a?\": expected no white space"},
        {"a,b,a", NULL, "token \"a\" is there twice"},
        {"a,b\xff", NULL, "expected UTF-8"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct added_tokens a;
        struct err err = {0};
        int failed = added_tokens_parse(&a, rows[i].list, PIECES, &err);
        assert_int_equal(failed, rows[i].says ? -1 : 0);
        if (failed) {
            printf("%s\n", err.text);
            assert_non_null(strstr(err.text, rows[i].says));
            assert_int_equal(err.code, ERR_USAGE);
            continue;
        }
        char *found = describe(&a);
        assert_string_equal(found, rows[i].expect);
        free(found);
        added_tokens_fini(&a);
    }
}

/* A model of `vocab` rows with the oracle's tokenizer.model and these files. */
static struct ckpt_info model_of(int vocab, const struct ckpt_file *file, int n)
{
    struct err err = {0};
    const char *srcdir = getenv("srcdir");
    struct ckpt_file all[FILES] = {{.name = (char *)"tokenizer.model"}};
    char *path = mem_printf(&err, "%s/tests/oracle/model/tokenizer/tiny512/%s",
                            srcdir ? srcdir : ".", all[0].name);
    char *model = file_read(path, 1 << 20, &all[0].bytes, &err);
    assert_non_null(model);
    all[0].data = (unsigned char *)model;
    memcpy(all + 1, file, (size_t)n * sizeof *file);
    struct ckpt_info from = {.file = all, .files = n + 1}, info;
    from.shape.vocab = vocab;
    assert_int_equal(ckpt_info_copy(&info, &from, &err), 0);
    free(model);
    free(path);
    return info;
}

static const char *text_of(const struct ckpt_info *info, const char *name)
{
    const struct ckpt_file *f = ckpt_info_file(info, name);
    return f ? (const char *)f->data : "no file";
}

static void adds_and_reads_back(void **state)
{
    (void)state;
    static const char json[] = "{\"version\": \"1.0\", \"added_tokens\": [{\"id\": 1, "
                               "\"content\": \"<s>\"}], \"score\": -0.1}";
    struct ckpt_file file[] = {file_of("tokenizer.json", json),
                               file_of("added_tokens.json", "{\"<pad>\": 513}")};
    struct err err = {0};
    struct ckpt_info info = model_of(514, file, 2);
    char before[TOKENIZER_HASH_ROOM], after[TOKENIZER_HASH_ROOM];
    assert_int_equal(ckpt_tokenizer_hash(&info, before, sizeof before, &err), 0);
    assert_int_equal(add_tokens(&info, "<a>,<b>", "x", &err), 2);
    assert_int_equal(info.shape.vocab, 516);
    printf("%s\n", text_of(&info, "added_tokens.json"));
    struct tokenizer *t = tokenizer_of_files(&info, "x", &err);
    assert_non_null(t);
    static const char *const expect[] = {"<unused_512>", "<pad>", "<a>", "<b>"};
    for (int i = 0; i < 4; i++)
        assert_string_equal(tokenizer_piece(t, PIECES + i), expect[i]);
    assert_int_equal(tokenizer_vocab(t), 516);
    assert_int_equal(ckpt_tokenizer_hash(&info, after, sizeof after, &err), 0);
    assert_string_not_equal(before, after);
    tokenizer_hash(t, before, sizeof before);
    assert_string_equal(before, after);
    /* each file lists all of them */
    assert_non_null(strstr(text_of(&info, "added_tokens.json"), "\"<b>\": 515"));
    assert_non_null(strstr(text_of(&info, "tokenizer_config.json"), "\"513\": {"));
    assert_non_null(strstr(text_of(&info, "tokenizer.json"), "\"id\": 514"));
    assert_non_null(strstr(text_of(&info, "tokenizer.json"), "\"content\": \"<s>\""));
    assert_non_null(strstr(text_of(&info, "tokenizer.json"), "\"score\": -0.1"));
    tokenizer_destroy(t);
    ckpt_info_fini(&info);
}

static void refuses_what_cannot_be_added(void **state)
{
    (void)state;
    static const struct {
        int vocab;
        const char *map, *list, *says;
        enum err_code code;
    } rows[] = {
        {512, "{}", "</s>", "expected a new one, but the tokenizer of x has it as id 2",
         ERR_USAGE},
        {513, "{\"<a>\": 512}", "<b>,<a>", "has it as id 512", ERR_USAGE},
        {512, "{}", "<b>,er", "has it as id ", ERR_USAGE},
        {512, "{\"<pad>\": 512}", "<a>", "lists \"<pad>\" as id 512, for which the model",
         ERR_USAGE},
        {512, "{\"<pad>\": 600}", "<a>", "lists \"<pad>\" as id 600", ERR_USAGE},
        {512, "{", "<a>", "added_tokens.json: not valid JSON", ERR_INPUT},
        {512, "{\"<pad>\": 512}", "<pad>,<a>", NULL, ERR_NONE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct ckpt_file file = file_of("added_tokens.json", rows[i].map);
        struct ckpt_info info = model_of(rows[i].vocab, &file, 1);
        struct err err = {0};
        int n = add_tokens(&info, rows[i].list, "x", &err);
        printf("%d %s\n", n, err.text);
        assert_int_equal(n, rows[i].says ? -1 : 2);
        assert_int_equal(err.code, rows[i].code);
        if (rows[i].says)
            assert_non_null(strstr(err.text, rows[i].says));
        ckpt_info_fini(&info);
    }
    struct ckpt_info none = {.shape = {.vocab = 5}};
    struct err err = {0};
    assert_int_equal(add_tokens(&none, "a", "x", &err), -1);
    assert_non_null(strstr(err.text, "x: the checkpoint has no tokenizer.model"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_hugging_face_lists),
        cmocka_unit_test(refuses_broken_files),
        cmocka_unit_test(parses_lists),
        cmocka_unit_test(adds_and_reads_back),
        cmocka_unit_test(refuses_what_cannot_be_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
