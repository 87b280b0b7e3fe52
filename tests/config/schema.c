/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/config/run.h"

static char *shipped(const char *name)
{
    struct err err = {0};
    const char *srcdir = getenv("srcdir");
    char *path = file_join(srcdir ? srcdir : ".", name, &err);
    size_t bytes;
    char *text = file_read(path, 1 << 20, &bytes, &err);
    if (!text)
        fail_msg("%s", err.text);
    free(path);
    return text;
}

static void every_key_is_complete_and_unique(void **state)
{
    (void)state;
    int keys = 0;
    for (const struct key *k = schema_keys; k->path; k++, keys++) {
        int sections = 0;
        for (const struct section *s = schema_sections; s->path; s++)
            sections += schema_leaf(k, s->path) != NULL;
        print_message("%s\n", k->path);
        assert_int_equal(sections, 1);
        assert_ptr_equal(schema_find(k->path), k);
        assert_null(schema_find_section(k->path));
        assert_true(strlen(k->help) > 5 && !strchr(k->help, '\n'));
        assert_true(k->missing || k->example);
        assert_true((k->type == KEY_CHOICE || k->type == KEY_PIPE) == (k->choices != NULL));
        bool number = k->type == KEY_INT || k->type == KEY_I64 || k->type == KEY_DOUBLE;
        assert_true(!number || k->min < k->max);
        /* 0 stands for null, so it must not be a value of such a key */
        if (k->missing && !strcmp(k->missing, "null") && number)
            assert_true(k->min > 0 || (k->type == KEY_DOUBLE && k->above_min));
    }
    assert_true(keys > 40);
    assert_null(schema_find("optim"));
    assert_null(schema_find("optim.l"));
    assert_null(schema_find_section("optim.lr"));
}

static void the_reference_file_is_the_schema(void **state)
{
    (void)state;
    struct err err = {0};
    char *file = shipped("configs/reference.yaml"), *made = schema_reference(&err);
    /* on a difference: dusk check --reference > configs/reference.yaml */
    assert_string_equal(file, made);
    for (const struct key *k = schema_keys; k->path; k++) {
        char line[128];
        snprintf(line, sizeof line, " %s: ", strrchr(k->path, '.') + 1);
        assert_non_null(strstr(file, line));
    }
    struct run r;
    if (run_parse(&r, "configs/reference.yaml", file, &err))
        fail_msg("%s", err.text);
    run_fini(&r);
    for (char *line = strtok(file, "\n"); line; line = strtok(NULL, "\n"))
        if (strlen(line) > 88)
            fail_msg("longer than 88 columns: %s", line);
    free(file);
    free(made);
}

/* The commented keys of the reference file too, each as its example says. */
static void every_example_is_accepted(void **state)
{
    (void)state;
    struct err err = {0};
    static const enum key_when kinds[] = {WHEN_RANDOM, WHEN_WSD};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char *text = NULL;
        size_t bytes;
        FILE *out = open_memstream(&text, &bytes);
        for (const struct section *s = schema_sections; s->path; s++) {
            bool inner = strchr(s->path, '.') != NULL;
            fprintf(out, "%s%s:\n", inner ? "  " : "",
                    inner ? strchr(s->path, '.') + 1 : s->path);
            for (const struct key *k = schema_keys; k->path; k++) {
                const char *leaf = schema_leaf(k, s->path);
                const char *value = k->example ? k->example : k->missing;
                if (kinds[i] == WHEN_RANDOM && !strcmp(k->path, "model.init"))
                    value = "random";
                if (kinds[i] == WHEN_WSD && !strcmp(k->path, "optim.schedule"))
                    value = "wsd";
                bool other = k->when != WHEN_ALWAYS && k->when != kinds[i];
                if (other && !(k->when == WHEN_CHECKPOINT && kinds[i] == WHEN_WSD))
                    continue;
                if (leaf)
                    fprintf(out, "%s%s: %s\n", inner ? "    " : "  ", leaf, value);
            }
        }
        fclose(out);
        struct run r;
        if (run_parse(&r, "examples", text, &err))
            fail_msg("%s\n%s", err.text, text);
        run_fini(&r);
        free(text);
    }
}

static void shipped_run_files_are_accepted(void **state)
{
    (void)state;
    static const char *const names[] = {"configs/solar-10.7b-pretrain.yaml",
                                        "configs/quickstart/pretrain.yaml"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct err err = {0};
        struct run r;
        char *text = shipped(names[i]);
        if (run_parse(&r, names[i], text, &err))
            fail_msg("%s", err.text);
        print_message("%s: %lld steps\n", names[i], (long long)run_steps(&r, 0));
        run_fini(&r);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_is_complete_and_unique),
        cmocka_unit_test(the_reference_file_is_the_schema),
        cmocka_unit_test(every_example_is_accepted),
        cmocka_unit_test(shipped_run_files_are_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
