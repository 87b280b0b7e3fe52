/* SPDX-License-Identifier: Apache-2.0 */
#include "io/text_chunks.h"

#include "src/base/rng.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char path[512];

static int make_folder(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/dusk-chunks-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(path))
        return -1;
    strcat(path, "/text");
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    *strrchr(path, '/') = '\0';
    return rmdir(path);
}

static void write_text(const char *text, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, bytes, f), bytes);
    fclose(f);
}

/* All documents of the file, each in brackets, read chunk by chunk. */
static char *read_chunked(enum text_rule rule, int64_t bytes, int64_t chunk_bytes)
{
    struct err err = {0};
    struct text_chunk *chunk = NULL;
    int64_t chunks = 0;
    char *all = calloc(1, (size_t)(4 * bytes + 4));
    size_t used = 0;
    assert_int_equal(
        text_chunks_append(&chunk, &chunks, 0, bytes, rule, chunk_bytes, &err), 0);
    for (int64_t i = 0; i < chunks; i++) {
        assert_int_equal(chunk[i].begin, i ? chunk[i - 1].end : 0);
        struct text_document d;
        struct text_reader *r =
            text_reader_open(path, bytes, rule, chunk[i].begin, chunk[i].end, &err);
        assert_non_null(r);
        int more;
        while ((more = text_reader_next(r, &d, &err)) > 0) {
            assert_true(d.bytes > 0);
            all[used++] = '[';
            memcpy(all + used, d.text, d.bytes);
            used += d.bytes;
            all[used++] = ']';
        }
        assert_int_equal(more, 0);
        text_reader_close(r);
    }
    assert_true(chunks == 0 || chunk[chunks - 1].end == bytes);
    free(chunk);
    return all;
}

static void cuts_text_into_documents(void **state)
{
    (void)state;
    static const struct {
        enum text_rule rule;
        const char *text, *documents;
    } rows[] = {
        {TEXT_LINE, "", ""},
        {TEXT_LINE, "\n\r\n\n", ""},
        {TEXT_LINE, "a", "[a]"},
        {TEXT_LINE, "a\nb\n", "[a][b]"},
        {TEXT_LINE, "a\r\n\r\nb c\r\nd", "[a][b c][d]"},
        {TEXT_LINE, "a\rb\n", "[a\rb]"},
        {TEXT_LINE, "a\r\r\nb", "[a\r][b]"},
        {TEXT_LINE, " \n\t\n", "[ ][\t]"},
        {TEXT_LINE, "last\r", "[last]"},
        {TEXT_LINE,
         "\xef\xbb\xbf"
         "a\nb",
         "[a][b]"},
        {TEXT_LINE, "\xef\xbb\xbf", ""},
        {TEXT_BLANK, "", ""},
        {TEXT_BLANK, "\n \n\t\r\n", ""},
        {TEXT_BLANK, "a\nb\n\nc", "[a\nb][c]"},
        {TEXT_BLANK, "\n\na\r\n b\r\n \t\r\n\r\nc\r\n", "[a\n b][c]"},
        {TEXT_BLANK, "a\n\n\n\nb\n \nc\n\n", "[a][b][c]"},
        {TEXT_BLANK,
         "\xef\xbb\xbf"
         "a\n\nb",
         "[a][b]"},
        {TEXT_FILE, "", ""},
        {TEXT_FILE, "a\r\n\r\nb\r\n", "[a\n\nb\n]"},
        {TEXT_FILE,
         "\xef\xbb\xbf"
         "a",
         "[a]"},
        {TEXT_FILE, "\n", "[\n]"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t bytes = strlen(rows[i].text);
        write_text(rows[i].text, bytes);
        char *all = read_chunked(rows[i].rule, (int64_t)bytes, TEXT_CHUNK_BYTES);
        assert_string_equal(all, rows[i].documents);
        free(all);
    }
}

/* However a file is cut, its chunks hold the same documents. */
static void documents_do_not_depend_on_the_cuts(void **state)
{
    (void)state;
    static const int64_t cuts[] = {1, 2, 3, 5, 8, 13};
    static const char alphabet[] = "ab \t\r\n\n\n";
    int texts = 0, documents = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        char text[64];
        size_t bytes = rng_u64(seed, 0, 0) % sizeof text;
        for (size_t i = 0; i < bytes; i++)
            text[i] = alphabet[rng_u64(seed, 1, i) % (sizeof alphabet - 1)];
        write_text(text, bytes);
        for (int rule = TEXT_LINE; rule <= TEXT_FILE; rule++) {
            char *whole = read_chunked((enum text_rule)rule, (int64_t)bytes, 1000);
            for (size_t k = 0; k < sizeof cuts / sizeof *cuts; k++) {
                char *all = read_chunked((enum text_rule)rule, (int64_t)bytes, cuts[k]);
                assert_string_equal(all, whole);
                free(all);
            }
            for (const char *c = whole; *c; c++)
                documents += *c == '[';
            free(whole);
        }
        texts++;
    }
    printf("%d texts, %d documents\n", texts, documents);
    assert_true(documents > 300);
}

