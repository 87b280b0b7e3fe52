/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "io/sealed.h"

#include "src/base/err.h"
#include "src/base/file.h"
#include "tests/io/sealed_sample.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

static char folder[256];

static const char *in_folder(const char *name)
{
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static int entries(const char *path)
{
    DIR *d = opendir(path);
    assert_non_null(d);
    int n = -2;
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static int64_t layer_bytes(int array)
{
    const struct sealed_array *a = &sample_array[array];
    int64_t n = (int64_t)sealed_type_bytes(a->type);
    for (int d = a->stacked ? 1 : 0; d < a->dims; d++)
        n *= a->dim[d];
    return n;
}

static struct sealed_writer *create(const char *path, bool replace, struct err *err)
{
    return sealed_create(comm_self(), path, replace, sample_array, SAMPLE_ARRAYS,
                         sample_attr, SAMPLE_ATTRS, err);
}

/* Writes all of the sample but the block at `skip_at` of the stack's layer 1. */
static int write_all(struct sealed_writer *w, int64_t skip_at, struct err *err)
{
    for (int a = 0; a < SAMPLE_ARRAYS; a++)
        for (int64_t l = 0; l < (sample_array[a].stacked ? 3 : 1); l++) {
            int64_t n = layer_bytes(a);
            for (int64_t at = 0; at < n; at += SEALED_BLOCK_BYTES) {
                int64_t m = n - at < SEALED_BLOCK_BYTES ? n - at : SEALED_BLOCK_BYTES;
                unsigned char block[SEALED_BLOCK_BYTES];
                for (int64_t i = 0; i < m; i++)
                    block[i] = sample_byte(a, l, at + i);
                if (a == SAMPLE_STACK && l == 1 && at == skip_at)
                    continue;
                if (sealed_write(w, a, l, at, block, (size_t)m, err) < 0)
                    return -1;
            }
        }
    return 0;
}

static void make_sample(const char *path)
{
    struct err err = {0};
    struct sealed_writer *w = create(path, true, &err);
    if (!w)
        fail_msg("%s", err.text);
    assert_int_equal(write_all(w, -1, &err), 0);
    if (sealed_commit(w, &err) < 0)
        fail_msg("%s", err.text);
}

/* Opens and reads everything; 0, or -1 with err set. */
static int read_all(const char *path, struct err *err)
{
    struct sealed *s = sealed_open(comm_self(), path, err);
    if (!s)
        return -1;
    int rc = 0;
    for (int i = 0; rc == 0 && i < sealed_arrays(s); i++) {
        int a = 0;
        while (strcmp(sample_array[a].path, sealed_array_at(s, i)->path) != 0)
            a++;
        int64_t n = layer_bytes(a);
        unsigned char *data = malloc((size_t)n + 1);
        for (int64_t l = 0; rc == 0 && l < (sample_array[a].stacked ? 3 : 1); l++) {
            rc = sealed_read(s, i, l, 0, data, (size_t)n, err);
            for (int64_t k = 0; rc == 0 && k < n; k++)
                if (data[k] != sample_byte(a, l, k))
                    fail_msg("array %d layer %lld byte %lld: %d, expected %d", a,
                             (long long)l, (long long)k, data[k], sample_byte(a, l, k));
        }
        free(data);
    }
    sealed_close(s);
    return rc;
}

/* Zeros that are not written are read and checked like any bytes. */
static void zeros_need_no_writing(void **state)
{
    (void)state;
    static const struct sealed_array arrays[] = {
        {.path = "/a",
         .type = SEALED_F32,
         .dims = 2,
         .dim = {2, 40000},
         .stacked = true},
    };
    struct err err = {0};
    const char *path = in_folder("zeros.h5");
    enum { BYTES = 40000 * 4 };
    unsigned char *data = malloc(BYTES);
    struct sealed_writer *w =
        sealed_create(comm_self(), path, true, arrays, 1, NULL, 0, &err);
    assert_non_null(w);
    memset(data, 7, BYTES);
    assert_int_equal(sealed_write(w, 0, 0, 0, NULL, BYTES, &err), 0);
    assert_int_equal(sealed_write(w, 0, 1, 0, data, SEALED_BLOCK_BYTES, &err), 0);
    assert_int_equal(sealed_write(w, 0, 1, SEALED_BLOCK_BYTES, NULL,
                                  BYTES - SEALED_BLOCK_BYTES, &err),
                     0);
    if (sealed_commit(w, &err) < 0)
        fail_msg("%s", err.text);
    struct sealed *s = sealed_open(comm_self(), path, &err);
    assert_non_null(s);
    assert_int_equal(sealed_verify(s, NULL, NULL, NULL, &err), 0);
    for (int64_t l = 0; l < 2; l++) {
        assert_int_equal(sealed_read(s, 0, l, 0, data, BYTES, &err), 0);
        for (int i = 0; i < BYTES; i++)
            assert_int_equal(data[i], l == 1 && i < SEALED_BLOCK_BYTES ? 7 : 0);
    }
    sealed_close(s);
    free(data);
}

static void arrays_and_attributes_come_back(void **state)
{
    (void)state;
    struct err err = {0};
    const char *path = in_folder("a.h5");
    make_sample(path);
    struct sealed *s = sealed_open(comm_self(), path, &err);
    if (!s)
        fail_msg("%s", err.text);
    assert_int_equal(sealed_arrays(s), SAMPLE_ARRAYS);
    for (int a = 0; a < SAMPLE_ARRAYS; a++) {
        int i = sealed_find(s, sample_array[a].path);
        assert_int_not_equal(i, -1);
        const struct sealed_array *found = sealed_array_at(s, i);
        assert_int_equal(found->type, sample_array[a].type);
        assert_int_equal(found->dims, sample_array[a].dims);
        assert_int_equal(found->stacked, sample_array[a].stacked);
        for (int d = 0; d < found->dims; d++)
            assert_int_equal(found->dim[d], sample_array[a].dim[d]);
    }
    assert_int_equal(sealed_attrs(s), SAMPLE_ATTRS);
    for (int i = 0; i < SAMPLE_ATTRS; i++) {
        const struct sealed_attr *want = &sample_attr[i];
        const struct sealed_attr *a = sealed_attr_find(s, want->group, want->name);
        assert_non_null(a);
        assert_int_equal(a->kind, want->kind);
        if (a->kind == SEALED_INT)
            assert_int_equal(a->i, want->i);
        if (a->kind == SEALED_DOUBLE)
            assert_true(a->d == want->d);
        if (a->kind == SEALED_STRING)
            assert_string_equal(a->s, want->s);
        if (a->kind == SEALED_INTS) {
            assert_int_equal(a->n, want->n);
            assert_memory_equal(a->ints, want->ints, (size_t)a->n * sizeof *a->ints);
        }
    }
    assert_int_equal(sealed_find(s, "/model/nothing"), -1);
    assert_null(sealed_attr_find(s, "/model", "nothing"));
    sealed_close(s);
    assert_int_equal(read_all(path, &err), 0);
}

static void same_input_gives_the_same_bytes(void **state)
{
    (void)state;
    struct err err = {0};
    size_t n, m;
    make_sample(in_folder("a.h5"));
    char *a = file_read(in_folder("a.h5"), 1 << 24, &n, &err);
    sleep(1); /* a time in the file would differ now */
    make_sample(in_folder("b.h5"));
    char *b = file_read(in_folder("b.h5"), 1 << 24, &m, &err);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    printf("%zu bytes, twice the same\n", n);
    free(a);
    free(b);
}

static void any_range_reads_and_is_verified_once(void **state)
{
    (void)state;
    struct err err = {0};
    make_sample(in_folder("a.h5"));
    struct sealed *s = sealed_open(comm_self(), in_folder("a.h5"), &err);
    int i = sealed_find(s, "/model/norm");
    static const struct {
        int64_t begin, n;
    } rows[] = {{0, 1}, {65535, 2}, {65536, 65536}, {1, 279999}, {279999, 1}, {5, 0}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        unsigned char *data = malloc((size_t)rows[r].n + 1);
        assert_int_equal(
            sealed_read_any(s, i, rows[r].begin, data, (size_t)rows[r].n, &err), 0);
        for (int64_t k = 0; k < rows[r].n; k++)
            assert_int_equal(data[k], sample_byte(SAMPLE_FLAT, 0, rows[r].begin + k));
        free(data);
    }
    sealed_close(s);
}

static void writes_must_be_complete_and_single(void **state)
{
    (void)state;
    static const struct {
        int64_t skip_at; /* of layer 1 of the stack */
        bool twice;
        const char *message;
    } rows[] = {
        {0, false, "block at byte 0 of layer 1 of /model/layers/q_proj was written 0"},
        {65536, false, "byte 65536 of layer 1 of /model/layers/q_proj was written 0"},
        {-1, true, "byte 0 of layer 2 of /model/layers/q_proj was written 2 times"}};
    make_sample(in_folder("a.h5"));
    int before = entries(folder);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct err err = {0};
        struct sealed_writer *w = create(in_folder("a.h5"), true, &err);
        assert_non_null(w);
        assert_int_equal(write_all(w, rows[r].skip_at, &err), 0);
        static unsigned char zeros[65536];
        if (rows[r].twice)
            assert_int_equal(sealed_write(w, SAMPLE_STACK, 2, 0, zeros, 65536, &err),
                             0);
        assert_int_equal(sealed_commit(w, &err), -1);
        printf("%s\n", err.text);
        assert_non_null(strstr(err.text, rows[r].message));
        assert_int_equal(entries(folder), before);
        assert_int_equal(read_all(in_folder("a.h5"), &err), 0); /* the old one */
    }
}

static void existing_names_are_respected(void **state)
{
    (void)state;
    struct err err = {0};
    make_sample(in_folder("a.h5"));
    assert_null(create(in_folder("a.h5"), false, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "exists"));
    mkdir(in_folder("d.h5"), 0777);
    assert_null(create(in_folder("d.h5"), true, &err));
    assert_int_equal(err.code, ERR_USAGE);
    rmdir(in_folder("d.h5"));
    assert_null(create(in_folder("absent/a.h5"), true, &err));
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_IO);

    struct sealed_writer *w = create(in_folder("c.h5"), false, &err);
    assert_non_null(w);
    sealed_abort(w);
    assert_int_not_equal(access(in_folder("c.h5"), F_OK), 0);

    char stale[600]; /* a dead process of the same number left its temporary */
    snprintf(stale, sizeof stale, "%s.tmp-%ld-0", in_folder("c.h5"), (long)getpid());
    close(open(stale, O_CREAT | O_WRONLY, 0666));
    make_sample(in_folder("c.h5"));
    assert_int_equal(access(stale, F_OK), 0);
    unlink(stale);
    assert_int_equal(read_all(in_folder("c.h5"), &err), 0);
    unlink(in_folder("c.h5"));
}

