/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* seteuid, mkdtemp beside POSIX's */
#include "src/base/file.h"
#include "src/base/leftovers.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A folder of this test alone; *state is its path. */
static int make_folder(void **state)
{
    const char *tmp = getenv("TMPDIR");
    char path[4096];
    snprintf(path, sizeof path, "%s/dusk-file-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(path))
        return -1;
    *state = strdup(path);
    return 0;
}

static int remove_folder(void **state)
{
    struct err err = {0};
    int rc = file_remove_tree(*state, &err);
    if (access(*state, F_OK) == 0)
        rc = -1;
    free(*state);
    return rc;
}

static char *in(void **state, const char *name)
{
    struct err err = {0};
    char *path = file_join(*state, name, &err);
    assert_non_null(path);
    return path;
}

static int entries(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2; /* . and .. */
}

static void assert_content(const char *path, const char *expected)
{
    struct err err = {0};
    size_t bytes = 77;
    char *text = file_read(path, 1 << 20, &bytes, &err);
    if (!text)
        fail_msg("%s", err.text);
    assert_int_equal(bytes, strlen(expected));
    assert_string_equal(text, expected);
    free(text);
}

static void write_then_read(void **state)
{
    struct err err = {0};
    char *path = in(state, "a.txt");
    static const char *const texts[] = {"first", "", "a longer second\nline"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(file_write_atomic(path, texts[i], strlen(texts[i]), &err), 0);
        assert_content(path, texts[i]);
        assert_int_equal(entries(*state), 1);
    }
    free(path);
}

static void read_refuses_more_than_the_limit(void **state)
{
    char *path = in(state, "a.txt");
    struct err err = {0};
    enum { BYTES = 200000 }; /* several rounds of read */
    char *data = malloc(BYTES);
    for (int i = 0; i < BYTES; i++)
        data[i] = (char)('a' + i % 26);
    assert_int_equal(file_write_atomic(path, data, BYTES, &err), 0);
    size_t bytes;
    char *text = file_read(path, BYTES, &bytes, &err);
    assert_non_null(text);
    assert_int_equal(bytes, BYTES);
    assert_memory_equal(text, data, BYTES);
    assert_int_equal(text[BYTES], '\0');
    free(text);
    assert_null(file_read(path, BYTES - 1, &bytes, &err));
    print_message("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, path));
    free(data);
    free(path);
}

static void read_names_what_is_not_there(void **state)
{
    static const char *const names[] = {"missing", "folder", "file/inside"};
    struct err err = {0};
    char *folder = in(state, "folder"), *file = in(state, "file");
    assert_int_equal(mkdir(folder, 0777), 0);
    assert_int_equal(file_write_atomic(file, "x", 1, &err), 0);
    for (int i = 0; i < 3; i++) {
        char *path = in(state, names[i]);
        size_t bytes;
        err = (struct err){0};
        assert_null(file_read(path, 100, &bytes, &err));
        print_message("%d %s\n", (int)err.code, err.text);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, path));
        free(path);
    }
    free(folder);
    free(file);
}

/* A limit on the size of files stands for a full disk: write fails half-way. */
static void a_full_disk_leaves_the_old_file(void **state)
{
    struct err err = {0};
    struct rlimit old, small = {.rlim_cur = 4096};
    char *path = in(state, "a.txt"), data[10000] = "new";
    assert_int_equal(file_write_atomic(path, "old", 3, &err), 0);
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    int rc = file_write_atomic(path, data, sizeof data, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    print_message("%d %s\n", (int)err.code, err.text);
    assert_int_equal(rc, -1);
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, path));
    assert_content(path, "old");
    assert_int_equal(entries(*state), 1);
    free(path);
}

