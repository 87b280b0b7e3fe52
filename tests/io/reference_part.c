/* SPDX-License-Identifier: Apache-2.0 */
#include "io/reference.h"

#include "tests/io/reference_sample.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 3, HEAD_BYTES = 24, BLOCK_HEAD_BYTES = 24 };
static const int64_t block_pairs[BLOCKS] = {5, 3, 4};

/* The first `blocks` of a part of FEW pairs. */
static void make_part(const char *path, const double *sums, int blocks)
{
    struct reference_key k = key_of(FEW);
    double known[2 * FEW];
    int64_t done, at = 0;
    struct reference_writer *w = begin(path, &k, known, &done);
    assert_int_equal(done, 0);
    for (int b = 0; b < blocks; at += block_pairs[b++])
        append(w, block_pairs[b], sums + 2 * at);
    reference_close(w);
}

/* Pairs in the blocks that end at or before `bytes` of a part. */
static int64_t whole_pairs(size_t bytes)
{
    size_t at = HEAD_BYTES;
    int64_t pairs = 0;
    for (int b = 0; b < BLOCKS; b++) {
        at += BLOCK_HEAD_BYTES + (size_t)block_pairs[b] * PAIR_BYTES;
        if (at > bytes)
            break;
        pairs += block_pairs[b];
    }
    return pairs;
}

static void a_part_cut_anywhere_goes_on(void **state)
{
    (void)state;
    struct reference_key k = key_of(FEW);
    double *sums = make_sums(FEW), known[2 * FEW];
    size_t bytes, want_bytes;
    make_file(file_path, &k, sums);
    char *want = get_bytes(file_path, &want_bytes);
    make_part(file_path, sums, BLOCKS);
    char *whole = get_bytes(part_path, &bytes);
    assert_int_equal(whole_pairs(bytes), FEW);
    for (size_t cut = 0; cut <= bytes; cut++) {
        int64_t done;
        unlink(file_path);
        put_bytes(part_path, whole, cut);
        memset(known, 0x55, sizeof known);
        struct reference_writer *w = begin(file_path, &k, known, &done);
        assert_int_equal(done, whole_pairs(cut));
        assert_memory_equal(known, sums, (size_t)done * PAIR_BYTES);
        for (int64_t i = 2 * done; i < 2 * FEW; i++)
            assert_int_equal(((unsigned char *)&known[i])[0], 0x55);
        if (done < FEW)
            append(w, FEW - done, sums + 2 * done);
        commit(w);
        assert_int_equal(entries(folder), 1);
        assert_same_file(file_path, want, want_bytes);
    }
    printf("%zu cuts, each gave the same %zu bytes\n", bytes + 1, want_bytes);
    unlink(file_path);
    free(whole);
    free(want);
    free(sums);
}

static void a_changed_part_is_used_up_to_the_change(void **state)
{
    (void)state;
    struct reference_key k = key_of(FEW);
    double *sums = make_sums(FEW), known[2 * FEW];
    size_t bytes, left;
    make_part(file_path, sums, BLOCKS);
    char *whole = get_bytes(part_path, &bytes);
    for (size_t at = 8; at < bytes; at++) {
        int64_t done;
        whole[at] = (char)(whole[at] ^ (1 << at % 8));
        put_bytes(part_path, whole, bytes);
        whole[at] = (char)(whole[at] ^ (1 << at % 8));
        reference_close(begin(file_path, &k, known, &done));
        assert_int_equal(done, at < HEAD_BYTES ? 0 : whole_pairs(at));
        assert_memory_equal(known, sums, (size_t)done * PAIR_BYTES);
        free(get_bytes(part_path, &left)); /* the rest was cut off */
        assert_int_equal(whole_pairs(left), done);
        assert_true(left <= at || left == HEAD_BYTES);
    }
    put_bytes(part_path, whole, bytes);
    FILE *f = fopen(part_path, "ab"); /* a block behind the last pair */
    fwrite(whole + HEAD_BYTES, 1, bytes - HEAD_BYTES, f);
    fclose(f);
    int64_t done;
    reference_close(begin(file_path, &k, known, &done));
    assert_int_equal(done, FEW);
    assert_same_file(part_path, whole, bytes);
    size_t block = BLOCK_HEAD_BYTES + (size_t)block_pairs[0] * PAIR_BYTES;
    put_bytes(part_path, whole, HEAD_BYTES + block);
    f = fopen(part_path, "ab"); /* the first block a second time */
    fwrite(whole + HEAD_BYTES, 1, block, f);
    fclose(f);
    reference_close(begin(file_path, &k, known, &done));
    assert_int_equal(done, block_pairs[0]);
    assert_same_file(part_path, whole, HEAD_BYTES + block);
    memset(whole, 0, bytes); /* of a crash: the size reached the disk, not its bytes */
    put_bytes(part_path, whole, bytes);
    reference_close(begin(file_path, &k, known, &done));
    assert_int_equal(done, 0);
    unlink(part_path);
    free(whole);
    free(sums);
}