/* A copy of `bytes` with `n` kept and byte `flip` (or -1) changed by `mask`. */
static void damaged_copy(const char *path, const char *bytes, size_t n, int64_t flip,
                         unsigned char mask)
{
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    if (flip >= 0) {
        fseek(f, (long)flip, SEEK_SET);
        fputc((unsigned char)bytes[flip] ^ mask, f);
    }
    assert_int_equal(fclose(f), 0);
}

static void a_cut_at_any_length_is_seen_at_open(void **state)
{
    (void)state;
    struct err err = {0};
    size_t n, cuts = 0;
    make_sample(in_folder("a.h5"));
    char *bytes = file_read(in_folder("a.h5"), 1 << 24, &n, &err);
    const char *path = in_folder("cut.h5");
    damaged_copy(path, bytes, n, -1, 0);
    assert_int_equal(read_all(path, &err), 0);
    size_t at = n - 1;
    for (;;) {
        assert_int_equal(truncate(path, (off_t)at), 0);
        err.code = ERR_NONE;
        assert_null(sealed_open(comm_self(), path, &err));
        assert_int_equal(err.code, ERR_INPUT);
        cuts++;
        if (!at)
            break;
        at = at > 4096 + 3 ? (at - 1) / 4096 * 4096 : at > 64 ? at - 61 : at - 1;
    }
    printf("%zu cuts, all seen; the last: %s\n", cuts, err.text);
    damaged_copy(path, bytes, n, -1, 0);
    assert_int_equal(truncate(path, (off_t)n + 1), 0);
    assert_null(sealed_open(comm_self(), path, &err));
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(truncate(path, (off_t)n), 0); /* zeros */
    assert_null(sealed_open(comm_self(), path, &err));
    printf("%s\n", err.text);
    free(bytes);
    unlink(path);
}

