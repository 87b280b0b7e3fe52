/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/config/path.h"

static struct tree_node *parse(const char *text, struct err *err)
{
    return tree_parse("f.yaml", true, text, strlen(text), err);
}

static void nodes_know_their_places(void **state)
{
    (void)state;
    static const char text[] = "# a comment\n"
                               "a:\n"
                               "  b: 12\n"
                               "  \xc3\xa4\xc3\xb6: [x, \"y\"]   # two letters\n"
                               "c: {d: ~}\n";
    static const struct {
        const char *path, *text;
        int line, column;
    } rows[] = {
        {"a.b", "12", 3, 6},
        {"a.\xc3\xa4\xc3\xb6", NULL, 4, 7},
        {"c", NULL, 5, 4},
        {"c.d", "~", 5, 8},
    };
    struct err err = {0};
    struct tree_node *root = parse(text, &err);
    assert_non_null(root);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tree_node *node = path_find(root, rows[i].path);
        assert_non_null(node);
        print_message("%s at %d:%d\n", rows[i].path, node->at.line, node->at.column);
        assert_int_equal(node->at.line, rows[i].line);
        assert_int_equal(node->at.column, rows[i].column);
        if (rows[i].text)
            assert_string_equal(node->text, rows[i].text);
    }
    assert_null(path_find(root, "a.x"));
    assert_null(path_find(root, "a.b.c"));
    struct tree_node *list = path_find(root, "a.\xc3\xa4\xc3\xb6");
    assert_true(list->first->plain && !list->first->next->plain);
    assert_true(tree_is_null(path_find(root, "c.d")));
    assert_int_equal(path_place(root, "a.missing").line, 2); /* the section's key */
    assert_int_equal(path_place(root, "z").line, 2);         /* the document's start */
    tree_free(root);
}

static void what_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *said;
    } rows[] = {
        {"a: 1\nb: 2\na: 3\n", "f.yaml:3:1: key \"a\" is given twice, first at "
                               "f.yaml:1:1"},
        {"a: {b: 1, b: 2}\n", "f.yaml:1:11: key \"b\" is given twice"},
        {"a: &x 1\nb: *x\n", "f.yaml:1:4: anchors and aliases are not read here"},
        {"a: *x\n", "f.yaml:1:4: "},
        {"a: &x [*x]\n", "f.yaml:1:4: anchors"},
        {"a: !!int 1\n", "f.yaml:1:4: tags are not read here"},
        {"a: !!map {b: 1}\n", "f.yaml:1:4: tags"},
        {"a: 1\n---\nb: 2\n", "f.yaml:2:1: expected one document, found another"},
        {"? [a, b]\n: 1\n", "f.yaml:1:3: expected a key, found a list"},
        {"a: [[[[[[[[[1]]]]]]]]]\n", "more than 8 levels"},
        {"a: [1, 2\nb: 3\n", "f.yaml:2:"},
        {"a: 1\n\tb: 2\n", "f.yaml:2:1: not YAML"},
        {"a:\n\tb: 2\n", "a tab; indent with spaces"},
        {"a: 'b\n", "f.yaml:"},
        {"a: \"\\q\"\n", "f.yaml:1:"},
        {"a: b: c\n", "f.yaml:1:5: not YAML"},
        {"a: \xff\n", "f.yaml:1:4: not YAML in UTF-8"},
        {"a: 1\nbcd \xc3(: 2\n", "f.yaml:2:6: not YAML in UTF-8"},
        {"a: \x01\n", "f.yaml:1:4: "},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct tree_node *root = parse(rows[i].text, &err);
        print_message("%s\n", err.text);
        assert_null(root);
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(strstr(err.text, rows[i].said));
        assert_null(strchr(err.text, '\n'));
    }
}

