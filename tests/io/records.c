/* SPDX-License-Identifier: Apache-2.0 */
#include "io/records.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* "s:...|u:text+input|a:...": the messages, "/" behind the prompt of a pair. */
static void put_messages(char *to, size_t size, const struct message *m, int n,
                         int prompt)
{
    size_t used = strlen(to);
    for (int i = 0; i < n; i++)
        used += (size_t)snprintf(to + used, size - used, "%s%c:%.*s%s%.*s",
                                 i == 0        ? ""
                                 : i == prompt ? "/"
                                               : "|",
                                 message_role_name(m[i].role)[0], (int)m[i].bytes,
                                 m[i].text, m[i].input_bytes ? "+" : "",
                                 (int)m[i].input_bytes, m[i].input);
}

/* Which shape, "raw" for strings, the messages, ">" and those of the rejected end. */
static void summarise(const struct record *r, char *to, size_t size)
{
    snprintf(to, size, "%s%s ", record_shape_name(r->shape), r->strings ? " raw" : "");
    put_messages(to, size, r->message, r->messages, r->prompt);
    if (r->shape != RECORD_PAIRS)
        return;
    size_t used = strlen(to);
    snprintf(to + used, size - used, " > ");
    put_messages(to, size, r->rejected, r->rejected_n, r->prompt);
}

static int parse(const char *renames, const char *line, size_t bytes, char *to,
                 size_t size, struct err *err)
{
    struct record_map map;
    struct record r;
    enum record_shape shape;
    record_map_init(&map);
    if (renames)
        assert_int_equal(record_map_parse(&map, renames, err), 0);
    struct records *p = records_create(&map, err);
    assert_non_null(p);
    int failed = records_recognise(p, line, bytes, &shape, err) ||
                 records_parse(p, shape, line, bytes, &r, err);
    if (!failed)
        summarise(&r, to, size);
    records_destroy(p);
    return failed;
}

