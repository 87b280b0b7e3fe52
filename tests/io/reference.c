/* SPDX-License-Identifier: Apache-2.0 */
#include "io/reference.h"

#include "tests/io/reference_sample.h"

#include <fcntl.h>
#include <unistd.h>

static void all_bits_come_back(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, FEW, MANY};
    struct err err = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct reference_key k = key_of(sizes[i]);
        size_t bytes = (size_t)k.pairs * PAIR_BYTES;
        double *sums = make_sums(MANY), *found = malloc(bytes);
        assert_int_equal(reference_read(file_path, &k, found, &err), 0);
        make_file(file_path, &k, sums);
        assert_int_equal(entries(folder), 1); /* the part is gone */
        assert_int_equal(reference_read(file_path, &k, found, &err), 1);
        assert_memory_equal(found, sums, bytes);
        free(sums);
        free(found);
        unlink(file_path);
    }
}

static void outsiders_see_doubles_and_the_key(void **state)
{
    (void)state;
    struct err err = {0};
    struct reference_key k = key_of(FEW), found;
    double *sums = make_sums(FEW);
    make_file(file_path, &k, sums);
    struct sealed *file = sealed_open(comm_self(), file_path, &err);
    assert_non_null(file);
    assert_int_equal(reference_key_of(file, &found, &err), 0);
    assert_string_equal(found.weights, k.weights);
    assert_string_equal(found.data, k.data);
    assert_string_equal(found.template_hash, k.template_hash);
    assert_string_equal(found.precision, k.precision);
    assert_int_equal(found.pairs, FEW);
    const struct sealed_array *a = sealed_array_at(file, 0);
    assert_string_equal(a->path, "/log_probabilities");
    assert_string_equal(sealed_type_name(a->type), "F64");
    assert_int_equal(a->dim[0], FEW);
    assert_int_equal(a->dim[1], 2);
    assert_string_equal(sealed_attr_find(file, a->path, "units")->s, "nats");
    sealed_close(file);
    unlink(file_path);
    free(sums);
}

/* Keys that differ from key_of(FEW) in one field, or only in where two fields meet. */
static void every_field_is_part_of_the_key(void **state)
{
    (void)state;
    const struct {
        struct reference_key key;
        const char *message;
    } rows[] = {
        {{"0123456789abcdee 0:24,8:32", "fedcba9876543210",
          "00112233445566778899aabbccddeeff", "fp32", FEW},
         "was made with other weights: expected \"0123456789abcdee 0:24,8:32\", found "
         "\"0123456789abcdef 0:24,8:32\"; name another cache"},
        {{"0123456789abcdef 0:24,8:32", "", "00112233445566778899aabbccddeeff", "fp32",
          FEW},
         "was made of other data: expected \"\", found \"fedcba9876543210\"; name"},
        {{"0123456789abcdef 0:24,8:32", "fedcba9876543210", "0011", "fp32", FEW},
         "was made with another template: expected \"0011\", found \"00112233"},
        {{"0123456789abcdef 0:24,8:32", "fedcba9876543210",
          "00112233445566778899aabbccddeeff", "bf16", FEW},
         "was made in another precision: expected \"bf16\", found \"fp32\"; name"},
        {{"0123456789abcdef 0:24,8:32", "fedcba9876543210",
          "00112233445566778899aabbccddeeff", "fp32", FEW - 1},
         "was made of another number of pairs: expected 11, found 12; name another"},
        {{"0123456789abcdef 0:24,8:32f", "edcba9876543210",
          "00112233445566778899aabbccddeeff", "fp32", FEW},
         "other weights"},
        {{"fedcba9876543210", "0123456789abcdef 0:24,8:32",
          "00112233445566778899aabbccddeeff", "fp32", FEW},
         "other weights"},
    };
    enum { ROWS = sizeof rows / sizeof *rows };
    char name[ROWS + 1][REFERENCE_NAME];
    struct reference_key k = key_of(FEW);
    double *sums = make_sums(FEW), found[2 * FEW];
    make_file(file_path, &k, sums);
    reference_name(&k, name[ROWS]);
    printf("%s\n", name[ROWS]);
    assert_int_equal(strlen(name[ROWS]), REFERENCE_NAME - 1);
    for (int r = 0; r < ROWS; r++) {
        struct err err = {0};
        assert_int_equal(reference_read(file_path, &rows[r].key, found, &err), -1);
        printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_INPUT);
        assert_ptr_equal(strstr(err.text, file_path), err.text);
        assert_non_null(strstr(err.text, rows[r].message));
        reference_name(&rows[r].key, name[r]);
    }
    for (int a = 0; a <= ROWS; a++)
        for (int b = 0; b < a; b++)
            assert_string_not_equal(name[a], name[b]);
    char again[REFERENCE_NAME];
    reference_name(&k, again);
    assert_string_equal(again, name[ROWS]);
    unlink(file_path);
    free(sums);
}

