/* SPDX-License-Identifier: Apache-2.0 */
/* From JSON lines to a record set, on any number of ranks. */
#include "src/train/make_records.h"

#include "src/base/file.h"
#include "src/base/rng.h"
#include "tests/support/arrays.h"
#include "tests/support/facts.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* Chunks are short, so that all ranks have several. */
enum { CHUNK_BYTES = 500, LINES = 300, BAD = 43 };

static struct comm *world;
static struct tokenizer *tokenizer;
static char folder[256];
static const struct log silent;

static const char *in_folder(const char *name)
{
    static char path[64][512];
    static int turn;
    turn = (turn + 1) % 64;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static int make_folder(void **state)
{
    (void)state;
    struct err err = {0};
    if (comm_root(world)) {
        const char *tmp = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%s/dusk-records-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(folder))
            return -1;
    }
    comm_bcast(world, folder, sizeof folder, 0);
    char *path = oracle_path("../align/tokenizer/tokenizer.model");
    size_t bytes;
    char *model = file_read(path, 1 << 20, &bytes, &err);
    tokenizer = model ? tokenizer_create(model, bytes, path, &err) : NULL;
    free(model);
    free(path);
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

static struct make_records_options options(const char *const *files, int n,
                                           const char *output, const char *chat)
{
    return (struct make_records_options){.files = files,
                                         .files_n = n,
                                         .output = output,
                                         .shape = RECORD_SHAPE_AUTO,
                                         .chat = chat,
                                         .force = true,
                                         .chunk_bytes = CHUNK_BYTES};
}

static void make(struct comm *c, const struct make_records_options *o,
                 struct make_records_result *r)
{
    struct err err = {0};
    if (make_records(c, &silent, tokenizer, o, r, &err))
        fail_msg("%s", err.text);
}

/* The text that gives `length` tokens with BOS and EOS: the space that the model puts
 * in front, then digits, each a token. */
static void text_of(int document, int length, char *text)
{
    for (int i = 0; i < length - 3; i++)
        text[i] = (char)('0' + (document + i * i) % 10);
    text[length - 3] = '\0';
}

static void expect_document(const struct record_tokens *t, int64_t begin, int64_t end,
                            int document, int length)
{
    char text[512];
    struct err err = {0};
    struct token_ids ids = {0};
    text_of(document, length, text);
    token_ids_push(&ids, tokenizer_bos(tokenizer), &err);
    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), false, &ids, &err),
                     0);
    token_ids_push(&ids, tokenizer_eos(tokenizer), &err);
    assert_int_equal(ids.n, length);
    assert_memory_equal(t->id + begin, ids.id, (size_t)(end - begin) * sizeof *ids.id);
    for (int64_t i = begin; i < end; i++)
        assert_int_equal(t->counted[i], i > begin);
    free(ids.id);
}

/* Documents of fewer than 4 tokens cannot be written as text. The rule puts the
 * shortest last, so that the others lie where they lie with them. */
enum { SHORT = 4 };

static void write_documents(const int32_t *length, int n)
{
    char text[512];
    FILE *f = fopen(in_folder("texts.jsonl"), "wb");
    assert_non_null(f);
    for (int i = 0; i < n; i++)
        if (length[i] >= SHORT) {
            text_of(i, length[i], text);
            fprintf(f, "{\"text\": \"%s\"}\n", text);
        }
    fclose(f);
}

/* One pack against the oracle's list of [document, length, offset]. */
static int check_pack(struct record_set *s, int64_t pack, const struct facts *f,
                      const int32_t *length)
{
    struct err err = {0};
    struct record_tokens t = {0};
    char place[64];
    int n, checked = 0;
    snprintf(place, sizeof place, "packs/%d", (int)pack);
    int32_t *part = facts_ints(f, place, &n);
    assert_int_equal(record_set_read_pack(s, pack, NULL, &t, &err), 0);
    for (int k = 0; k < n / 3; k++) {
        if (length[part[3 * k]] < SHORT)
            continue;
        int64_t begin = checked ? t.end[checked - 1] : 0;
        assert_int_equal(begin, part[3 * k + 2]);
        assert_int_equal(t.end[checked] - begin, part[3 * k + 1]);
        expect_document(&t, begin, t.end[checked++], part[3 * k], length[part[3 * k]]);
    }
    assert_int_equal(t.parts, checked);
    record_tokens_fini(&t);
    free(part);
    return checked;
}