/* Root may write anywhere: become nobody for the attempt. */
static void a_read_only_folder_is_named(void **state)
{
    struct err err = {0};
    char *path = in(state, "a.txt"), *sub = in(state, "sub/deeper");
    assert_int_equal(file_write_atomic(path, "old", 3, &err), 0);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(chmod(*state, 0555), 0);
    bool root = geteuid() == 0;
    if (root)
        assert_int_equal(seteuid(65534), 0);
    int rc = file_write_atomic(path, "new", 3, &err);
    struct err err2 = {0};
    int rc2 = file_make_folders(sub, &err2);
    if (root)
        assert_int_equal(seteuid(0), 0);
    chmod(*state, 0755);
    print_message("%d %s\n%d %s\n", (int)err.code, err.text, (int)err2.code, err2.text);
    assert_int_equal(rc, -1);
    assert_int_equal(err.code, ERR_IO);
    assert_int_equal(rc2, -1);
    assert_int_equal(err2.code, ERR_IO);
    assert_content(path, "old");
    assert_int_equal(entries(*state), 1);
    free(path);
    free(sub);
}

static void a_folder_in_the_way_stays(void **state)
{
    struct err err = {0};
    char *path = in(state, "a.txt");
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(file_write_atomic(path, "new", 3, &err), -1);
    print_message("%s\n", err.text);
    assert_int_equal(entries(*state), 1);
    assert_int_equal(entries(path), 0);
    free(path);
}

static void reads_and_writes_at_offsets(void **state)
{
    struct err err = {0};
    char *path = in(state, "a.bin"), back[8] = "";
    int fd = open(path, O_RDWR | O_CREAT, 0666);
    assert_int_equal(file_pwrite(fd, path, "world", 5, 6, &err), 0);
    assert_int_equal(file_pwrite(fd, path, "hello ", 6, 0, &err), 0);
    assert_int_equal(file_pread(fd, path, back, 5, 3, &err), 0);
    assert_string_equal(back, "lo wo");
    assert_int_equal(file_pread(fd, path, back, 0, 1000, &err), 0);
    assert_int_equal(file_pread(fd, path, back, 5, 8, &err), -1);
    print_message("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "cut"));
    assert_int_equal(file_pread(-1, path, back, 5, 0, &err), -1);
    assert_int_equal(err.code, ERR_IO);
    assert_int_equal(file_pwrite(-1, path, back, 5, 0, &err), -1);
    assert_int_equal(err.code, ERR_IO);
    close(fd);
    int full = open("/dev/full", O_WRONLY);
    if (full >= 0) {
        assert_int_equal(file_pwrite(full, "/dev/full", "x", 1, 0, &err), -1);
        print_message("%s\n", err.text);
        assert_int_equal(err.code, ERR_IO);
        close(full);
    }
    free(path);
}

static void folders_are_made_and_removed_whole(void **state)
{
    static const char *const paths[] = {"a", "a/b/c", "a/b/c/", "x//y", "a/b"};
    struct err err = {0};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char *path = in(state, paths[i]);
        struct stat st;
        assert_int_equal(file_make_folders(path, &err), 0);
        assert_int_equal(stat(path, &st), 0);
        assert_true(S_ISDIR(st.st_mode));
        free(path);
    }
    char *file = in(state, "a/b/file"), *below = in(state, "a/b/file/c");
    assert_int_equal(file_write_atomic(file, "x", 1, &err), 0);
    assert_int_equal(file_make_folders(below, &err), -1);
    print_message("%s\n", err.text);
    assert_int_equal(file_make_folders(file, &err), -1);
    assert_int_equal(file_sync_folder_of(file, &err), 0);
    assert_int_equal(file_sync_folder_of("here", &err), 0);
    assert_int_equal(file_sync_folder_of(below, &err), -1);

    /* a link out of the tree is removed, what it leads to is not */
    char *link = in(state, "a/b/out"), *kept = in(state, "x/y"), *tree = in(state, "a");
    char *kept_file = in(state, "x/y/kept");
    assert_int_equal(file_write_atomic(kept_file, "kept", 4, &err), 0);
    assert_int_equal(symlink(kept, link), 0);
    assert_int_equal(file_remove_tree(tree, &err), 0);
    assert_int_equal(access(tree, F_OK), -1);
    assert_content(kept_file, "kept");
    assert_int_equal(file_remove_tree(tree, &err), 0); /* missing is fine */
    assert_int_equal(file_remove_tree(kept_file, &err), 0);
    assert_int_equal(access(kept_file, F_OK), -1);
    free(file);
    free(below);
    free(link);
    free(kept);
    free(kept_file);
    free(tree);
}

