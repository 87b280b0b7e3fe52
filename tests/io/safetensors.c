/* SPDX-License-Identifier: Apache-2.0 */
#include "io/safetensors.h"

#include "src/base/file.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct folder {
    char path[256], file[300];
};

static int make_folder(void **state)
{
    struct folder *f = malloc(sizeof *f);
    const char *tmp = getenv("TMPDIR");
    snprintf(f->path, sizeof f->path, "%s/dusk-safetensors-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(f->path))
        return -1;
    snprintf(f->file, sizeof f->file, "%s/m.safetensors", f->path);
    *state = f;
    return 0;
}

static int remove_folder(void **state)
{
    struct err err;
    int rc = file_remove_tree(((struct folder *)*state)->path, &err);
    free(*state);
    return rc;
}

/* Length, header, then `data` zero bytes. */
static void write_file(const char *path, uint64_t length, const char *header,
                       size_t data)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int i = 0; i < 8; i++)
        fputc((int)(length >> (8 * i) & 0xff), f);
    fputs(header, f);
    for (size_t i = 0; i < data; i++)
        fputc(0, f);
    assert_int_equal(fclose(f), 0);
}

#define T(name, dtype, shape, begin, end)                                              \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape                           \
    ",\"data_offsets\":[" begin "," end "]}"

struct row {
    const char *what, *header;
    size_t data;
    const char *says; /* NULL: must be read */
};

static const struct row rows[] = {
    {"one tensor", "{" T("a", "F32", "[2,3]", "0", "24") "}", 24, NULL},
    {"padded with spaces", "{" T("a", "BF16", "[4]", "0", "8") "}      ", 8, NULL},
    {"a scalar and an empty tensor",
     "{" T("s", "F16", "[]", "0", "2") "," T("e", "F32", "[0,4]", "2", "2") "}", 2,
     NULL},
    {"header order is not disk order",
     "{" T("b", "F32", "[1]", "4", "8") "," T("a", "F32", "[1]", "0", "4") "}", 8,
     NULL},
    {"nothing in it", "{}", 0, NULL},
    {"metadata", "{\"__metadata__\":{\"k\":\"\\u00e9 \\\"q\\\"\"}}", 0, NULL},
    {"types that are no weights",
     "{" T("a", "BOOL", "[2]", "0", "2") "," T("b", "I64", "[1]", "2", "10") "}", 10,
     NULL},

    {"starts with a space", " {" T("a", "F32", "[1]", "0", "4") "}", 4,
     "expected the header to start with '{'"},
    {"a list", "[]", 0, "start with '{'"},
    {"empty header", "", 0, "start with '{'"},
    {"cut JSON", "{\"a\":{\"dtype\":\"F32\"", 0, "not valid JSON: line 1"},
    {"text after the JSON", "{} x", 0, "not valid JSON"},
    {"duplicate tensor",
     "{" T("a", "F32", "[1]", "0", "4") "," T("a", "F32", "[1]", "4", "8") "}", 8,
     "duplicate object key"},
    {"duplicate key inside",
     "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[1],"
     "\"data_offsets\":[0,4]}}",
     4, "duplicate object key"},
    {"unknown dtype", "{" T("a", "F33", "[1]", "0", "4") "}", 4,
     "tensor \"a\": dtype: expected a type such as \"F32\", \"BF16\" or \"F16\", "
     "found the string \"F33\""},
    {"dtype a number", "{\"a\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "dtype: expected a type such as \"F32\", \"BF16\" or \"F16\", found 32"},
    {"no dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "dtype: expected a type such as \"F32\", \"BF16\" or \"F16\", found nothing"},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4,
     "shape: expected a list of whole numbers, found nothing"},
    {"no offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4,
     "data_offsets: expected two whole numbers [begin, end], found nothing"},
    {"one offset", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4]}}", 4,
     "two whole numbers"},
    {"real offsets",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", 4,
     "two whole numbers"},
    {"negative dimension", "{" T("a", "F32", "[-1]", "0", "4") "}", 4,
     "shape: expected whole numbers of 0 or more, found -1"},
    {"dimension as text", "{" T("a", "F32", "[\"1\"]", "0", "4") "}", 4,
     "found the string \"1\""},
    {"too many dimensions", "{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4,
     "expected at most 8 dimensions, found 9"},
    {"product overflows", "{" T("a", "F32", "[4294967296,4294967296,16]", "0", "0") "}",
     0, "more elements than fit in 64 bits"},
    {"product overflows to a small number",
     "{" T("a", "U8", "[9223372036854775807,2]", "0", "4") "}", 4,
     "more elements than fit in 64 bits"},
    {"as many bits as wrap to none",
     "{" T("a", "F64", "[4611686018427387904]", "0", "0") "}", 0,
     "more elements than fit in 64 bits"},
    {"offset beyond 64 bits", "{" T("a", "F32", "[1]", "0", "99999999999999999999") "}",
     4, "expected two whole numbers"},
    {"offsets reversed", "{" T("a", "F32", "[1]", "4", "0") "}", 4,
     "data_offsets [4, 0]: expected a range within the 4 bytes"},
    {"data cut", "{" T("a", "F32", "[2]", "0", "8") "}", 7,
     "expected a range within the 7 bytes that follow the header (is the file cut?)"},
    {"data too long", "{" T("a", "F32", "[2]", "0", "8") "}", 9,
     "expected the file to end with its last tensor at byte"},
    {"wrong size for the shape", "{" T("a", "BF16", "[2]", "0", "8") "}", 8,
     "expected 4 bytes for its shape and dtype BF16, found 8"},
    {"hole between",
     "{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "8", "12") "}", 12,
     "no tensor covers data bytes 4 to 8, before \"b\""},
    {"hole at the start", "{" T("a", "F32", "[1]", "4", "8") "}", 8,
     "no tensor covers data bytes 0 to 4, before \"a\""},
    {"overlap",
     "{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[1]", "4", "8") "}", 8,
     "tensors \"a\" and \"b\" overlap at data offset 4"},
    {"two on the same bytes",
     "{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "0", "4") "}", 4,
     "overlap at data offset 0"},
    {"an empty tensor inside another",
     "{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[0]", "4", "4") "}", 8,
     "overlap at data offset 4"},
    {"entry is a number", "{\"a\":3}", 0, "entry: expected an object, found 3"},
    {"metadata is no object", "{\"__metadata__\":[]}", 0,
     "__metadata__: expected an object"},
    {"metadata holds a number", "{\"__metadata__\":{\"k\":1}}", 0,
     "__metadata__: k: expected a string"},
    {"a name with a line break", "{\"a\\nb\":3}", 0, "tensor \"a?b\""},
};