static void a_part_of_another_key_is_dropped(void **state)
{
    (void)state;
    double *sums = make_sums(FEW), known[2 * FEW];
    make_part(file_path, sums, BLOCKS);
    struct reference_key k = key_of(FEW);
    k.precision = "bf16";
    int64_t done;
    struct reference_writer *w = begin(file_path, &k, known, &done);
    assert_int_equal(done, 0);
    append(w, 2, sums);
    reference_close(w);
    reference_close(begin(file_path, &k, known, &done));
    assert_int_equal(done, 2);
    unlink(part_path);
    free(sums);
}

static void another_file_is_no_part(void **state)
{
    (void)state;
    static const char text[] = "a download of another program, not finished";
    struct reference_key k = key_of(FEW);
    struct err err = {0};
    double known[2 * FEW];
    int64_t done;
    put_bytes(part_path, text, sizeof text);
    assert_null(reference_begin(file_path, &k, known, &done, &err));
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "found another file; move it away"));
    assert_same_file(part_path, text, sizeof text);
    unlink(part_path);
}

static void limit_files(rlim_t bytes, struct rlimit *old)
{
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, old), 0);
    struct rlimit small = *old;
    small.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
}

/* As a disk that is full: first for the part's head, then within a block, then for the
 * file. */
static void no_room_is_an_error(void **state)
{
    (void)state;
    struct reference_key k = key_of(FEW);
    double *sums = make_sums(FEW), known[2 * FEW];
    struct err err = {0};
    struct rlimit old;
    int64_t done;
    limit_files(HEAD_BYTES - 1, &old);
    struct reference_writer *w = reference_begin(file_path, &k, known, &done, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    printf("%s\n", err.text);
    assert_null(w);
    assert_int_equal(err.code, ERR_IO);
    assert_int_equal(entries(folder), 0);

    w = begin(file_path, &k, known, &done);
    append(w, 5, sums);
    size_t bytes = HEAD_BYTES + BLOCK_HEAD_BYTES + 5 * PAIR_BYTES;
    for (size_t more = 0; more < BLOCK_HEAD_BYTES + 7 * PAIR_BYTES; more += 9) {
        struct stat st;
        limit_files(bytes + more, &old);
        err.code = ERR_NONE;
        int rc = reference_append(w, 7, sums + 10, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(rc, -1);
        assert_int_equal(err.code, ERR_IO);
        assert_int_equal(stat(part_path, &st), 0);
        assert_int_equal(st.st_size, bytes);
    }
    printf("%s\n", err.text);
    append(w, 7, sums + 10); /* room was made */
    limit_files(1000, &old);
    int rc = reference_commit(&w, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    printf("%s\n", err.text);
    assert_int_equal(rc, -1);
    assert_null(w);
    assert_int_equal(err.code, ERR_IO);
    assert_int_equal(entries(folder), 1); /* the part */
    assert_int_equal(reference_read(file_path, &k, known, &err), 0);
    w = begin(file_path, &k, known, &done);
    assert_int_equal(done, FEW);
    assert_memory_equal(known, sums, sizeof known);
    commit(w);
    assert_int_equal(reference_read(file_path, &k, known, &err), 1);
    assert_memory_equal(known, sums, sizeof known);
    unlink(file_path);
    free(sums);
}

static void no_permission_is_an_error(void **state)
{
    (void)state;
    char closed[300], inside[320];
    snprintf(closed, sizeof closed, "%s/closed", folder);
    snprintf(inside, sizeof inside, "%s/a.h5", closed);
    struct reference_key k = key_of(FEW);
    struct err err = {0};
    double known[2 * FEW];
    int64_t done;
    bool root = geteuid() == 0; /* may write anywhere, so become nobody */
    assert_int_equal(mkdir(closed, 0555), 0);
    chmod(folder, 0755);
    if (root && seteuid(65534) < 0)
        skip();
    struct reference_writer *w = reference_begin(inside, &k, known, &done, &err);
    if (root)
        assert_int_equal(seteuid(0), 0);
    printf("%s\n", err.text);
    assert_null(w);
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "closed/a.h5.part: cannot create: Permission"));
    assert_int_equal(entries(closed), 0);
    rmdir(closed);
    assert_null(reference_begin(inside, &k, known, &done, &err));
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "No such file"));
}

