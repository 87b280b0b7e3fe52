/* SPDX-License-Identifier: Apache-2.0 */
#include "io/token_set.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[256], path[320];

static int make_folder(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/dusk-set-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/set.h5", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

enum { TOKENS = 100000, DOCUMENTS = 20000, U32_VOCAB = 70000 };

static int32_t id_at(int64_t i, int vocab)
{
    return (int32_t)(i * 7919 % vocab);
}

/* A set of TOKENS ids in documents of 5, with `bad` (if any) at its last position and
 * the end of document 7 moved by `shift`. */
static void write_set(int vocab, uint32_t bad, int64_t shift)
{
    struct err err = {0};
    struct token_set_info info = {.tokens = TOKENS,
                                  .documents = DOCUMENTS,
                                  .source_bytes = 12345,
                                  .vocab = vocab,
                                  .tokenizer = "0123456789abcdef0123456789abcdef",
                                  .bos = true,
                                  .source = (char[]){"a.txt"},
                                  .document = (char[]){"line"}};
    struct sealed_writer *w = token_set_create(comm_self(), path, true, &info, &err);
    if (!w)
        print_error("%s\n", err.text);
    assert_non_null(w);
    size_t id_bytes = token_set_id_bytes(vocab);
    unsigned char *ids = malloc(TOKENS * id_bytes);
    int64_t *ends = malloc(DOCUMENTS * sizeof *ends);
    for (int64_t i = 0; i < TOKENS; i++) {
        uint32_t id = (uint32_t)id_at(i, vocab);
        if (bad && i == TOKENS - 1)
            id = bad;
        memcpy(ids + (size_t)i * id_bytes, &id, id_bytes); /* little-endian */
    }
    for (int64_t i = 0; i < DOCUMENTS; i++)
        ends[i] = 5 * (i + 1) + (i == 7 ? shift : 0);
    assert_int_equal(
        sealed_write(w, TOKEN_SET_TOKENS, 0, 0, ids, TOKENS * id_bytes, &err), 0);
    assert_int_equal(sealed_write(w, TOKEN_SET_DOCUMENT_ENDS, 0, 0, ends,
                                  DOCUMENTS * sizeof *ends, &err),
                     0);
    assert_int_equal(sealed_commit(w, &err), 0);
    free(ids);
    free(ends);
}

static struct token_set *open_set(void)
{
    struct err err = {0};
    struct token_set *t = token_set_open(comm_self(), path, &err);
    if (!t)
        print_error("%s\n", err.text);
    assert_non_null(t);
    return t;
}

static void gives_back_what_was_written(void **state)
{
    (void)state;
    static const int vocabs[] = {32000, 65536, U32_VOCAB};
    for (size_t v = 0; v < 3; v++) {
        struct err err = {0};
        write_set(vocabs[v], 0, 0);
        struct token_set *t = open_set();
        const struct token_set_info *info = token_set_info(t);
        assert_int_equal(info->tokens, TOKENS);
        assert_int_equal(info->documents, DOCUMENTS);
        assert_int_equal(info->source_bytes, 12345);
        assert_int_equal(info->vocab, vocabs[v]);
        assert_string_equal(info->tokenizer, "0123456789abcdef0123456789abcdef");
        assert_true(info->bos && !info->eos);
        assert_string_equal(info->source, "a.txt");
        assert_string_equal(info->document, "line");
        assert_true(token_set_identity(t) != 0);
        int32_t *ids = malloc(TOKENS * sizeof *ids);
        int64_t ends[100];
        static const int64_t ranges[][2] = {
            {0, TOKENS}, {0, 1}, {TOKENS - 1, 1}, {8191, 2}, {32767, 40000}, {5, 0}};
        for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
            assert_int_equal(token_set_read(t, ranges[r][0], ranges[r][1], ids, &err),
                             0);
            for (int64_t i = 0; i < ranges[r][1]; i++)
                assert_int_equal(ids[i], id_at(ranges[r][0] + i, vocabs[v]));
        }
        assert_int_equal(token_set_document_ends(t, DOCUMENTS - 100, 100, ends, &err),
                         0);
        assert_int_equal(ends[0], 5 * (DOCUMENTS - 99));
        assert_int_equal(ends[99], TOKENS);
        free(ids);
        token_set_close(t);
    }
}

static void refuses_ids_beyond_the_vocabulary(void **state)
{
    (void)state;
    static const struct {
        int vocab;
        uint32_t bad;
        const char *says;
    } rows[] = {
        {32000, 32000, "token 99999: expected an id below 32000, found 32000"},
        {32000, 65535, "found 65535"},
        {U32_VOCAB, U32_VOCAB, "expected an id below 70000, found 70000"},
        {U32_VOCAB, 0xffffffffu, "found 4294967295"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        int32_t ids[3];
        write_set(rows[i].vocab, rows[i].bad, 0);
        struct token_set *t = open_set();
        assert_int_equal(token_set_read(t, TOKENS - 3, 2, ids, &err), 0);
        assert_int_equal(token_set_read(t, TOKENS - 3, 3, ids, &err), -1);
        printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_INPUT);
        assert_int_equal(strncmp(err.text, path, strlen(path)), 0);
        assert_non_null(strstr(err.text, rows[i].says));
        token_set_close(t);
    }
}