static void reads_good_headers_and_refuses_bad_ones(void **state)
{
    const struct folder *f = *state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct safetensors s;
        struct err err = {0};
        write_file(f->file, strlen(rows[i].header), rows[i].header, rows[i].data);
        int rc = safetensors_read(&s, f->file, &err);
        printf("%-36s %s\n", rows[i].what, rc ? strrchr(err.text, '/') + 1 : "is read");
        assert_int_equal(rc, rows[i].says ? -1 : 0);
        if (rows[i].says) {
            assert_int_equal(err.code, ERR_INPUT);
            assert_non_null(strstr(err.text, f->file));
            assert_non_null(strstr(err.text, rows[i].says));
            assert_null(strchr(err.text, '\n'));
        } else
            safetensors_fini(&s);
    }
}

static void refuses_bad_lengths(void **state)
{
    const struct folder *f = *state;
    const struct {
        uint64_t length;
        const char *says;
    } cases[] = {{100000001, "expected at most 100000000 bytes"},
                 {UINT64_MAX, "expected at most 100000000 bytes"},
                 {UINT64_C(1) << 63, "expected at most 100000000 bytes"},
                 {100000000, "but only 2 follow in the file (is it cut?)"},
                 {3, "but only 2 follow in the file (is it cut?)"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct safetensors s;
        struct err err = {0};
        write_file(f->file, cases[i].length, "{}", 0);
        assert_int_equal(safetensors_read(&s, f->file, &err), -1);
        printf("length %" PRIu64 ": %s\n", cases[i].length, strrchr(err.text, '/') + 1);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, cases[i].says));
    }
}