/* Two files, the old and its replacement, the second through a run that is killed. */
static void a_kill_leaves_the_old_file_and_the_part(void **state)
{
    (void)state;
    struct reference_key k = key_of(FEW), other = key_of(FEW);
    double *sums = make_sums(FEW), known[2 * FEW];
    struct err err = {0};
    char want_path[300];
    size_t bytes;
    snprintf(want_path, sizeof want_path, "%s/want.h5", folder);
    other.weights = "other";
    make_file(want_path, &k, sums);
    char *want = get_bytes(want_path, &bytes);
    make_file(file_path, &other, sums);
    pid_t child = fork();
    if (child == 0) {
        int64_t done;
        struct reference_writer *w = reference_begin(file_path, &k, known, &done, &err);
        if (w && reference_append(w, 5, sums, &err) == 0 &&
            reference_append(w, 2, sums + 10, &err) == 0)
            raise(SIGKILL);
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(reference_read(file_path, &other, known, &err), 1);
    int64_t done;
    struct reference_writer *w = begin(file_path, &k, known, &done);
    assert_int_equal(done, 7);
    append(w, 5, sums + 14);
    commit(w);
    assert_same_file(file_path, want, bytes);
    assert_int_equal(entries(folder), 2);
    unlink(file_path);
    unlink(want_path);
    free(want);
    free(sums);
}

/* A second process makes the same file while a first one is in the middle of it. (The
 * first opens and closes the part nowhere else meanwhile: that would give up its lock.)
 */
static void two_at_once_do_not_meet(void **state)
{
    (void)state;
    struct reference_key k = key_of(FEW);
    double *sums = make_sums(FEW), known[2 * FEW];
    struct err err = {0};
    int64_t done;
    size_t bytes;
    int status;
    make_part(file_path, sums, 1);
    char *before = get_bytes(part_path, &bytes);
    struct reference_writer *w = begin(file_path, &k, known, &done);
    assert_int_equal(done, block_pairs[0]);
    pid_t child = fork();
    if (child == 0) {
        struct reference_writer *own =
            reference_begin(file_path, &k, known, &done, &err);
        _exit(!own || done != 0 || reference_append(own, FEW, sums, &err) < 0 ||
              reference_commit(&own, &err) < 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(reference_read(file_path, &k, known, &err), 1);
    assert_memory_equal(known, sums, sizeof known);
    append(w, FEW - done, sums + 2 * done); /* where the first one was */
    reference_close(w);
    char *after = get_bytes(part_path, &bytes);
    assert_memory_equal(before, after,
                        HEAD_BYTES + BLOCK_HEAD_BYTES +
                            (size_t)block_pairs[0] * PAIR_BYTES);
    w = begin(file_path, &k, known, &done);
    assert_int_equal(done, FEW);
    commit(w);
    assert_int_equal(entries(folder), 1);
    unlink(file_path);
    free(before);
    free(after);
    free(sums);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_cut_anywhere_goes_on),
        cmocka_unit_test(a_changed_part_is_used_up_to_the_change),
        cmocka_unit_test(a_part_of_another_key_is_dropped),
        cmocka_unit_test(another_file_is_no_part),
        cmocka_unit_test(no_room_is_an_error),
        cmocka_unit_test(no_permission_is_an_error),
        cmocka_unit_test(a_kill_leaves_the_old_file_and_the_part),
        cmocka_unit_test(two_at_once_do_not_meet),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