static void a_flipped_bit_is_seen_before_use(void **state)
{
    (void)state;
    struct err err = {0};
    size_t n, at_open = 0, at_read = 0;
    make_sample(in_folder("a.h5"));
    char *bytes = file_read(in_folder("a.h5"), 1 << 24, &n, &err);
    const char *path = in_folder("flip.h5");
    damaged_copy(path, bytes, n, -1, 0);
    int fd = open(path, O_RDWR);
    /* every 211th byte, and each of the first 200 and of the last 600 */
    for (size_t i = 0; i < n; i += i < 200 || i + 600 > n ? 1 : 211) {
        char flipped = (char)(bytes[i] ^ (1 << i % 8));
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)i), 1);
        err.code = ERR_NONE;
        struct sealed *s = sealed_open(comm_self(), path, &err);
        if (!s) {
            at_open++;
        } else {
            sealed_close(s);
            if (read_all(path, &err) == 0)
                fail_msg("a flip of byte %zu was not seen", i);
            at_read++;
        }
        assert_int_equal(err.code, ERR_INPUT);
        assert_int_equal(pwrite(fd, bytes + i, 1, (off_t)i), 1);
    }
    close(fd);
    printf("%zu flips: %zu seen at open, %zu at read; the last: %s\n",
           at_open + at_read, at_open, at_read, err.text);
    assert_true(at_open > 100 && at_read > 1000);
    assert_int_equal(read_all(path, &err), 0);
    free(bytes);
    unlink(path);
}

