/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tokenize.h"

#include "io/token_set.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/rng.h"
#include "tests/support/arrays.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

/* Text of 400 documents in a.txt (lines, some empty, some with CR LF) and 200 in
 * b.jsonl; chunks of 1,000 bytes, so that all ranks have several. */
enum { A_DOCUMENTS = 400, B_DOCUMENTS = 200, DOCUMENTS = A_DOCUMENTS + B_DOCUMENTS };
enum { CHUNK_BYTES = 1000 };

static struct comm *world;
static struct tokenizer *tokenizer;
static char folder[256];

static const char *in_folder(const char *name)
{
    static char path[8][512];
    static int turn;
    turn = (turn + 1) % 8;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

/* Text of document i of both files together; the longest is longer than a chunk. */
static void document(int i, char *text, size_t size)
{
    static const char *const words[] = {
        "the ", "clips ", "48 ", "</s> ", "\\o/ ", "Speak", "\xc3\xa9t\xc3\xa9 ", "a"};
    int n = i % 97 == 5 ? 700 : 1 + (int)(rng_u64(3, 0, (uint64_t)i) % 12);
    text[0] = '\0';
    for (int k = 0; k < n && strlen(text) + 16 < size; k++)
        strcat(text, words[rng_u64(3, (uint64_t)i + 1, (uint64_t)k) % 8]);
}

static void write_inputs(void)
{
    static char text[8192];
    FILE *a = fopen(in_folder("a.txt"), "wb"), *b = fopen(in_folder("b.jsonl"), "wb");
    assert_non_null(a);
    assert_non_null(b);
    for (int i = 0; i < A_DOCUMENTS; i++) {
        document(i, text, sizeof text);
        fprintf(a, "%s%s%s", text, i % 3 ? "\n" : "\r\n", i % 7 ? "" : "\n\r\n");
    }
    for (int i = A_DOCUMENTS; i < DOCUMENTS; i++) {
        document(i, text, sizeof text);
        fprintf(b, "{\"n\": %d, \"body\": \"", i);
        for (const char *c = text; *c; c++)
            fprintf(b, "%s%c", *c == '\\' ? "\\" : "", *c);
        fprintf(b, "\"}%s", i == DOCUMENTS - 1 ? "" : "\n \n");
    }
    fclose(a);
    fclose(b);
}

static int make_folder(void **state)
{
    (void)state;
    struct err err = {0};
    if (comm_root(world)) {
        const char *tmp = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%s/dusk-tokenize-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(folder))
            return -1;
    }
    comm_bcast(world, folder, sizeof folder, 0);
    char *path = oracle_path("tokenizer/tiny512/tokenizer.model");
    size_t bytes;
    char *model = file_read(path, 1 << 20, &bytes, &err);
    assert_non_null(model);
    tokenizer = tokenizer_create(model, bytes, path, &err);
    free(model);
    free(path);
    if (comm_root(world))
        write_inputs();
    comm_barrier(world);
    return tokenizer ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    struct err err = {0};
    tokenizer_destroy(tokenizer);
    comm_barrier(world);
    return comm_root(world) ? file_remove_tree(folder, &err) : 0;
}