static void refuses_ends_out_of_order(void **state)
{
    (void)state;
    static const int64_t shifts[] = {-6, 6, TOKENS, -TOKENS};
    for (size_t i = 0; i < sizeof shifts / sizeof *shifts; i++) {
        struct err err = {0};
        int64_t ends[4];
        write_set(32000, 0, shifts[i]);
        struct token_set *t = open_set();
        assert_int_equal(token_set_document_ends(t, 0, 7, (int64_t[7]){0}, &err), 0);
        assert_int_equal(token_set_document_ends(t, 6, 4, ends, &err), -1);
        printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, "expected its end"));
        token_set_close(t);
    }
}

static void refuse_file(const struct sealed_array *arrays, int arrays_n,
                        const struct sealed_attr *attrs, int attrs_n, const char *says)
{
    struct err err = {0};
    static const int64_t zeros[16];
    struct sealed_writer *w =
        sealed_create(comm_self(), path, true, arrays, arrays_n, attrs, attrs_n, &err);
    assert_non_null(w);
    for (int i = 0; i < arrays_n; i++)
        assert_int_equal(
            sealed_write(w, i, 0, 0, zeros,
                         (size_t)arrays[i].dim[0] * sealed_type_bytes(arrays[i].type),
                         &err),
            0);
    assert_int_equal(sealed_commit(w, &err), 0);
    assert_null(token_set_open(comm_self(), path, &err));
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, says));
}

static void refuses_files_of_another_kind(void **state)
{
    (void)state;
    struct err err = {0};
    struct sealed_array good[] = {
        {.path = "/tokens", .type = SEALED_U16, .dims = 1, .dim = {4}},
        {.path = "/document_ends", .type = SEALED_I64, .dims = 1, .dim = {2}}};
    struct sealed_attr attrs[] = {
        {.group = "/", .name = "format", .kind = SEALED_STRING, .s = "dusk token set"},
        {.group = "/", .name = "version", .kind = SEALED_INT, .i = 1},
        {.group = "/", .name = "vocab", .kind = SEALED_INT, .i = 100},
        {.group = "/", .name = "bos", .kind = SEALED_INT, .i = 1},
        {.group = "/", .name = "eos", .kind = SEALED_INT, .i = 1},
        {.group = "/", .name = "tokens", .kind = SEALED_INT, .i = 4},
        {.group = "/", .name = "documents", .kind = SEALED_INT, .i = 2},
        {.group = "/", .name = "source_bytes", .kind = SEALED_INT, .i = 9},
        {.group = "/", .name = "tokenizer", .kind = SEALED_STRING, .s = "00"},
        {.group = "/", .name = "source", .kind = SEALED_STRING, .s = "a"},
        {.group = "/", .name = "document", .kind = SEALED_STRING, .s = "line"},
    };
    enum { N = sizeof attrs / sizeof *attrs };
    refuse_file(good, 2, NULL, 0, "not a token set: no text \"format\"");
    attrs[0].s = "dusk checkpoint";
    refuse_file(good, 2, attrs, N, "expected a token set, found a dusk checkpoint");
    attrs[0].s = "dusk token set";
    attrs[1].i = 2;
    refuse_file(good, 2, attrs, N, "version: expected 1 to 1, found 2");
    attrs[1].i = 1;
    attrs[2].i = 0;
    refuse_file(good, 2, attrs, N, "vocab: expected 1 to");
    attrs[2].i = 100;
    attrs[5].i = 5;
    refuse_file(good, 2, attrs, N, "expected an array /tokens of 5 2-byte numbers");
    attrs[5].i = 4;
    refuse_file(good, 1, attrs, N, "expected an array /document_ends of 2");
    good[0].type = SEALED_U32;
    refuse_file(good, 2, attrs, N, "expected an array /tokens of 4 2-byte numbers");
    refuse_file(good, 2, attrs, N - 1, "not a token set: no text \"document\"");
    good[0].type = SEALED_U16;
    attrs[8].s = "00000000000000000000000000000000000";
    refuse_file(good, 2, attrs, N, "expected 32 hex digits");
    assert_null(token_set_open(comm_self(), "/nowhere/set.h5", &err));
    assert_int_equal(err.code, ERR_INPUT);
    token_set_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_back_what_was_written),
        cmocka_unit_test(refuses_ids_beyond_the_vocabulary),
        cmocka_unit_test(refuses_ends_out_of_order),
        cmocka_unit_test(refuses_files_of_another_kind),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