static void a_flip_in_an_array_is_named(void **state)
{
    (void)state;
    struct err err = {0};
    size_t n;
    make_sample(in_folder("a.h5"));
    char *bytes = file_read(in_folder("a.h5"), 1 << 24, &n, &err);
    const char *path = in_folder("flip.h5");
    unsigned char start[64];
    for (int i = 0; i < 64; i++)
        start[i] = sample_byte(SAMPLE_STACK, 2, i);
    char *at = memmem(bytes, n, start, sizeof start);
    assert_non_null(at);
    damaged_copy(path, bytes, n, at - bytes + 70000, 0x10);
    assert_int_equal(read_all(path, &err), -1);
    printf("%s\n", err.text);
    assert_non_null(strstr(err.text,
                           "flip.h5: damaged: bytes 65536 to 89999 of layer 2 "
                           "of /model/layers/q_proj"));
    free(bytes);
    unlink(path);
}

static void last_message(void *context, const struct err *what)
{
    *(struct err *)context = *what;
}

static void verify_counts_damaged_blocks(void **state)
{
    (void)state;
    struct err err = {0}, told = {0};
    const char *path = in_folder("flip.h5");
    make_sample(path);
    struct sealed *s = sealed_open(comm_self(), path, &err);
    assert_non_null(s);
    assert_int_equal(sealed_verify(s, last_message, NULL, &told, &err), 0);
    assert_int_equal(told.code, ERR_NONE);
    assert_int_equal(sealed_data_bytes(s), 3 * 90000 + 280000 + 11);
    size_t n;
    char *bytes = file_read(path, 1 << 24, &n, &err);
    unsigned char start[64];
    for (int i = 0; i < 64; i++)
        start[i] = sample_byte(SAMPLE_FLAT, 0, i);
    char *at = memmem(bytes, n, start, sizeof start);
    assert_non_null(at);
    int fd = open(path, O_RDWR);
    for (int i = 0; i < 3; i++) /* two in block 1, one in block 3 */
        assert_int_equal(pwrite(fd, "", 1, at - bytes + (i < 2 ? 70000 + i : 200000)),
                         1);
    close(fd);
    assert_int_equal(sealed_verify(s, last_message, NULL, &told, &err), 2);
    printf("%s\n", told.text);
    assert_non_null(strstr(told.text, "bytes 196608 to 262143 of /model/norm"));
    sealed_close(s);
    free(bytes);
    unlink(path);
}

static void other_files_are_refused(void **state)
{
    (void)state;
    struct err err = {0};
    const char *path = in_folder("other");
    static char text[10000];
    memset(text, 'x', sizeof text);
    damaged_copy(path, text, 3, -1, 0);
    assert_null(sealed_open(comm_self(), path, &err));
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    damaged_copy(path, text, sizeof text, -1, 0);
    assert_null(sealed_open(comm_self(), path, &err));
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    unlink(path);
    assert_null(sealed_open(comm_self(), path, &err));
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    assert_null(sealed_open(comm_self(), folder, &err));
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
}