static void texts_that_differ_late_are_shown_there(void **state)
{
    (void)state;
    struct err err = {0};
    char a[1000], b[1000];
    double *sums = make_sums(FEW), found[2 * FEW];
    memset(a, 'x', sizeof a);
    memset(b, 'x', sizeof b);
    a[999] = b[999] = '\0';
    a[900] = 'a';
    b[900] = 'b';
    struct reference_key k = key_of(FEW);
    k.weights = a;
    make_file(file_path, &k, sums);
    k.weights = b;
    assert_int_equal(reference_read(file_path, &k, found, &err), -1);
    printf("%s\n", err.text);
    assert_non_null(strstr(err.text, "expected \"...xxxxxxxxxxxxxxxxxxxxbxxx"));
    assert_non_null(strstr(err.text, "found \"...xxxxxxxxxxxxxxxxxxxxaxxx"));
    unlink(file_path);
    free(sums);
}

static void damage_is_found(void **state)
{
    (void)state;
    struct reference_key k = key_of(MANY);
    double *sums = make_sums(MANY), *found = malloc((size_t)MANY * PAIR_BYTES);
    struct err err = {0};
    size_t bytes, flips = 0;
    make_file(file_path, &k, sums);
    char *whole = get_bytes(file_path, &bytes);
    int fd = open(file_path, O_RDWR);
    for (size_t at = 0; at < bytes; at += at < 200 || at + 600 > bytes ? 7 : 251) {
        char flipped = (char)(whole[at] ^ (1 << at % 8));
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)at), 1);
        err.code = ERR_NONE;
        if (reference_read(file_path, &k, found, &err) != -1)
            fail_msg("a flip of byte %zu was not seen", at);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, "; name another cache"));
        assert_int_equal(pwrite(fd, whole + at, 1, (off_t)at), 1);
        flips++;
    }
    printf("%zu flips; the last: %s\n", flips, err.text);
    assert_int_equal(reference_read(file_path, &k, found, &err), 1);
    assert_int_equal(ftruncate(fd, (off_t)bytes / 2), 0);
    assert_int_equal(reference_read(file_path, &k, found, &err), -1);
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    close(fd);
    unlink(file_path);
    free(whole);
    free(found);
    free(sums);
}

/* How a sealed file that is nearly a reference differs from one. */
struct strange {
    int attribute;    /* index in make_strange's list; -1: the array is what differs */
    const char *name; /* of the attribute, or path of the array */
    const char *text; /* of the attribute; NULL: it is a number */
    int number;       /* or the columns of the array; 0: it has one dimension */
    enum sealed_type type;
    const char *message;
};