static void refuses_what_is_no_file(void **state)
{
    const struct folder *f = *state;
    struct safetensors s;
    struct err err = {0};
    FILE *empty = fopen(f->file, "wb");
    assert_non_null(empty);
    fputs("1234567", empty);
    fclose(empty);
    assert_int_equal(safetensors_read(&s, f->file, &err), -1);
    assert_non_null(strstr(err.text, "found fewer than 8 bytes"));
    assert_int_equal(safetensors_read(&s, f->path, &err), -1);
    assert_non_null(strstr(err.text, "found no regular file"));
    assert_int_equal(unlink(f->file), 0);
    assert_int_equal(safetensors_read(&s, f->file, &err), -1);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "No such file"));
}

static void gives_what_the_header_says(void **state)
{
    const struct folder *f = *state;
    static const char header[] = "{" T("b", "BF16", "[2,3]", "8", "20") "," T(
        "a", "F64", "[1]", "0", "8") ",\"__metadata__\":{\"format\":\"pt\"}}";
    struct safetensors s;
    struct err err = {0};
    enum dtype t;
    write_file(f->file, strlen(header), header, 20);
    assert_int_equal(safetensors_read(&s, f->file, &err), 0);
    assert_int_equal(s.n, 2);
    assert_string_equal(s.tensor[0].name, "a");
    assert_int_equal(safetensor_dtype(&s.tensor[0], &t), -1);
    const struct safetensor *b = safetensors_find(&s, "b");
    assert_ptr_equal(b, &s.tensor[1]);
    assert_int_equal(safetensor_dtype(b, &t), 0);
    assert_int_equal(t, DTYPE_BF16);
    assert_int_equal(b->ndim, 2);
    assert_int_equal(b->shape[0], 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(b->elements, 6);
    assert_int_equal(b->bytes, 12);
    assert_int_equal(b->offset, (int64_t)(8 + strlen(header) + 8));
    assert_int_equal(s.data_at, (int64_t)(8 + strlen(header)));
    assert_string_equal(s.metadata, "{\"format\":\"pt\"}");
    assert_null(safetensors_find(&s, "c"));
    safetensors_fini(&s);
}

/* As transformers: wider types first, then by name; the reader takes it back. */
static void writes_what_it_reads(void **state)
{
    const struct folder *f = *state;
    struct safetensors_entry entry[] = {
        {.name = "z", .dtype = DTYPE_F16, .ndim = 1, .shape = {3}},
        {.name = "b", .dtype = DTYPE_F32, .ndim = 2, .shape = {2, 3}},
        {.name = "a", .dtype = DTYPE_BF16, .ndim = 1, .shape = {5}},
        {.name = "c", .dtype = DTYPE_F32, .ndim = 1, .shape = {1}}};
    static const char *const order[] = {"b", "c", "a", "z"};
    static const char text[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},";
    struct err err = {0};
    size_t bytes;
    char *header = safetensors_header(entry, 4, &bytes, &err);
    assert_non_null(header);
    assert_int_equal(bytes % 8, 0);
    assert_memory_equal(header + 8, text, strlen(text));
    FILE *out = fopen(f->file, "wb");
    assert_non_null(out);
    fwrite(header, 1, bytes, out);
    static const char zeros[44];
    fwrite(zeros, 1, sizeof zeros, out);
    fclose(out);
    struct safetensors s;
    assert_int_equal(safetensors_read(&s, f->file, &err), 0);
    assert_int_equal(s.data_at, (int64_t)bytes);
    assert_int_equal(s.n, 4);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(s.tensor[i].name, order[i]);
        assert_string_equal(entry[i].name, order[i]);
        assert_int_equal(s.tensor[i].offset, (int64_t)bytes + entry[i].offset);
        assert_int_equal(s.tensor[i].bytes, entry[i].bytes);
    }
    safetensors_fini(&s);
    free(header);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_good_headers_and_refuses_bad_ones),
        cmocka_unit_test(refuses_bad_lengths),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(gives_what_the_header_says),
        cmocka_unit_test(writes_what_it_reads)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