static void packs_by_the_rule_of_the_oracle(void **state)
{
    (void)state;
    struct facts *f = facts_load("../align/pack.json");
    int n, placed = 0, cut = 0;
    int32_t *length = facts_ints(f, "lengths", &n);
    int64_t max_length = facts_int(f, "max_length");
    const char *files[] = {in_folder("texts.jsonl")};
    struct make_records_options o =
        options(files, 1, in_folder("packs.h5"), "plain_text");
    struct make_records_result r;
    struct err err = {0};
    o.pack_length = max_length;
    if (comm_root(world))
        write_documents(length, n);
    comm_barrier(world);
    make(world, &o, &r);
    assert_int_equal(r.packs, facts_count(f, "packs"));
    struct record_set *s = record_set_open(world, o.output, &err);
    assert_non_null(s);
    for (int64_t p = 0; p < r.packs; p++)
        placed += check_pack(s, p, f, length);
    for (int i = 0; i < n; i++)
        cut += length[i] > max_length;
    assert_int_equal(r.counts.records, placed);
    assert_int_equal(r.counts.truncated, cut);
    printf("%lld packs, %d documents, %d cut\n", (long long)r.packs, placed, cut);
    record_set_close(s);
    facts_destroy(f);
    free(length);
}

static void words(FILE *f, int i, int n)
{
    static const char *const word[] = {
        "the ", "clips ", "48 ", "</s> ", "\\\\ ", "Speak", "\xc3\xa9t\xc3\xa9 ", "a"};
    for (int k = 0; k < n; k++)
        fputs(word[rng_u64(3, (uint64_t)i, (uint64_t)k) % 8], f);
}

/* Records or pairs; every 7th line is bad if `bad`, some pairs have equal answers. */
static void write_lines(const char *name, bool pairs, bool bad)
{
    FILE *f = fopen(in_folder(name), "wb");
    assert_non_null(f);
    for (int i = 0; i < LINES; i++) {
        int n = i % 97 == 5 ? 400 : 1 + i % 12;
        fprintf(f, "{\"prompt\": \"");
        words(f, i, n);
        fprintf(f, pairs ? "\", \"chosen\": \"" : "\", \"completion\": \"");
        words(f, i + 1000, n);
        if (pairs) {
            fprintf(f, "\", \"rejected\": \"");
            words(f, i + (i % 5 ? 2000 : 1000), n);
        }
        fprintf(f, bad && i % 7 == 3 ? "\"\n" : "\"}%s\n", i % 4 ? "" : "\n \r");
    }
    fclose(f);
}

static char *content(const char *path, size_t *bytes)
{
    struct err err = {0};
    char *text = file_read(path, 1 << 24, bytes, &err);
    assert_non_null(text);
    return text;
}

/* The same file as one rank makes it. */
static void expect_same(struct make_records_options o, const char *name)
{
    struct make_records_result r, alone;
    o.output = in_folder(name);
    make(world, &o, &r);
    if (comm_root(world)) {
        size_t a_bytes, b_bytes;
        char *a = content(o.output, &a_bytes);
        o.output = in_folder("alone.h5");
        o.chunk_bytes = 0;
        make(comm_self(), &o, &alone);
        char *b = content(o.output, &b_bytes);
        assert_int_equal(a_bytes, b_bytes);
        assert_memory_equal(a, b, a_bytes);
        assert_memory_equal(&r.counts, &alone.counts, sizeof r.counts);
        assert_int_equal(r.skipped, alone.skipped);
        assert_int_equal(r.bad, alone.bad);
        for (int i = 0; i < r.bad; i++)
            assert_string_equal(r.bad_line[i], alone.bad_line[i]);
        free(a);
        free(b);
    }
    comm_barrier(world);
}

static void makes_the_same_file_on_any_number_of_ranks(void **state)
{
    (void)state;
    const char *records[] = {in_folder("a.jsonl"), in_folder("b.jsonl")};
    const char *pairs[] = {in_folder("p.jsonl")};
    if (comm_root(world)) {
        write_lines("a.jsonl", false, false);
        write_lines("b.jsonl", false, true);
        write_lines("p.jsonl", true, true);
    }
    comm_barrier(world);
    struct make_records_options o = options(records, 2, NULL, "chatml");
    o.skip_bad = true;
    expect_same(o, "records.h5");
    o.pack_length = 200;
    expect_same(o, "packed.h5");
    o.too_long = TOO_LONG_DROP;
    o.all = true;
    expect_same(o, "all.h5");
    o = options(pairs, 1, NULL, "plain_completion");
    o.skip_bad = true;
    expect_same(o, "pairs.h5");
    o.max_length = 20;
    expect_same(o, "short.h5");
}

