/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_folder.h"

#include "src/base/file.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char scratch[256];

static const char *in_scratch(const char *name)
{
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", scratch, name);
    return path[turn];
}

static int make_scratch(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/dusk-folder-XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state)
{
    (void)state;
    struct err err;
    return file_remove_tree(scratch, &err);
}

static int entries(const char *path)
{
    int n = 0;
    struct dirent *e;
    DIR *d = opendir(path);
    assert_non_null(d);
    while ((e = readdir(d)))
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void holds(const char *path, const char *text)
{
    struct err err = {0};
    size_t n;
    char *found = file_read(path, 1000, &n, &err);
    if (!found)
        fail_msg("%s", err.text);
    printf("%s: %s\n", strrchr(path, '/') + 1, found);
    assert_string_equal(found, text);
    free(found);
}

/* Makes PATH a folder whose config.json holds the text, as an export does. */
static int publish(const char *path, bool force, const char *text, struct err *err)
{
    struct hf_folder f;
    if (hf_folder_create(&f, path, force, 1000, err))
        return -1;
    assert_int_equal(hf_folder_put(&f, "config.json", text, strlen(text), err), 0);
    return hf_folder_commit(&f, NULL, err);
}

static void appears_whole_and_is_replaced(void **state)
{
    (void)state;
    struct err err = {0};
    const char *path = in_scratch("model");
    assert_int_equal(publish(path, false, "one", &err), 0);
    holds(in_scratch("model/config.json"), "one");
    path = in_scratch("model");
    assert_int_equal(publish(path, false, "two", &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
    holds(in_scratch("model/config.json"), "one");
    assert_int_equal(publish(in_scratch("model//"), true, "two", &err), 0);
    holds(in_scratch("model/config.json"), "two");
    assert_int_equal(symlink("model", in_scratch("link")), 0);
    assert_int_equal(publish(in_scratch("link"), true, "three", &err), 0);
    holds(in_scratch("model/config.json"), "three");
    struct stat st;
    assert_int_equal(lstat(in_scratch("link"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(entries(scratch), 2); /* no temporary */
    assert_int_equal(entries(in_scratch("model")), 1);
}

static void refuses_to_replace_other_things(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(mkdir(in_scratch("home"), 0777), 0);
    assert_int_equal(publish(in_scratch("home"), false, "x", &err), 0); /* empty */
    assert_int_equal(mkdir(in_scratch("home/letters"), 0777), 0);
    assert_int_equal(publish(in_scratch("home"), true, "y", &err), -1);
    printf("%s\n", err.text);
    assert_non_null(strstr(err.text, "there is a folder in it"));
    assert_int_equal(rmdir(in_scratch("home/letters")), 0);
    assert_int_equal(rename(in_scratch("home/config.json"), in_scratch("home/letter")),
                     0);
    assert_int_equal(publish(in_scratch("home"), true, "y", &err), -1);
    printf("%s\n", err.text);
    assert_non_null(strstr(err.text, "no config.json"));
    assert_int_equal(publish(in_scratch("home/letter"), true, "y", &err), -1);
    assert_non_null(strstr(err.text, "found a file"));
    holds(in_scratch("home/letter"), "x");
}

static void an_abort_leaves_nothing(void **state)
{
    (void)state;
    struct err err = {0};
    struct hf_folder f, zero = {0};
    int before = entries(scratch);
    assert_int_equal(hf_folder_create(&f, in_scratch("new"), false, 1, &err), 0);
    assert_int_equal(hf_folder_put(&f, "a", "x", 1, &err), 0);
    assert_int_equal(hf_folder_put(&f, "../a", "x", 1, &err), -1);
    assert_int_equal(hf_folder_put(&f, ".a", "x", 1, &err), -1);
    assert_int_equal(hf_folder_put(&f, "", "x", 1, &err), -1);
    assert_int_equal(hf_folder_put(&f, "a/b", "x", 1, &err), -1);
    assert_int_equal(err.code, ERR_INPUT);
    assert_int_equal(entries(scratch), before + 1);
    hf_folder_abort(&f);
    hf_folder_abort(&zero);
    assert_int_equal(entries(scratch), before);
    assert_int_equal(hf_folder_create(&f, in_scratch("new"), false, INT64_MAX, &err),
                     -1);
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "no space"));
    assert_int_equal(hf_folder_create(&f, in_scratch("a/b/new"), false, 1, &err), -1);
    assert_int_equal(err.code, ERR_IO);
    assert_int_equal(entries(scratch), before);
}

/* Something else has taken the name meanwhile: it stays, and no temporary does. */
static void a_failed_rename_leaves_nothing(void **state)
{
    (void)state;
    struct err err = {0};
    struct hf_folder f;
    int before = entries(scratch);
    assert_int_equal(hf_folder_create(&f, in_scratch("late"), false, 1, &err), 0);
    FILE *other = fopen(in_scratch("late"), "w");
    assert_non_null(other);
    fputs("other", other);
    fclose(other);
    assert_int_equal(hf_folder_commit(&f, NULL, &err), -1);
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_IO);
    holds(in_scratch("late"), "other");
    assert_int_equal(entries(scratch), before + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appears_whole_and_is_replaced),
        cmocka_unit_test(refuses_to_replace_other_things),
        cmocka_unit_test(an_abort_leaves_nothing),
        cmocka_unit_test(a_failed_rename_leaves_nothing)};
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