static void a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    struct err err = {0};
    const char *disk = in_folder("disk");
    mkdir(disk, 0777);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=512k") < 0) {
        rmdir(disk);
        skip();
    }
    const char *path = in_folder("disk/a.h5");
    assert_null(create(path, false, &err));
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "No space left"));
    assert_int_equal(entries(disk), 0);
    umount(disk);
    rmdir(disk);
}

static void a_size_limit_is_an_error(void **state)
{
    (void)state;
    struct err err = {0};
    struct rlimit old, small;
    make_sample(in_folder("a.h5"));
    int before = entries(folder);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    for (rlim_t limit = 1000; limit < 570000; limit += limit < 540000 ? 60000 : 900) {
        small = old;
        small.rlim_cur = limit;
        setrlimit(RLIMIT_FSIZE, &small);
        err.code = ERR_NONE;
        struct sealed_writer *w = create(in_folder("a.h5"), true, &err);
        int rc = w ? write_all(w, -1, &err) : -1;
        if (w && rc == 0)
            rc = sealed_commit(w, &err);
        else if (w)
            sealed_abort(w);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(rc, -1);
        assert_int_equal(err.code, ERR_IO);
        assert_int_equal(entries(folder), before);
        assert_int_equal(read_all(in_folder("a.h5"), &err), 0);
    }
    printf("%s\n", err.text);
}

/* The limit falls after the file was laid out, as a disk fills while ranks write. */
static void a_write_that_fails_is_an_error_at_commit(void **state)
{
    (void)state;
    struct err err = {0}, later = {0};
    struct rlimit old, small;
    make_sample(in_folder("a.h5"));
    int before = entries(folder);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    struct sealed_writer *w = create(in_folder("a.h5"), true, &err);
    assert_non_null(w);
    small = old;
    small.rlim_cur = 200000;
    setrlimit(RLIMIT_FSIZE, &small);
    int wrote = write_all(w, -1, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(wrote, -1);
    assert_int_equal(sealed_commit(w, &later), -1);
    printf("%s\n", later.text);
    assert_int_equal(later.code, ERR_IO);
    assert_non_null(strstr(later.text, "a.h5: cannot write at byte"));
    assert_string_equal(err.text, later.text);
    assert_int_equal(entries(folder), before);
    assert_int_equal(read_all(in_folder("a.h5"), &err), 0);
}

static void no_permission_is_an_error(void **state)
{
    (void)state;
    struct err err = {0};
    bool root = geteuid() == 0; /* may write anywhere, so become nobody */
    make_sample(in_folder("a.h5"));
    mkdir(in_folder("closed"), 0555);
    chmod(folder, 0755);
    chmod(in_folder("a.h5"), 0);
    if (root && seteuid(65534) < 0)
        skip();
    struct sealed_writer *w = create(in_folder("closed/a.h5"), false, &err);
    struct err unreadable = {0};
    struct sealed *s = sealed_open(comm_self(), in_folder("a.h5"), &unreadable);
    if (root)
        assert_int_equal(seteuid(0), 0);
    printf("%s\n%s\n", err.text, unreadable.text);
    assert_null(w);
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "Permission denied"));
    assert_null(s);
    assert_int_equal(unreadable.code, ERR_INPUT);
    assert_int_equal(entries(in_folder("closed")), 0);
    rmdir(in_folder("closed"));
}

static int make_folder(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/dusk-sealed-XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
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
        cmocka_unit_test(arrays_and_attributes_come_back),
        cmocka_unit_test(zeros_need_no_writing),
        cmocka_unit_test(same_input_gives_the_same_bytes),
        cmocka_unit_test(any_range_reads_and_is_verified_once),
        cmocka_unit_test(writes_must_be_complete_and_single),
        cmocka_unit_test(existing_names_are_respected),
        cmocka_unit_test(a_cut_at_any_length_is_seen_at_open),
        cmocka_unit_test(a_flipped_bit_is_seen_before_use),
        cmocka_unit_test(a_flip_in_an_array_is_named),
        cmocka_unit_test(verify_counts_damaged_blocks),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(a_full_disk_leaves_nothing),
        cmocka_unit_test(a_size_limit_is_an_error),
        cmocka_unit_test(a_write_that_fails_is_an_error_at_commit),
        cmocka_unit_test(no_permission_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