static void limits_hold(void **state)
{
    (void)state;
    enum { BYTES = (1 << 20) + 1 };
    char *text = malloc(BYTES + 1);
    struct err err = {0};
    assert_non_null(text);
    memset(text, '[', BYTES);
    text[BYTES] = '\0';
    assert_null(tree_parse("f.yaml", true, text, BYTES, &err));
    print_message("%s\n", err.text);
    assert_non_null(strstr(err.text, "at most 1048576 bytes"));
    assert_null(tree_parse("f.yaml", true, text, BYTES - 1, &err));
    assert_non_null(strstr(err.text, "more than 8 levels"));
    memset(text, '{', BYTES - 1);
    assert_null(tree_parse("f.yaml", true, text, BYTES - 1, &err));
    for (int i = 0; i < BYTES - 1; i++)
        text[i] = i == 0 ? '[' : i % 2 ? '1' : ',';
    assert_null(tree_parse("f.yaml", true, text, BYTES - 1, &err));
    print_message("%s\n", err.text);
    assert_non_null(strstr(err.text, "more than 10000 values"));
    memset(text, 'x', BYTES - 1); /* one long scalar is a value like any other */
    struct tree_node *root = tree_parse("f.yaml", true, text, BYTES - 1, &err);
    assert_non_null(root);
    char shown[TREE_SHOWN];
    assert_int_equal(strlen(tree_found(root, shown)), 63);
    tree_free(root);
    free(text);
}

static void nothing_is_null(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool null;
    } rows[] = {{"", true},       {"# only a comment\n", true},
                {"~", true},      {"null", true},
                {"---\n", true},  {"'null'", false},
                {"\"~\"", false}, {"''", false},
                {"0", false},     {"[]", false},
                {"{}", false},    {"nil", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct tree_node *root = parse(rows[i].text, &err);
        assert_non_null(root);
        assert_true(tree_is_null(root) == rows[i].null);
        tree_free(root);
    }
}

static void values_are_put_and_replaced(void **state)
{
    (void)state;
    struct err err = {0};
    struct tree_node *root = parse("a: {b: 1, c: 2, d: 3}\n", &err);
    static const struct {
        const char *path, *value;
    } rows[] = {{"a.c", "20"}, {"e.f.g", "x"}, {"a.c", "21"}, {"e.f.h", "y"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tree_node *value = parse(rows[i].value, &err);
        assert_int_equal(path_put(root, rows[i].path, value, &err), 0);
        assert_string_equal(path_find(root, rows[i].path)->text, rows[i].value);
    }
    assert_string_equal(path_find(root, "a.b")->text, "1");
    assert_string_equal(path_find(root, "a.d")->text, "3");
    assert_string_equal(path_find(root, "e.f.g")->text, "x");
    tree_free(root);
    root = parse("", &err);
    assert_int_equal(path_put(root, "a.b", parse("1", &err), &err), 0);
    assert_string_equal(path_find(root, "a.b")->text, "1");
    tree_free(root);
}

static void what_was_found_fits_a_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *found;
    } rows[] = {
        {"12x", "12x"},
        {"\"12\"", "the text \"12\""},
        {"[1, 2]", "a list of 2"},
        {"[]", "an empty list"},
        {"{a: 1}", "a map"},
        {"~", "nothing"},
        {"\"a\\nb\\ec\"", "the text \"a?b?c\""},
        {"\"0123456789012345678901234567890123456789012345678901234567890123\"",
         "the text "
         "\"012345678901234567890123456789012345678901234567890123456789...\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        char shown[TREE_SHOWN];
        struct tree_node *root = parse(rows[i].text, &err);
        assert_string_equal(tree_found(root, shown), rows[i].found);
        tree_free(root);
    }
    struct err err = {0};
    struct tree_place at = {.source = "--set a.b"};
    tree_error(&err, at, "a.b: expected 1");
    assert_string_equal(err.text, "--set a.b: expected 1");
    tree_error(&err, at, "train.b: expected 1");
    assert_string_equal(err.text, "--set a.b: train.b: expected 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_know_their_places),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(nothing_is_null),
        cmocka_unit_test(values_are_put_and_replaced),
        cmocka_unit_test(what_was_found_fits_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