static int entries(void)
{
    DIR *d = opendir(folder);
    assert_non_null(d);
    int n = -2;
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static struct tokenize_options options(const char *const *files, int n,
                                       const char *output)
{
    return (struct tokenize_options){.files = files,
                                     .files_n = n,
                                     .output = output,
                                     .field = "body",
                                     .bos = true,
                                     .eos = true,
                                     .chunk_bytes = CHUNK_BYTES};
}

static struct token_ids expected(int i, const struct tokenize_options *o)
{
    static char text[8192];
    struct err err = {0};
    struct token_ids ids = {0};
    document(i, text, sizeof text);
    if (o->bos)
        token_ids_push(&ids, tokenizer_bos(tokenizer), &err);
    assert_int_equal(
        tokenizer_encode(tokenizer, text, strlen(text), o->parse_special, &ids, &err),
        0);
    if (o->eos)
        token_ids_push(&ids, tokenizer_eos(tokenizer), &err);
    return ids;
}

static struct token_set *open_set(const char *name)
{
    struct err err = {0};
    struct token_set *t = token_set_open(comm_self(), in_folder(name), &err);
    if (!t)
        print_error("%s\n", err.text);
    assert_non_null(t);
    return t;
}

/* Is document d of a set these ids? */
static bool holds(struct token_set *t, int64_t d, const struct token_ids *ids)
{
    struct err err = {0};
    int64_t ends[2] = {0, 0};
    if (d >= token_set_info(t)->documents)
        return false;
    assert_int_equal(d ? token_set_document_ends(t, d - 1, 2, ends, &err)
                       : token_set_document_ends(t, 0, 1, &ends[1], &err),
                     0);
    if (ends[1] - ends[0] != ids->n)
        return false;
    int32_t *found = malloc((size_t)ids->n * sizeof *found);
    assert_int_equal(token_set_read(t, ends[0], ids->n, found, &err), 0);
    bool same = memcmp(found, ids->id, (size_t)ids->n * sizeof *found) == 0;
    free(found);
    return same;
}

/* Every document is the next one of the set or of its validation set. */
static void check_sets(const char *name, const char *valid_name,
                       const struct tokenize_options *o)
{
    struct token_set *train = open_set(name),
                     *valid = valid_name ? open_set(valid_name) : NULL;
    int64_t t = 0, v = 0;
    for (int i = 0; i < DOCUMENTS; i++) {
        struct token_ids ids = expected(i, o);
        if (holds(train, t, &ids))
            t++;
        else if (valid && holds(valid, v, &ids))
            v++;
        else
            fail_msg("document %d is neither the next of %s nor of %s", i, name,
                     valid_name ? valid_name : "nothing");
        free(ids.id);
    }
    printf("%s: %lld documents, %lld held out of %d\n", name, (long long)t,
           (long long)v, DOCUMENTS);
    assert_int_equal(t, token_set_info(train)->documents);
    if (valid)
        assert_in_range(v, DOCUMENTS * o->valid / 2, DOCUMENTS * o->valid * 2);
    token_set_close(train);
    token_set_close(valid);
}

static char *read_all(const char *name, size_t *bytes)
{
    struct err err = {0};
    char *data = file_read(in_folder(name), 1 << 26, bytes, &err);
    if (!data)
        print_error("%s\n", err.text);
    assert_non_null(data);
    return data;
}

static void check_same(const char *a, const char *b)
{
    size_t n, m;
    char *x = read_all(a, &n), *y = read_all(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

static void remove_all(const char *const *names, int n)
{
    comm_barrier(world);
    for (int i = 0; i < n && comm_root(world); i++)
        unlink(in_folder(names[i]));
    comm_barrier(world);
}

/* Runs on the first `ranks` of the world. */
static int tokenize_on(int ranks, const struct tokenize_options *o,
                       struct tokenize_counts *counts, struct err *err)
{
    bool inside = comm_rank(world) < ranks;
    struct comm *c = comm_split(world, inside ? 0 : 1, comm_rank(world));
    int failed = inside ? tokenize(c, NULL, tokenizer, o, counts, err) : 0;
    comm_free(c);
    comm_barrier(world);
    return failed;
}

static void any_number_of_ranks_gives_the_same_sets(void **state)
{
    (void)state;
    static const struct {
        bool bos, eos, parse_special;
        double valid;
    } rows[] = {{true, true, false, 0.1}, {false, false, true, 0.25}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int ranks = 1; ranks <= comm_size(world); ranks++) {
            struct err err = {0};
            struct tokenize_counts n = {0};
            const char *files[] = {in_folder("a.txt"), in_folder("b.jsonl")};
            char name[32], valid_name[32];
            snprintf(name, sizeof name, "on%d.h5", ranks);
            snprintf(valid_name, sizeof valid_name, "on%d.valid.h5", ranks);
            struct tokenize_options o = options(files, 2, in_folder(name));
            o.bos = rows[i].bos;
            o.eos = rows[i].eos;
            o.parse_special = rows[i].parse_special;
            o.valid = rows[i].valid;
            o.seed = 5;
            o.force = true;
            if (ranks == 1)
                o.chunk_bytes = 0; /* all in one chunk: the cuts change nothing */
            assert_int_equal(tokenize_on(ranks, &o, &n, &err), 0);
            if (!comm_root(world))
                continue;
            assert_int_equal(n.documents + n.valid_documents, DOCUMENTS);
            check_sets(name, valid_name, &o);
            if (ranks > 1) {
                check_same("on1.h5", name);
                check_same("on1.valid.h5", valid_name);
            }
        }
    if (comm_root(world)) /* inputs and sets, no temporary */
        assert_int_equal(entries(), 2 + 2 * comm_size(world));
    const char *names[] = {"on1.h5",       "on1.valid.h5", "on2.h5",
                           "on2.valid.h5", "on3.h5",       "on3.valid.h5"};
    remove_all(names, 6);
}

/* More tokens than a block on every rank, so that arrays have several. */
static void large_sets_are_shared_by_blocks(void **state)
{
    (void)state;
    enum { COPIES = 60 };
    struct err err = {0};
    struct tokenize_counts n = {0};
    for (int ranks = 1; ranks <= comm_size(world); ranks++) {
        char name[32];
        const char *files[COPIES] = {in_folder("a.txt"), in_folder("b.jsonl")};
        for (int i = 2; i < COPIES; i++)
            files[i] = files[i % 2];
        snprintf(name, sizeof name, "big%d.h5", ranks);
        struct tokenize_options o = options(files, COPIES, in_folder(name));
        o.chunk_bytes = 50000;
        assert_int_equal(tokenize_on(ranks, &o, &n, &err), 0);
        if (!comm_root(world))
            continue;
        printf("%lld tokens, %lld documents\n", (long long)n.tokens,
               (long long)n.documents);
        assert_true(n.tokens * 2 > 6 * SEALED_BLOCK_BYTES);
        assert_true(n.documents * 8 > 2 * SEALED_BLOCK_BYTES);
        if (ranks > 1)
            check_same("big1.h5", name);
    }
    const char *names[] = {"big1.h5", "big2.h5", "big3.h5"};
    remove_all(names, 3);
}

/* What stands in a file of that name is tokenized with options changed by `set`. */
struct bad_row {
    const char *name, *content;
    void (*set)(struct tokenize_options *o);
    enum err_code code;
    const char *says;
};

static void set_valid(struct tokenize_options *o)
{
    o->valid = 1e-9;
}

static void set_output_folder(struct tokenize_options *o)
{
    o->output = folder;
}

static void set_output_nowhere(struct tokenize_options *o)
{
    o->output = "/nowhere/at/all.h5";
}

static void set_output_forbidden(struct tokenize_options *o)
{
    o->output = "/proc/set.h5"; /* where not even root may create a file */
}

static void set_file_rule(struct tokenize_options *o)
{
    o->document = TEXT_FILE;
}

static const struct bad_row bad_rows[] = {
    {"x.txt", "", NULL, ERR_INPUT, "x.txt: empty text"},
    {"x.txt", "\n\r\n\n", NULL, ERR_INPUT, "x.txt: empty text"},
    {"x.txt", "", set_file_rule, ERR_INPUT, "x.txt: empty text"},
    {"x.jsonl", "{\"body\": \"\"}\n\n", NULL, ERR_INPUT, "x.jsonl: empty text"},
    {"x.jsonl", "{\"body\": \"a\"}\n{\"body\": \"b\"\n", NULL, ERR_INPUT,
     "x.jsonl:2: expected one JSON object a line, found: column"},
    {"x.jsonl", "{\"body\": \"a\"} {}\n", NULL, ERR_INPUT,
     "x.jsonl:1: expected one JSON object a line"},
    {"x.jsonl", "\n\n{\"body\": \"a\", \"body\": \"b\"}", NULL, ERR_INPUT,
     "x.jsonl:3: expected one JSON object a line, found: column"},
    {"x.jsonl", "{\"text\": \"a\", \"n\": 1}", NULL, ERR_INPUT,
     "x.jsonl:1: expected a field \"body\", found \"text\", \"n\"; --field"},
    {"x.jsonl", "{}", NULL, ERR_INPUT, "found no keys"},
    {"x.jsonl", "{\"body\": 12}", NULL, ERR_INPUT,
     "x.jsonl:1: field \"body\": expected a string, found 12"},
    {"x.jsonl", "{\"body\": null}", NULL, ERR_INPUT, "expected a string, found null"},
    {"x.jsonl", "[\"body\"]", NULL, ERR_INPUT, "expected a JSON object, found a list"},
    {"x.jsonl", "{\"body\": \"\\u0000\"}", NULL, ERR_INPUT, "x.jsonl:1: "},
    {"x.jsonl", "{\"body\": \"\xff\"}", NULL, ERR_INPUT, "x.jsonl:1: "},
    {"x.txt", "a\nb\n", set_valid, ERR_USAGE,
     "--valid 1e-09 of 2 documents leaves the validation set empty"},
    {"x.txt", "a", set_output_folder, ERR_USAGE, "expected the name of a file"},
    {"x.txt", "a", set_output_nowhere, ERR_IO, "/nowhere/at"},
    {"x.txt", "a", set_output_forbidden, ERR_IO, "/proc/set.h5"},
};

static void bad_input_leaves_nothing_behind(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_rows / sizeof *bad_rows; i++) {
        const struct bad_row *row = &bad_rows[i];
        struct err err = {0};
        struct tokenize_counts n;
        const char *file = in_folder(row->name);
        struct tokenize_options o = options(&file, 1, in_folder("bad.h5"));
        if (comm_root(world)) {
            FILE *f = fopen(file, "wb");
            fputs(row->content, f);
            fclose(f);
        }
        comm_barrier(world);
        if (row->set)
            row->set(&o);
        assert_int_equal(tokenize(world, NULL, tokenizer, &o, &n, &err), -1);
        if (comm_root(world)) {
            printf("%s\n", err.text);
            assert_int_equal(entries(), 3);
        }
        assert_int_equal(err.code, row->code);
        assert_non_null(strstr(err.text, row->says));
        remove_all(&row->name, 1);
    }
}

static void a_file_that_one_rank_cannot_open_ends_all(void **state)
{
    (void)state;
    struct err err = {0};
    struct tokenize_counts n;
    int last = comm_size(world) - 1;
    const char *files[] = {in_folder("a.txt"), comm_rank(world) == last
                                                   ? "/nowhere/b.jsonl"
                                                   : in_folder("b.jsonl")};
    struct tokenize_options o = options(files, 2, in_folder("bad.h5"));
    assert_int_equal(tokenize(world, NULL, tokenizer, &o, &n, &err), -1);
    char rank[32] = "";
    if (last)
        snprintf(rank, sizeof rank, "rank %d (", last);
    if (comm_root(world))
        printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    assert_int_equal(strncmp(err.text, rank, strlen(rank)), 0);
    assert_non_null(strstr(err.text, "/nowhere/b.jsonl: cannot open: No such file"));
    comm_barrier(world);
    assert_int_equal(entries(), 2);
    if (last) { /* a rank that sees another file */
        files[1] = comm_rank(world) == last ? files[0] : in_folder("b.jsonl");
        assert_int_equal(tokenize(world, NULL, tokenizer, &o, &n, &err), -1);
        assert_non_null(strstr(err.text, "all must see the same file"));
    }
    comm_barrier(world);
}

static void an_old_set_is_kept_or_replaced_whole(void **state)
{
    (void)state;
    struct err err = {0};
    struct tokenize_counts n;
    const char *file = in_folder("a.txt"), *bad = in_folder("bad.jsonl");
    struct tokenize_options o = options(&file, 1, in_folder("old.h5"));
    size_t before = 0, after = 0;
    assert_int_equal(tokenize(world, NULL, tokenizer, &o, &n, &err), 0);
    char *old = comm_root(world) ? read_all("old.h5", &before) : NULL;
    assert_int_equal(tokenize(world, NULL, tokenizer, &o, &n, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "old.h5: exists; --force replaces it"));
    if (comm_root(world)) { /* a new failure, and what a killed run leaves */
        FILE *f = fopen(bad, "wb");
        fputs("{\"body\": \"a\"}\nnot JSON", f);
        fclose(f);
        fclose(fopen(in_folder("old.h5.tmp-0123456789abcdef-ids-1"), "wb"));
        fclose(fopen(in_folder("old.h5.tmp-0123456789abcdef-train.tmp-9"), "wb"));
    }
    comm_barrier(world);
    o.files = &bad;
    o.force = true;
    assert_int_equal(tokenize(world, NULL, tokenizer, &o, &n, &err), -1);
    if (comm_root(world)) {
        assert_int_equal(entries(), 4);
        char *now = read_all("old.h5", &after);
        assert_int_equal(before, after);
        assert_memory_equal(now, old, before);
        free(now);
    }
    o.files = &file;
    o.bos = false;
    assert_int_equal(tokenize(world, NULL, tokenizer, &o, &n, &err), 0);
    if (comm_root(world)) {
        struct token_set *t = open_set("old.h5");
        assert_false(token_set_info(t)->bos);
        assert_string_equal(token_set_info(t)->source, "a.txt");
        token_set_close(t);
    }
    free(old);
    const char *names[] = {"old.h5", "bad.jsonl"};
    remove_all(names, 2);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    world = comm_start(&argc, &argv, &err);
    if (!world) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_ranks_gives_the_same_sets),
        cmocka_unit_test(large_sets_are_shared_by_blocks),
        cmocka_unit_test(bad_input_leaves_nothing_behind),
        cmocka_unit_test(a_file_that_one_rank_cannot_open_ends_all),
        cmocka_unit_test(an_old_set_is_kept_or_replaced_whole),
    };
    int failed = cmocka_run_group_tests(tests, make_folder, remove_folder);
    comm_finish(world);
    return failed;
}