static void reads_every_shape(void **state)
{
    (void)state;
    static const struct {
        const char *map, *line, *expect;
    } rows[] = {
        {NULL,
         "{\"messages\": [{\"role\": \"system\", \"content\": \"x\"}, {\"role\": "
         "\"user\", \"content\": \"q\", \"name\": 3}, {\"role\": \"assistant\", "
         "\"content\": \"\"}]}",
         "messages s:x|u:q|a:"},
        {NULL,
         "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": "
         "\"gpt\", \"value\": \"a\"}, {\"from\": \"human\", \"value\": \"r\"}]}",
         "sharegpt u:q|a:a|u:r"},
        {NULL, "{\"instruction\": \"i\", \"input\": \"x\", \"output\": \"o\"}",
         "alpaca u:i+x|a:o"},
        {NULL, "{\"instruction\": \"i\", \"input\": \"\", \"output\": \"o\"}",
         "alpaca u:i|a:o"},
        {NULL, "{\"instruction\": \"i\", \"input\": null, \"output\": \"o\"}",
         "alpaca u:i|a:o"},
        {NULL, "{\"prompt\": \"p\", \"completion\": \"\\u00e9\"}",
         "completion raw u:p|a:\xc3\xa9"},
        {NULL, "{\"system_prompt\": \"s\", \"question\": \"q\", \"response\": \"r\"}",
         "openorca s:s|u:q|a:r"},
        {NULL,
         "{\"id\": 1, \"system_prompt\": \"\", \"question\": \"q\", \"response\": "
         "\"r\"}",
         "openorca u:q|a:r"},
        {NULL, "{\"text\": \"t\"}", "text raw u:t"},
        {"prompt=question,completion=answer",
         "{\"question\": \"q\", \"answer\": \"a\"}", "completion raw u:q|a:a"},
        {"content=text,role=who",
         "{\"messages\": [{\"who\": \"user\", \"text\": \"q\"}, {\"who\": "
         "\"assistant\", \"text\": \"a\"}]}",
         "messages u:q|a:a"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        char found[256] = "";
        if (parse(rows[i].map, rows[i].line, strlen(rows[i].line), found, sizeof found,
                  &err))
            print_error("%s\n", err.text);
        assert_string_equal(found, rows[i].expect);
    }
}

static void reads_pairs(void **state)
{
    (void)state;
    static const struct {
        const char *map, *line, *expect;
    } rows[] = {
        {NULL, "{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"r\"}",
         "pairs raw u:p/a:c > u:p/a:r"},
        {NULL,
         "{\"system\": \"s\", \"question\": \"p\", \"chosen\": \"c\", \"rejected\": "
         "\"r\"}",
         "pairs raw s:s|u:p/a:c > s:s|u:p/a:r"},
        {"chosen=good,rejected=bad,prompt=q",
         "{\"q\": \"p\", \"good\": \"c\", \"bad\": \"r\", \"prompt\": \"no\"}",
         "pairs raw u:p/a:c > u:p/a:r"},
        {NULL, /* wins over messages */
         "{\"messages\": 3, \"system\": \"\", \"prompt\": \"p\", \"chosen\": \"c\", "
         "\"rejected\": \"r\"}",
         "pairs raw u:p/a:c > u:p/a:r"},
        {NULL,
         "{\"prompt\": [{\"role\": \"user\", \"content\": \"p\"}], \"chosen\": "
         "[{\"role\": \"assistant\", \"content\": \"c\"}], \"rejected\": [{\"role\": "
         "\"assistant\", \"content\": \"r\"}]}",
         "pairs u:p/a:c > u:p/a:r"},
        {NULL,
         "{\"prompt\": [{\"role\": \"user\", \"content\": \"p\"}], \"chosen\": \"c\", "
         "\"rejected\": \"r\"}",
         "pairs u:p/a:c > u:p/a:r"},
        {NULL, /* Ultrafeedback's: the prompt is also a field */
         "{\"prompt\": \"p\", \"chosen\": [{\"role\": \"user\", \"content\": \"p\"}, "
         "{\"role\": \"assistant\", \"content\": \"c\"}], \"rejected\": [{\"role\": "
         "\"user\", \"content\": \"p\"}, {\"role\": \"assistant\", \"content\": "
         "\"r\"}]}",
         "pairs u:p/a:c > u:p/a:r"},
        {NULL, /* a common reply is prompt; the ends may have different lengths */
         "{\"system\": \"s\", \"chosen\": [{\"role\": \"user\", \"content\": \"p\"}, "
         "{\"role\": \"assistant\", \"content\": \"a\"}, {\"role\": \"user\", "
         "\"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"c\"}], "
         "\"rejected\": [{\"role\": \"user\", \"content\": \"p\"}, {\"role\": "
         "\"assistant\", \"content\": \"a\"}, {\"role\": \"user\", \"content\": "
         "\"q\"}, {\"role\": \"assistant\", \"content\": \"r\"}, {\"role\": \"user\", "
         "\"content\": \"no\"}]}",
         "pairs s:s|u:p|a:a|u:q/a:c > s:s|u:p|a:a|u:q/a:r|u:no"},
        {NULL, /* equal ends keep their last message */
         "{\"chosen\": [{\"from\": \"human\", \"value\": \"p\"}, {\"from\": \"gpt\", "
         "\"value\": \"c\"}], \"rejected\": [{\"from\": \"human\", \"value\": \"p\"}, "
         "{\"from\": \"gpt\", \"value\": \"c\"}]}",
         "pairs u:p/a:c > u:p/a:c"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        char found[256] = "";
        if (parse(rows[i].map, rows[i].line, strlen(rows[i].line), found, sizeof found,
                  &err))
            print_error("%s\n", err.text);
        assert_string_equal(found, rows[i].expect);
    }
}

static void expect_refusal(const char *line, size_t bytes, const char *says)
{
    struct err err = {0};
    char found[256];
    assert_int_equal(parse(NULL, line, bytes, found, sizeof found, &err), 1);
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    if (!strstr(err.text, says))
        print_error("expected it to say: %s\n", says);
    assert_non_null(strstr(err.text, says));
    assert_null(strchr(err.text, '\n'));
}

#define MESSAGES(list) "{\"messages\": [" list "]}"
#define USER "{\"role\": \"user\", \"content\": \"q\"}"
#define SYSTEM "{\"role\": \"system\", \"content\": \"s\"}"
#define REPLY "{\"role\": \"assistant\", \"content\": \"a\"}"

#define PAIR(chosen, rejected)                                                         \
    "{\"chosen\": [" chosen "], \"rejected\": [" rejected "], \"system\": \"s\"}"

static void refuses_bad_json(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } rows[] = {
        {"", "found bad JSON: column 0"},
        {"{\"text\": \"a\"", "found bad JSON: column 12"},
        {"{\"text\": \"a\"} {}", "found bad JSON"},
        {"[1]", "expected a JSON object, found a list"},
        {"3", "expected a JSON object, found 3"},
        {"{\"text\": \"a\", \"text\": \"b\"}", "found a key that is there twice"},
        {"{\"messages\": [{\"role\": \"user\", \"role\": \"user\"}]}",
         "found a key that is there twice"},
        {"{\"text\": \"a\\u0000b\"}", "found a NUL in a string"},
        {"{\"a\\u0000b\": \"\"}", "found a NUL in a string"},
        {"{\"text\": \"a\xff\"}", "found invalid UTF-8"},
        {"{\"text\": \"\xed\xa0\x80\"}", "found invalid UTF-8"},
        {"{\"text\": \"\xc0\xaf\"}", "found invalid UTF-8"},
        {"{\"text\": \"\\ud800\"}", "found bad JSON"},
        {"{}", "expected the fields of a known shape"},
        {"{\"chosen\": \"a\", \"instruction\": \"b\"}",
         "found \"chosen\", \"instruction\"; --map renames fields"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_refusal(rows[i].line, strlen(rows[i].line), rows[i].says);
    expect_refusal("{\"text\":\0\"a\"}", 13, "found a NUL as byte 9");
}

static void refuses_a_cut_at_every_byte(void **state)
{
    (void)state;
    static const char line[] = PAIR(USER ", " REPLY, USER ", " REPLY);
    for (size_t n = 0; n + 1 < sizeof line; n++) {
        struct err err = {0};
        char found[256] = "";
        char *cut = malloc(n ? n : 1); /* so that a read behind its end shows */
        assert_non_null(cut);
        memcpy(cut, line, n);
        assert_int_equal(parse(NULL, cut, n, found, sizeof found, &err), 1);
        assert_int_equal(err.code, ERR_INPUT);
        free(cut);
    }
}

static void refuses_long_and_deep_lines(void **state)
{
    (void)state;
    size_t room = (size_t)RECORD_LINE_BYTES + 1;
    char *line = malloc(room);
    assert_non_null(line);
    memset(line, 'x', room);
    memcpy(line, "{\"text\": \"", 10);
    memcpy(line + room - 2, "\"}", 2);
    expect_refusal(line, room, "at most 16 MiB, found 16777217 bytes");
    memset(line, '[', 100000);
    expect_refusal(line, 100000, "found too deep a nesting");
    for (size_t i = 0; i < 600003; i += 3)
        memcpy(line + i, "[],", 3);
    expect_refusal(line, 600003, "at most 200000 objects and lists in a line, found");
    free(line);
}

static void takes_a_line_of_16_mib(void **state)
{
    (void)state;
    size_t room = RECORD_LINE_BYTES;
    char *line = malloc(room);
    struct err err = {0};
    struct record r;
    assert_non_null(line);
    memset(line, 'x', room);
    memcpy(line, "{\"text\": \"", 10);
    memcpy(line + room - 2, "\"}", 2);
    struct records *p = records_create(NULL, &err);
    assert_int_equal(records_parse(p, RECORD_TEXT, line, room, &r, &err), 0);
    assert_int_equal(r.message[0].bytes, room - 12);
    records_destroy(p);
    free(line);
}

static void refuses_bad_messages(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } rows[] = {
        {"{\"messages\": \"x\"}",
         "\"messages\": expected a list of messages, found the"},
        {"{\"messages\": []}", "\"messages\": expected messages, found none"},
        {MESSAGES(USER ", 3"), "\"messages\": message 2: expected an object, found 3"},
        {MESSAGES("{\"content\": \"x\"}"),
         "message 1: expected a \"role\" or \"from\", found neither"},
        {MESSAGES(USER ", {\"role\": \"tool\", \"content\": \"x\"}"),
         "message 2: field \"role\": expected \"system\", \"user\" or \"assistant\", "
         "found the string \"tool\""},
        {MESSAGES("{\"role\": \"\", \"content\": \"x\"}"), "found the string \"\""},
        {MESSAGES("{\"role\": \"human\", \"content\": \"x\"}"),
         "found the string \"human\""},
        {MESSAGES("{\"role\": 1, \"content\": \"x\"}"), "found 1"},
        {MESSAGES("{\"role\": \"user\"}"),
         "message 1: expected a \"content\" beside the \"role\", found none"},
        {MESSAGES("{\"role\": \"user\", \"content\": [\"x\"]}"),
         "field \"content\": expected a string, found a list"},
        {MESSAGES(SYSTEM ", " USER ", " SYSTEM ", " REPLY),
         "expected at most one system message, found a second one"},
        {MESSAGES(USER ", " SYSTEM ", " REPLY),
         "expected the system message to be the first, found it as number 2"},
        {MESSAGES(SYSTEM ", " USER), "expected an assistant message, found none"},
        {"{\"conversations\": [{\"from\": \"alien\", \"value\": \"x\"}]}",
         "field \"from\": expected \"system\", \"human\" or \"gpt\", found the string"},
        {"{\"prompt\": 1, \"completion\": \"x\"}",
         "field \"prompt\": expected a string, found 1"},
        {"{\"instruction\": \"i\", \"output\": \"x\", \"input\": 1}",
         "field \"input\": expected a string, found 1"},
        {"{\"question\": \"i\", \"response\": \"x\", \"system_prompt\": []}",
         "field \"system_prompt\": expected a string, found a list"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_refusal(rows[i].line, strlen(rows[i].line), rows[i].says);
}

static void refuses_bad_pairs(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } rows[] = {
        {"{\"chosen\": \"a\", \"rejected\": \"b\"}",
         "a pair of replies: expected a field \"prompt\", found \"chosen\", "},
        {"{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": []}",
         "two strings or two lists, found one of each"},
        {"{\"prompt\": \"p\", \"chosen\": 1, \"rejected\": 2}",
         "field \"chosen\": expected a list of messages, found 1"},
        {"{\"prompt\": 1, \"chosen\": \"a\", \"rejected\": \"b\"}",
         "field \"prompt\": expected a list of messages, found 1"},
        {"{\"prompt\": \"p\", \"system\": 1, \"chosen\": \"a\", \"rejected\": \"b\"}",
         "field \"system\": expected a string, found 1"},
        {PAIR(USER ", " REPLY, REPLY), "part at message 2: expected an assistant's in "
                                       "both, found user and assistant"},
        {PAIR(SYSTEM ", " USER ", " REPLY, SYSTEM ", " USER ", " REPLY),
         "with \"chosen\": expected at most one system message, found a second one"},
        {PAIR(USER ", " USER, USER ", " REPLY),
         "expected an assistant's in both, found user and assistant"},
        {PAIR(USER ", " REPLY, USER), "found user and user"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_refusal(rows[i].line, strlen(rows[i].line), rows[i].says);
}

/* A shape that was recognised in the first line is expected in the others. */
static void holds_lines_to_the_shape(void **state)
{
    (void)state;
    static const struct {
        enum record_shape shape;
        const char *line, *says;
    } rows[] = {
        {RECORD_MESSAGES, "{\"text\": \"a\"}", "expected a field \"messages\", found"},
        {RECORD_SHAREGPT, "{}", "expected a field \"conversations\", found no keys"},
        {RECORD_ALPACA, "{\"instruction\": \"a\"}", "expected a field \"output\""},
        {RECORD_COMPLETION, "{\"completion\": \"a\"}", "expected a field \"prompt\""},
        {RECORD_OPENORCA, "{\"question\": null}",
         "expected a field \"question\", found null"},
        {RECORD_TEXT, "{\"prompt\": \"a\"}", "expected a field \"text\", found \"prom"},
        {RECORD_PAIRS, "{\"prompt\": \"a\", \"chosen\": \"b\"}",
         "expected a field \"rejected\", found \"prompt\", \"chosen\""},
    };
    struct err err = {0};
    struct record r;
    struct records *p = records_create(NULL, &err);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(records_parse(p, rows[i].shape, rows[i].line,
                                       strlen(rows[i].line), &r, &err),
                         -1);
        printf("%s\n", err.text);
        assert_non_null(strstr(err.text, rows[i].says));
        assert_int_equal(err.code, ERR_INPUT);
    }
    records_destroy(p);
}

static void refuses_bad_renames(void **state)
{
    (void)state;
    static const struct {
        const char *renames, *says;
    } rows[] = {
        {"", "expected field=key,..., as in prompt=question, found \"\""},
        {"prompt", "found \"prompt\""},
        {"prompt=", "found \"prompt=\""},
        {"=a", "found \"=a\""},
        {"prompt=a,", "found \"\""},
        {"promt=a", "found \"promt\"; did you mean prompt?"},
        {"zzzzzz=a", "found \"zzzzzz\""},
        {"prompt=a,prompt=b", "field \"prompt\" is named twice"},
        {"prompt=01234567890123456789012345678901234567890123456789012345678901234",
         "names of at most 63 bytes"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct record_map map;
        record_map_init(&map);
        assert_int_equal(record_map_parse(&map, rows[i].renames, &err), -1);
        printf("%s\n", err.text);
        assert_non_null(strstr(err.text, rows[i].says));
        assert_int_equal(err.code, ERR_USAGE);
        assert_string_equal(map.key[FIELD_PROMPT], "prompt");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_shape),
        cmocka_unit_test(reads_pairs),
        cmocka_unit_test(refuses_bad_json),
        cmocka_unit_test(refuses_a_cut_at_every_byte),
        cmocka_unit_test(refuses_long_and_deep_lines),
        cmocka_unit_test(takes_a_line_of_16_mib),
        cmocka_unit_test(refuses_bad_messages),
        cmocka_unit_test(refuses_bad_pairs),
        cmocka_unit_test(holds_lines_to_the_shape),
        cmocka_unit_test(refuses_bad_renames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