/* What the maker counts is what is in the file. */
static void counts_what_is_there(void **state)
{
    (void)state;
    const char *files[] = {in_folder("p.jsonl")};
    struct make_records_options o =
        options(files, 1, in_folder("pairs.h5"), "plain_completion");
    struct make_records_result r;
    struct err err = {0};
    struct record_tokens t = {0};
    o.skip_bad = true;
    o.max_length = 20;
    make(world, &o, &r);
    struct record_set *s = record_set_open(world, o.output, &err);
    assert_non_null(s);
    const struct record_set_info *info = record_set_info(s);
    int64_t counted = 0, longest = 0, row = 0;
    for (int64_t i = 0; i < info->records; i++) {
        assert_int_equal(record_set_read(s, i, 1, &t, &err), 0);
        int64_t chosen = t.end[1], rejected = t.n - (t.end[1] - t.end[0]);
        longest = chosen > longest ? chosen : longest;
        longest = rejected > longest ? rejected : longest;
        row = t.n > row ? t.n : row;
        for (int64_t k = 0; k < t.n; k++)
            counted += t.counted[k];
    }
    assert_int_equal(info->kind, RECORD_SET_PAIRS);
    assert_int_equal(info->counted_tokens, counted);
    assert_int_equal(info->longest, longest);
    assert_int_equal(info->longest_row, row);
    assert_int_equal(longest, 20);
    assert_true(r.counts.truncated > 0 && r.counts.dropped_uncounted > 0 &&
                r.counts.dropped_equal > 0);
    assert_int_equal(r.skipped, BAD);
    assert_int_equal(info->skipped, r.skipped);
    assert_int_equal(info->truncated, r.counts.truncated);
    assert_int_equal(r.counts.records + r.counts.dropped_uncounted +
                         r.counts.dropped_equal + r.skipped,
                     LINES);
    assert_int_equal(info->records, r.counts.records);
    record_tokens_fini(&t);
    record_set_close(s);
}

static void names_the_first_bad_line(void **state)
{
    (void)state;
    const char *files[] = {in_folder("a.jsonl"), in_folder("b.jsonl")};
    struct make_records_options o = options(files, 2, in_folder("none.h5"), "chatml");
    struct make_records_result r;
    struct err err = {0};
    char expect[600];
    int before = entries();
    comm_barrier(world);
    assert_int_equal(make_records(world, &silent, tokenizer, &o, &r, &err), -1);
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    snprintf(expect, sizeof expect,
             "%s:5: expected one JSON object a line, found bad JSON", files[1]);
    assert_int_equal(strncmp(err.text, expect, strlen(expect)), 0);
    assert_int_equal(entries(), before);
    comm_barrier(world);
}

/* The first 20 of all, in the order of the input. */
static void lists_bad_lines_in_order(void **state)
{
    (void)state;
    const char *files[] = {in_folder("b.jsonl")};
    struct make_records_options o = options(files, 1, in_folder("list.h5"), "chatml");
    struct make_records_result r;
    o.skip_bad = true;
    make(world, &o, &r);
    assert_int_equal(r.skipped, BAD);
    assert_int_equal(r.bad, BAD_LINES);
    for (int i = 0, last = 0; i < r.bad; i++) {
        size_t name = strlen(files[0]);
        assert_int_equal(strncmp(r.bad_line[i], files[0], name), 0);
        int line = atoi(r.bad_line[i] + name + 1);
        assert_true(line > last);
        last = line;
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packs_by_the_rule_of_the_oracle),
        cmocka_unit_test(makes_the_same_file_on_any_number_of_ranks),
        cmocka_unit_test(counts_what_is_there),
        cmocka_unit_test(names_the_first_bad_line),
        cmocka_unit_test(lists_bad_lines_in_order),
    };
    struct err err = {0};
    world = comm_start(&argc, &argv, &err);
    if (!world)
        return 99;
    int failed = cmocka_run_group_tests(tests, make_folder, remove_folder);
    comm_finish(world);
    return failed;
}