static void make_strange(const struct strange *o)
{
    struct sealed_attr attrs[] = {
        {"/", "format", .kind = SEALED_STRING, .s = "dusk reference"},
        {"/", "version", .kind = SEALED_INT, .i = 1},
        {"/", "pairs", .kind = SEALED_INT, .i = FEW},
        {"/", "weights", .kind = SEALED_STRING, .s = "w"},
        {"/", "data", .kind = SEALED_STRING, .s = "d"},
        {"/", "template_hash", .kind = SEALED_STRING, .s = "t"},
        {"/", "precision", .kind = SEALED_STRING, .s = "fp32"}};
    struct sealed_array array = {
        .path = "/log_probabilities", .type = SEALED_F64, .dims = 2, .dim = {FEW, 2}};
    static const double zeros[3 * FEW];
    struct err err = {0};
    if (o->attribute >= 0) {
        attrs[o->attribute] =
            (struct sealed_attr){"/", o->name, .kind = SEALED_INT, .i = o->number};
        if (o->text)
            attrs[o->attribute].kind = SEALED_STRING;
        attrs[o->attribute].s = o->text;
    } else {
        snprintf(array.path, sizeof array.path, "%s", o->name);
        array.type = o->type;
        array.dims = o->number ? 2 : 1;
        array.dim[1] = o->number;
    }
    size_t bytes = sealed_type_bytes(array.type) * FEW;
    bytes *= array.dims == 2 ? (size_t)array.dim[1] : 1;
    struct sealed_writer *w = sealed_create(comm_self(), file_path, true, &array, 1,
                                            attrs, sizeof attrs / sizeof *attrs, &err);
    assert_non_null(w);
    assert_int_equal(sealed_write(w, 0, 0, 0, zeros, bytes, &err), 0);
    assert_int_equal(sealed_commit(w, &err), 0);
}

static void other_files_are_refused(void **state)
{
    (void)state;
    static const char path[] = "/log_probabilities";
    static const struct strange good = {-1, path, NULL, 2, SEALED_F64, ""};
    static const struct strange rows[] = {
        {0, "format", "dusk token set", 0, 0,
         "expected reference log-probabilities, found a dusk token set"},
        {0, "form", "x", 0, 0, "found a file without a format"},
        {0, "format", NULL, 1, 0, "found a file without a format"},
        {1, "version", NULL, 2, 0, "version: expected 1, found 2"},
        {2, "pairs", NULL, 0, 0, "pairs: expected 1 to "},
        {2, "pairs", "12", 0, 0, "pairs: expected 1 to "},
        {2, "pairs", NULL, FEW + 1, 0, "an array /log_probabilities of [13, 2] F64"},
        {3, "weights", NULL, 1, 0, "no text \"weights\" in it"},
        {4, "date", "d", 0, 0, "no text \"data\" in it"},
        {5, "template", "t", 0, 0, "no text \"template_hash\" in it"},
        {6, "precision", NULL, 1, 0, "no text \"precision\" in it"},
        {-1, "/other", NULL, 2, SEALED_F64, "array /log_probabilities of [12, 2] F64"},
        {-1, path, NULL, 2, SEALED_F32, "of [12, 2] F64"},
        {-1, path, NULL, 0, SEALED_F64, "of [12, 2] F64"},
        {-1, path, NULL, 3, SEALED_F64, "of [12, 2] F64"},
    };
    const struct reference_key k = {"w", "d", "t", "fp32", FEW};
    double found[2 * FEW];
    struct err err = {0};
    make_strange(&good);
    assert_int_equal(reference_read(file_path, &k, found, &err), 1);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        make_strange(&rows[r]);
        assert_int_equal(reference_read(file_path, &k, found, &err), -1);
        printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, rows[r].message));
    }
    put_bytes(file_path, "no HDF5", 7);
    assert_int_equal(reference_read(file_path, &k, found, &err), -1);
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    unlink(file_path);
    assert_int_equal(reference_read(folder, &k, found, &err), -1);
    printf("%s\n", err.text);
    char absent[400];
    snprintf(absent, sizeof absent, "%s/absent/a.h5", folder);
    assert_int_equal(reference_read(absent, &k, found, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_bits_come_back),
        cmocka_unit_test(outsiders_see_doubles_and_the_key),
        cmocka_unit_test(every_field_is_part_of_the_key),
        cmocka_unit_test(texts_that_differ_late_are_shown_there),
        cmocka_unit_test(damage_is_found),
        cmocka_unit_test(other_files_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