/* Lines longer than a read and than a chunk, ends on and beside the reads' borders. */
static void long_lines_cross_reads_and_chunks(void **state)
{
    (void)state;
    static const size_t lengths[] = {(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5,
                                     3 << 20,       0,       70000};
    size_t n = sizeof lengths / sizeof *lengths, bytes = 0;
    char *text = malloc((size_t)8 << 20);
    for (size_t i = 0; i < n; i++) {
        memset(text + bytes, 'a' + (int)i, lengths[i]);
        bytes += lengths[i];
        text[bytes++] = '\r';
        text[bytes++] = '\n';
    }
    write_text(text, bytes);
    char *whole = read_chunked(TEXT_LINE, (int64_t)bytes, 64 << 20);
    char *at = whole;
    for (size_t i = 0; i < n; i++) {
        if (lengths[i] == 0)
            continue;
        assert_int_equal(*at, '[');
        assert_int_equal(strspn(at + 1, (char[]){(char)('a' + i), 0}), lengths[i]);
        at += lengths[i] + 2;
    }
    assert_int_equal(*at, '\0');
    char *chunked = read_chunked(TEXT_LINE, (int64_t)bytes, 100000);
    assert_string_equal(chunked, whole);
    free(chunked);
    free(whole);
    free(text);
}

/* Line 2 of the file holds `bytes` bytes (NUL, in a hole) and a line end. */
static int read_long_document(enum text_rule rule, int64_t bytes, struct err *err)
{
    write_text("a\n\n", 3);
    int fd = open(path, O_WRONLY);
    assert_int_equal(ftruncate(fd, 3 + bytes), 0);
    assert_int_equal(pwrite(fd, "\r\nz", 3, 3 + bytes), 3);
    close(fd);
    struct text_document d = {0};
    struct text_reader *r =
        text_reader_open(path, bytes + 6, rule, 0, TEXT_CHUNK_BYTES, err);
    assert_non_null(r);
    int more = text_reader_next(r, &d, err);
    assert_int_equal(d.bytes, 1);
    more = text_reader_next(r, &d, err);
    text_reader_close(r);
    return more > 0 && (int64_t)d.bytes < bytes ? 0 : more;
}

static void refuses_documents_over_the_limit(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(read_long_document(TEXT_LINE, TEXT_DOCUMENT_BYTES, &err), 1);
    static const enum text_rule rules[] = {TEXT_LINE, TEXT_BLANK};
    static const int64_t over[] = {1, 5 << 20};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(
            read_long_document(rules[i / 2], TEXT_DOCUMENT_BYTES + over[i % 2], &err),
            -1);
        printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, "text:3: expected documents of at most"));
    }
}

static void names_what_cannot_be_read(void **state)
{
    (void)state;
    struct err err = {0};
    struct text_document d;
    assert_null(text_reader_open("/nowhere/text", 5, TEXT_LINE, 0, 5, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "/nowhere/text: cannot open"));
    write_text("short", 5);
    struct text_reader *r = text_reader_open(path, 50, TEXT_LINE, 0, 50, &err);
    assert_true(!r || text_reader_next(r, &d, &err) < 0);
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    text_reader_close(r);
    assert_int_equal(text_line_number(path, 4), 1);
    assert_int_equal(text_line_number("/nowhere/text", 4), 0);
    write_text("a\nb\nc", 5);
    assert_int_equal(text_line_number(path, 4), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_text_into_documents),
        cmocka_unit_test(documents_do_not_depend_on_the_cuts),
        cmocka_unit_test(long_lines_cross_reads_and_chunks),
        cmocka_unit_test(refuses_documents_over_the_limit),
        cmocka_unit_test(names_what_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
