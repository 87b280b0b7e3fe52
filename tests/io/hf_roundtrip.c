/* SPDX-License-Identifier: Apache-2.0 */
/* Import, then export, of every oracle model: each tensor byte for byte, each file that
 * travels too, whatever the number of ranks. */
#include "io/hf_export.h"
#include "io/hf_import.h"
#include "io/hf_layout.h"
#include "io/ckpt.h"
#include "io/safetensors.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct comm *world;
static char folder[256];
static const struct log silent = {NULL};

/* Paths in the scratch folder and of the oracle's models; four are valid at a time. */
static const char *path_of(const char *dir, const char *name)
{
    static char path[4][600];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static const char *model_folder(const char *name)
{
    static char path[400];
    const char *srcdir = getenv("srcdir");
    snprintf(path, sizeof path, "%s/tests/oracle/model/%s", srcdir ? srcdir : ".",
             name);
    return path;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* Bytes of a tensor of a folder, wherever it lies; owned. NULL: it has none. */
static char *tensor_bytes(const char *dir, const char *name, struct safetensor *about)
{
    char *found = NULL;
    struct err err;
    struct dirent *e;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while (!found && (e = readdir(d))) {
        const char *path = path_of(dir, e->d_name), *dot = strrchr(path, '.');
        if (strncmp(e->d_name, "model", 5) != 0 || strcmp(dot, ".safetensors") != 0)
            continue;
        struct safetensors s;
        assert_int_equal(safetensors_read(&s, path, &err), 0);
        const struct safetensor *t = safetensors_find(&s, name);
        if (t) {
            size_t bytes;
            char *all = file_read(path, 1 << 28, &bytes, &err);
            *about = *t;
            found = malloc((size_t)t->bytes + 1);
            memcpy(found, all + t->offset, (size_t)t->bytes);
            free(all);
        }
        safetensors_fini(&s);
    }
    closedir(d);
    return found;
}

static void same_file(const char *a_dir, const char *b_dir, const char *name)
{
    struct err err;
    size_t n, m;
    char *a = file_read(path_of(a_dir, name), 1 << 28, &n, &err);
    char *b = file_read(path_of(b_dir, name), 1 << 28, &m, &err);
    assert_non_null(a);
    assert_non_null(b);
    printf("  %s: %zu bytes, %zu after\n", name, n, m);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    free(a);
    free(b);
}

static void same_tensors(const struct model_shape *s, const char *a_dir,
                         const char *b_dir)
{
    int64_t bytes = 0;
    for (int i = 0; i < table_count(s); i++) {
        struct tensor t = table_at(s, i);
        struct safetensor of_a = {0}, of_b = {0};
        char name[96];
        tensor_hf_name(&t, name, sizeof name);
        char *a = tensor_bytes(a_dir, name, &of_a);
        char *b = tensor_bytes(b_dir, name, &of_b);
        assert_non_null(a);
        assert_non_null(b);
        assert_string_equal(of_a.dtype, of_b.dtype);
        assert_int_equal(of_a.bytes, of_b.bytes);
        assert_memory_equal(a, b, (size_t)of_a.bytes);
        bytes += of_a.bytes;
        free(a);
        free(b);
    }
    printf("  %d tensors, %lld bytes, the same\n", table_count(s), (long long)bytes);
}

static void import_or_fail(struct comm *c, const char *from, const char *to, bool keep,
                           enum dtype dtype)
{
    struct err err = {0};
    const struct hf_import_options o = {
        .folder = from, .output = to, .keep = keep, .dtype = dtype};
    if (hf_import(c, &silent, &o, &err))
        fail_msg("import of %s: %s", from, err.text);
}

static void export_or_fail(struct comm *c, const char *from, const char *to, bool keep,
                           enum dtype dtype, int64_t shard_bytes)
{
    struct err err = {0};
    const struct hf_export_options o = {.checkpoint = from,
                                        .output = to,
                                        .keep = keep,
                                        .dtype = dtype,
                                        .shard_bytes = shard_bytes};
    if (hf_export(c, &silent, &o, &err))
        fail_msg("export to %s: %s", to, err.text);
}

static void shape_of(const char *checkpoint, struct model_shape *s)
{
    struct err err = {0};
    struct ckpt *k = ckpt_open(comm_self(), checkpoint, &err);
    if (!k)
        fail_msg("%s", err.text);
    *s = ckpt_info(k)->shape;
    ckpt_close(k);
}

static void clean(const char *checkpoint, const char *out)
{
    struct err err;
    comm_barrier(world);
    if (comm_root(world)) {
        assert_int_equal(unlink(checkpoint), 0);
        assert_int_equal(file_remove_tree(out, &err), 0);
    }
    comm_barrier(world);
}

static void every_model_comes_back(void **state)
{
    (void)state;
    static const char *const models[] = {
        "tiny-mistral",         "tiny-mistral-bf16",
        "tiny-mistral-window",  "tiny-llama-tied",
        "tiny-llama-ropetheta", "tiny-llama-ropetheta-f16",
        "hostile-llama",        "merge/a",
        "upscale/small-m1"};
    static const char *const carried[] = {
        "tokenizer.model", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "generation_config.json"};
    const char *checkpoint = strdup(path_of(folder, "m.h5"));
    const char *out = strdup(path_of(folder, "out"));
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const char *from = model_folder(models[i]);
        if (comm_root(world))
            printf("%s on %d ranks\n", models[i], comm_size(world));
        import_or_fail(world, from, checkpoint, true, DTYPE_F32);
        export_or_fail(world, checkpoint, out, true, DTYPE_F32, 300000);
        if (comm_root(world)) {
            struct model_shape s;
            shape_of(checkpoint, &s);
            same_tensors(&s, from, out);
            for (size_t k = 0; k < sizeof carried / sizeof *carried; k++)
                if (exists(path_of(from, carried[k])))
                    same_file(from, out, carried[k]);
                else
                    assert_false(exists(path_of(out, carried[k])));
        }
        clean(checkpoint, out);
    }
    free((void *)checkpoint);
    free((void *)out);
}

/* transformers wrote tiny-mistral with max_shard_size 300KB: the same files. */
static void files_are_those_of_transformers(void **state)
{
    (void)state;
    const char *checkpoint = strdup(path_of(folder, "m.h5"));
    const char *out = strdup(path_of(folder, "out"));
    import_or_fail(world, model_folder("tiny-mistral"), checkpoint, true, DTYPE_F32);
    export_or_fail(world, checkpoint, out, true, DTYPE_F32, 300000);
    if (comm_root(world)) {
        static const char *const files[] = {
            "model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors",
            "model-00003-of-00004.safetensors", "model-00004-of-00004.safetensors",
            "model.safetensors.index.json"};
        for (size_t i = 0; i < sizeof files / sizeof *files; i++)
            same_file(model_folder("tiny-mistral"), out, files[i]);
        struct stat st;
        mode_t mask = umask(0);
        umask(mask);
        assert_int_equal(stat(path_of(out, files[0]), &st), 0);
        assert_int_equal(st.st_mode & 0777, 0644 & ~mask);
    }
    clean(checkpoint, out);
    free((void *)checkpoint);
    free((void *)out);
}

/* One element of a conversion: what it was, and what it should have become. */
static void check_converted(const char *was_dtype, const char *was, const char *now,
                            int64_t n, enum dtype to)
{
    enum dtype from;
    struct err err;
    assert_int_equal(dtype_parse(was_dtype, &from), 0);
    float *wide = mem_array(n, sizeof *wide, &err);
    char *expected = mem_array(n, sizeof *wide, &err);
    dtype_to_f32(from, was, n, wide);
    dtype_from_f32(to, wide, n, expected);
    assert_memory_equal(now, expected, (size_t)n * dtype_bytes(to));
    mem_free(wide);
    mem_free(expected);
}

static void dtypes_are_converted(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        bool import_keeps;
        enum dtype import_to;
        bool export_keeps;
        enum dtype export_to, result;
    } rows[] = {
        {"hostile-llama", false, DTYPE_F32, true, DTYPE_F32, DTYPE_F32},
        {"hostile-llama", false, DTYPE_BF16, true, DTYPE_F32, DTYPE_BF16},
        {"hostile-llama", true, DTYPE_F32, false, DTYPE_BF16, DTYPE_BF16},
        {"tiny-mistral", true, DTYPE_F32, false, DTYPE_F16, DTYPE_F16},
        {"tiny-llama-ropetheta-f16", false, DTYPE_F32, true, DTYPE_F32, DTYPE_F32},
    };
    const char *checkpoint = strdup(path_of(folder, "m.h5"));
    const char *out = strdup(path_of(folder, "out"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *from = model_folder(rows[i].model);
        import_or_fail(world, from, checkpoint, rows[i].import_keeps,
                       rows[i].import_to);
        export_or_fail(world, checkpoint, out, rows[i].export_keeps, rows[i].export_to,
                       5000000000);
        if (comm_root(world)) {
            struct model_shape s;
            shape_of(checkpoint, &s);
            for (int k = 0; k < table_count(&s); k++) {
                struct tensor t = table_at(&s, k);
                struct safetensor was, now;
                char name[96];
                tensor_hf_name(&t, name, sizeof name);
                char *a = tensor_bytes(from, name, &was);
                char *b = tensor_bytes(out, name, &now);
                assert_string_equal(now.dtype, dtype_name(rows[i].result));
                check_converted(was.dtype, a, b, t.elements, rows[i].result);
                free(a);
                free(b);
            }
            printf("%s as %s: every value as rounded\n", rows[i].model,
                   dtype_name(rows[i].result));
        }
        clean(checkpoint, out);
    }
    free((void *)checkpoint);
    free((void *)out);
}

/* Lets this process open `more` further files, or any number again (-1). */
static void limit_files(int more)
{
    static struct rlimit was;
    if (more < 0) {
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
        return;
    }
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    struct rlimit now = was;
    int lowest = open("/dev/null", O_RDONLY);
    assert_int_not_equal(lowest, -1);
    close(lowest);
    now.rlim_cur = (rlim_t)(lowest + more);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
}

/* All ranks must have failed with the same text and code, and left nothing. */
static void check_failure(int rc, struct err *err, const char *what, int more)
{
    struct err of_root = *err;
    comm_bcast(world, &of_root, sizeof of_root, 0);
    if (comm_root(world))
        printf("%s with %d files: %s\n", what, more, rc ? err->text : "is done");
    assert_int_equal(rc, -1);
    assert_int_equal(err->code, of_root.code);
    assert_string_equal(err->text, of_root.text);
    assert_non_null(strstr(err->text, "Too many open files"));
    if (comm_root(world)) {
        DIR *d = opendir(folder);
        struct dirent *e;
        while ((e = readdir(d)))
            if (e->d_name[0] != '.' && strcmp(e->d_name, "m.h5") != 0)
                fail_msg("%s left %s behind", what, e->d_name);
        closedir(d);
    }
    comm_barrier(world);
}

/* The last rank alone cannot open the checkpoint, a shard, or the folder's file. */
static void one_rank_alone_fails_for_all(void **state)
{
    (void)state;
    bool last = comm_rank(world) == comm_size(world) - 1;
    const char *checkpoint = strdup(path_of(folder, "m.h5"));
    const char *other = strdup(path_of(folder, "other.h5"));
    const char *out = strdup(path_of(folder, "out"));
    import_or_fail(world, model_folder("tiny-mistral"), checkpoint, true, DTYPE_F32);
    const struct hf_import_options in = {
        .folder = model_folder("tiny-mistral"), .output = other, .keep = true};
    const struct hf_export_options ex = {
        .checkpoint = checkpoint, .output = out, .keep = true, .shard_bytes = 300000};
    for (int more = 0; more < 2 && comm_size(world) > 1; more++)
        for (int k = 0; k < 2; k++) {
            struct err err = {0};
            comm_barrier(world);
            if (last)
                limit_files(more);
            int rc = k ? hf_export(world, &silent, &ex, &err)
                       : hf_import(world, &silent, &in, &err);
            if (last)
                limit_files(-1);
            check_failure(rc, &err, k ? "export" : "import", more);
        }
    comm_barrier(world);
    if (comm_root(world))
        unlink(checkpoint);
    free((void *)checkpoint);
    free((void *)other);
    free((void *)out);
}

int main(int argc, char **argv)
{
    struct err err;
    world = comm_start(&argc, &argv, &err);
    if (!world)
        return 99;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/dusk-roundtrip-XXXXXX", tmp ? tmp : "/tmp");
    if (comm_root(world) && !mkdtemp(folder))
        return 99;
    comm_bcast(world, folder, sizeof folder, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_model_comes_back),
        cmocka_unit_test(files_are_those_of_transformers),
        cmocka_unit_test(dtypes_are_converted),
        cmocka_unit_test(one_rank_alone_fails_for_all)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_barrier(world);
    if (comm_root(world))
        file_remove_tree(folder, &err);
    comm_finish(world);
    return failed;
}