/* Whole under its name, or as it was before. */
static void a_stream_appears_when_it_is_closed(void **state)
{
    char *path = in(state, "stream");
    for (int failed = 0; failed < 2; failed++) {
        struct err err = {.text = "why"};
        struct file_stream s;
        size_t bytes;
        assert_int_equal(file_stream_open(&s, path, &err), 0);
        assert_true(fprintf(s.to, failed ? "new" : "old") > 0);
        assert_true(failed || access(path, F_OK) != 0);
        assert_int_equal(file_stream_close(&s, failed, &err), -failed);
        assert_string_equal(err.text, "why");
        char *text = file_read(path, 100, &bytes, &err);
        assert_string_equal(text, "old");
        assert_int_equal(entries(*state), 1);
        free(text);
    }
    struct file_stream s;
    struct err err = {0};
    char *absent = in(state, "absent/stream");
    assert_int_equal(file_stream_open(&s, absent, &err), -1);
    assert_non_null(strstr(err.text, "absent/stream"));
    free(absent);
    free(path);
}

static void joins_paths(void **state)
{
    (void)state;
    static const struct {
        const char *dir, *name, *path;
    } rows[] = {{"a", "b", "a/b"},      {"a/", "b", "a/b"}, {"/", "b", "/b"},
                {"a", "/b", "/b"},      {"", "b", "b"},     {"a", "b/c", "a/b/c"},
                {".", "b.h5", "./b.h5"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        char *path = file_join(rows[i].dir, rows[i].name, &err);
        assert_string_equal(path, rows[i].path);
        free(path);
    }
}

#define IN_A_FOLDER(test)                                                              \
    cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

static void leftovers_are_named(void **state)
{
    struct err err = {0};
    char text[512];
    FILE *f = tmpfile();
    struct log log = {f}, silent = {NULL};
    static const char *const names[] = {"a.h5", "a.h5.tmp-7-0", "a.h5x.tmp-7-0",
                                        "ba.h5.tmp-7-0", "a.tmp-7"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = in(state, names[i]);
        assert_int_equal(file_write_atomic(path, "12", 2, &err), 0);
        free(path);
    }
    char *one = in(state, "a.h5"), *none = in(state, "c.h5"), *folder = in(state, "d/");
    char *inside = in(state, "d.tmp-9-0/x");
    assert_int_equal(leftovers_warn(&silent, one), 0);
    assert_int_equal(leftovers_warn(&log, none), 0);
    assert_int_equal(leftovers_warn(&log, "/absent/folder/x"), 0);
    assert_int_equal(ftell(f), 0);
    assert_int_equal(leftovers_warn(&log, one), 1);
    assert_int_equal(
        file_make_folders(strcat(strcpy(text, *state), "/d.tmp-9-0"), &err), 0);
    assert_int_equal(file_write_atomic(inside, text, 500, &err), 0);
    assert_int_equal(leftovers_warn(&log, folder), 1);
    rewind(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    print_message("%s", text);
    assert_non_null(strstr(text, "/a.h5.tmp-7-0 is there (2e-09 GB): of a run"));
    assert_non_null(strstr(text, "/d.tmp-9-0 is there (5e-07 GB): of a run"));
    fclose(f);
    free(one);
    free(none);
    free(folder);
    free(inside);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_FOLDER(write_then_read),
        IN_A_FOLDER(read_refuses_more_than_the_limit),
        IN_A_FOLDER(read_names_what_is_not_there),
        IN_A_FOLDER(a_full_disk_leaves_the_old_file),
        IN_A_FOLDER(a_read_only_folder_is_named),
        IN_A_FOLDER(a_folder_in_the_way_stays),
        IN_A_FOLDER(reads_and_writes_at_offsets),
        IN_A_FOLDER(folders_are_made_and_removed_whole),
        IN_A_FOLDER(a_stream_appears_when_it_is_closed),
        IN_A_FOLDER(leftovers_are_named),
        cmocka_unit_test(joins_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
