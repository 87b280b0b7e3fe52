/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/verb.h"

#include "io/reference.h"
#include "src/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* What dusk inspect says of files that no verb makes by itself. */

extern const struct verb verb_inspect;

static char folder[256], path[300], out_path[300];

static void make_reference(void)
{
    const struct reference_key k = {.weights = "0123456789abcdef 0:3,1:4",
                                    .data = "fedcba9876543210",
                                    .template_hash = "0011223344556677",
                                    .precision = "bf16",
                                    .pairs = 3};
    static const double sums[6] = {-1, -2, -3, -4, -5, -6};
    double known[6];
    int64_t done;
    struct err err = {0};
    struct reference_writer *w = reference_begin(path, &k, known, &done, &err);
    if (!w || reference_append(w, 3, sums, &err) < 0 || reference_commit(&w, &err) < 0)
        fail_msg("%s", err.text);
}

/* Runs the verb with an option, or NULL, and returns its output, owned (free). */
static char *inspect(const char *option, int want_code)
{
    char *argv[] = {(char *)(uintptr_t) "inspect", path, (char *)(uintptr_t)option,
                    NULL};
    struct err err = {0};
    size_t bytes;
    fflush(stdout);
    int terminal = dup(STDOUT_FILENO);
    assert_non_null(freopen(out_path, "w", stdout));
    int code = verb_inspect.run(option ? 3 : 2, argv, comm_self(), NULL);
    fflush(stdout);
    dup2(terminal, STDOUT_FILENO);
    close(terminal);
    char *text = file_read(out_path, 1 << 20, &bytes, &err);
    assert_non_null(text);
    printf("%s", text);
    assert_int_equal(code, want_code);
    return text;
}

static void assert_says(const char *text, const char *const *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strstr(text, want[i]))
            fail_msg("no \"%s\" in it", want[i]);
}

static void reference_has_its_fields(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "kind                     dusk reference",
        "pairs                    3",
        "weights                  0123456789abcdef 0:3,1:4",
        "data                     fedcba9876543210",
        "template_hash            0011223344556677",
        "precision                bf16",
        "/log_probabilities",
        "[3, 2]",
        "verified: every block matches its checksum",
    };
    static const char *const json[] = {
        "\"kind\": \"dusk reference\"",
        "\"pairs\": 3, \"weights\": \"0123456789abcdef 0:3,1:4\", \"data\": "
        "\"fedcba9876543210\", \"template_hash\": \"0011223344556677\", "
        "\"precision\": \"bf16\"",
        "\"units\": \"nats\"",
        "\"columns\": \"chosen, rejected\"",
        "{\"name\": \"/log_probabilities\", \"dtype\": \"F64\", \"shape\": [3, 2], "
        "\"elements\": 6, \"bytes\": 48}",
        "\"damaged_blocks\": 0"};
    make_reference();
    char *text = inspect("--verify", 0);
    assert_says(text, lines, sizeof lines / sizeof *lines);
    free(text);
    text = inspect("--json", 0);
    assert_says(text, json, sizeof json / sizeof *json);
    free(text);
}

/* A file that says it is a reference, with nothing of one in it. */
static void reference_without_a_key_is_refused(void **state)
{
    (void)state;
    static const struct sealed_attr format = {
        .group = "/", .name = "format", .kind = SEALED_STRING, .s = "dusk reference"};
    static const struct sealed_array array = {
        .path = "/log_probabilities", .type = SEALED_F64, .dims = 2, .dim = {1, 2}};
    static const double sums[2];
    struct err err = {0};
    struct sealed_writer *w =
        sealed_create(comm_self(), path, true, &array, 1, &format, 1, &err);
    assert_non_null(w);
    assert_int_equal(sealed_write(w, 0, 0, 0, sums, sizeof sums, &err), 0);
    assert_int_equal(sealed_commit(w, &err), 0);
    char *text = inspect(NULL, ERR_INPUT);
    assert_string_equal(text, "");
    free(text);
}

static int make_folder(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/dusk-inspect-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/a.h5", folder);
    snprintf(out_path, sizeof out_path, "%s/out", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    struct err err;
    return file_remove_tree(folder, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_has_its_fields),
        cmocka_unit_test(reference_without_a_key_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
