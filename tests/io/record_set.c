/* SPDX-License-Identifier: Apache-2.0 */
#include "io/record_set.h"

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
    snprintf(folder, sizeof folder, "%s/dusk-records-XXXXXX", tmp ? tmp : "/tmp");
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

/* A set: records of 3, 4, 5, 3, ... tokens, or pairs of them with a prompt of 2, a
 * chosen part of 1, the rest rejected. All tokens but the first, or the prompt, count.
 */
enum { RECORDS = 30000, PACK_RECORDS = 5, U32_VOCAB = 70000 };

struct sample {
    struct record_set_info info;
    uint32_t *id;      /* [tokens] */
    uint8_t *counted;  /* [tokens] */
    int64_t *ends;     /* [records x parts] */
    int64_t *pack_end; /* [packs] */
};

static int64_t length_of(int64_t record)
{
    return 4 + record % 3;
}

static int32_t id_at(int64_t i, int vocab)
{
    return (int32_t)(i * 7919 % vocab);
}

static void fill_records(struct sample *s)
{
    int parts = record_set_parts(s->info.kind);
    int64_t at = 0;
    for (int64_t r = 0; r < RECORDS; r++) {
        int64_t n = length_of(r);
        int64_t *end = s->ends + r * parts;
        for (int64_t i = 0; i < n; i++)
            s->counted[at + i] = i >= (parts == 3 ? 2 : 1);
        if (parts == 3) {
            end[0] = at + 2;
            end[1] = at + 3;
        }
        at += n;
        end[parts - 1] = at;
    }
    for (int64_t i = 0; i < s->info.tokens; i++) {
        s->id[i] = (uint32_t)id_at(i, s->info.vocab);
        s->info.counted_tokens += s->counted[i];
    }
    for (int64_t p = 0; p < s->info.packs; p++)
        s->pack_end[p] = PACK_RECORDS * (p + 1);
}

static struct sample sample_create(enum record_set_kind kind, int vocab, bool packed)
{
    static char template_name[] = "own", template_text[] = "{\"name\": \"own\"}",
                jinja[] = "{{ messages }}", bos[] = "template", train_on[] = "replies",
                too_long[] = "drop", shape[] = "alpaca", source[] = "a.jsonl";
    struct sample s = {.info = {.kind = kind,
                                .records = RECORDS,
                                .tokens = 5 * RECORDS,
                                .longest = kind == RECORD_SET_PAIRS ? 5 : 6,
                                .longest_row = 6,
                                .packs = packed ? RECORDS / PACK_RECORDS : 0,
                                .pack_length = packed ? 6 * PACK_RECORDS : 0,
                                .max_length = 6,
                                .vocab = vocab,
                                .tokenizer = "0123456789abcdef0123456789abcdef",
                                .template_name = template_name,
                                .template_text = template_text,
                                .jinja = jinja,
                                .bos = bos,
                                .train_on = train_on,
                                .too_long = too_long,
                                .eos_id = 2,
                                .shape = shape,
                                .source = source,
                                .truncated = 1,
                                .dropped_too_long = 2,
                                .dropped_uncounted = 3,
                                .dropped_equal = 4,
                                .skipped = 5}};
    s.id = calloc(5 * RECORDS, sizeof *s.id);
    s.counted = calloc(5 * RECORDS, 1);
    s.ends = calloc(3 * RECORDS, sizeof *s.ends);
    s.pack_end = calloc(RECORDS, sizeof *s.pack_end);
    assert_true(s.id && s.counted && s.ends && s.pack_end);
    fill_records(&s);
    return s;
}

static void sample_fini(struct sample *s)
{
    free(s->id);
    free(s->counted);
    free(s->ends);
    free(s->pack_end);
}

static void sample_write(const struct sample *s)
{
    struct err err = {0};
    const struct record_set_info *info = &s->info;
    struct sealed_writer *w = record_set_create(comm_self(), path, true, info, &err);
    if (!w)
        print_error("%s\n", err.text);
    assert_non_null(w);
    size_t id_bytes = info->vocab <= 65536 ? 2 : 4, n = (size_t)info->tokens;
    unsigned char *ids = malloc(n * id_bytes);
    assert_non_null(ids);
    for (size_t i = 0; i < n; i++)
        memcpy(ids + i * id_bytes, &s->id[i], id_bytes); /* little-endian */
    assert_int_equal(sealed_write(w, RECORD_SET_TOKENS, 0, 0, ids, n * id_bytes, &err),
                     0);
    assert_int_equal(sealed_write(w, RECORD_SET_COUNTED, 0, 0, s->counted, n, &err), 0);
    size_t parts = (size_t)(info->records * record_set_parts(info->kind));
    assert_int_equal(sealed_write(w, RECORD_SET_ENDS, 0, 0, s->ends, 8 * parts, &err),
                     0);
    if (info->packs)
        assert_int_equal(sealed_write(w, RECORD_SET_PACK_ENDS, 0, 0, s->pack_end,
                                      8 * (size_t)info->packs, &err),
                         0);
    assert_int_equal(sealed_commit(w, &err), 0);
    free(ids);
}

static struct record_set *open_set(void)
{
    struct err err = {0};
    struct record_set *s = record_set_open(comm_self(), path, &err);
    if (!s)
        print_error("%s\n", err.text);
    assert_non_null(s);
    return s;
}

static void expect_info(const struct record_set_info *a,
                        const struct record_set_info *b)
{
    char hash[RECORD_SET_HASH];
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->records, b->records);
    assert_int_equal(a->tokens, b->tokens);
    assert_int_equal(a->counted_tokens, b->counted_tokens);
    assert_int_equal(a->longest, b->longest);
    assert_int_equal(a->longest_row, b->longest_row);
    assert_int_equal(a->packs, b->packs);
    assert_int_equal(a->pack_length, b->pack_length);
    assert_int_equal(a->max_length, b->max_length);
    assert_int_equal(a->vocab, b->vocab);
    assert_int_equal(a->eos_id, b->eos_id);
    assert_string_equal(a->tokenizer, b->tokenizer);
    record_set_template_hash(b->template_text, hash);
    assert_int_equal(strlen(hash), 32);
    assert_string_equal(a->template_hash, hash);
    assert_string_equal(a->template_name, b->template_name);
    assert_string_equal(a->template_text, b->template_text);
    assert_string_equal(a->jinja, b->jinja);
    assert_string_equal(a->bos, b->bos);
    assert_string_equal(a->train_on, b->train_on);
    assert_string_equal(a->too_long, b->too_long);
    assert_string_equal(a->shape, b->shape);
    assert_string_equal(a->source, b->source);
    assert_int_equal(a->truncated, b->truncated);
    assert_int_equal(a->dropped_too_long, b->dropped_too_long);
    assert_int_equal(a->dropped_uncounted, b->dropped_uncounted);
    assert_int_equal(a->dropped_equal, b->dropped_equal);
    assert_int_equal(a->skipped, b->skipped);
}

static void expect_run(struct record_set *s, const struct sample *a, int64_t first,
                       int64_t n, struct record_tokens *t)
{
    struct err err = {0};
    int parts = record_set_parts(a->info.kind);
    int64_t begin = first ? a->ends[first * parts - 1] : 0;
    assert_int_equal(record_set_read(s, first, n, t, &err), 0);
    assert_int_equal(t->parts, n * parts);
    assert_int_equal(t->n, a->ends[(first + n) * parts - 1] - begin);
    for (int64_t i = 0; i < t->n; i++) {
        assert_int_equal(t->id[i], a->id[begin + i]);
        assert_int_equal(t->counted[i], a->counted[begin + i]);
    }
    for (int64_t i = 0; i < t->parts; i++)
        assert_int_equal(t->end[i], a->ends[first * parts + i] - begin);
}

static void gives_back_what_was_written(void **state)
{
    (void)state;
    static const struct {
        enum record_set_kind kind;
        int vocab;
        bool packed;
    } rows[] = {{RECORD_SET_RECORDS, 32000, false},
                {RECORD_SET_RECORDS, 65536, true},
                {RECORD_SET_RECORDS, U32_VOCAB, true},
                {RECORD_SET_PAIRS, 32000, false},
                {RECORD_SET_PAIRS, U32_VOCAB, false}};
    static const int64_t runs[][2] = {{0, RECORDS}, {0, 1},    {RECORDS - 1, 1},
                                      {1, 1},       {777, 78}, {20000, 10000}};
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        struct err err = {0};
        struct record_tokens t = {0};
        struct sample a = sample_create(rows[k].kind, rows[k].vocab, rows[k].packed);
        sample_write(&a);
        assert_true(record_set_is(comm_self(), path));
        struct record_set *s = open_set();
        expect_info(record_set_info(s), &a.info);
        assert_string_equal(record_set_path(s), path);
        assert_true(record_set_identity(s) != 0);
        for (size_t r = 0; r < sizeof runs / sizeof *runs; r++)
            expect_run(s, &a, runs[r][0], runs[r][1], &t);
        int64_t parts = record_set_parts(a.info.kind), length[600];
        assert_int_equal(record_set_lengths(s, 1000, 200, length, &err), 0);
        for (int64_t i = 0; i < 200 * parts; i++)
            assert_int_equal(length[i],
                             a.ends[1000 * parts + i] - a.ends[1000 * parts + i - 1]);
        for (int64_t p = 0; p < a.info.packs; p += 1999) {
            int64_t first, end;
            assert_int_equal(record_set_read_pack(s, p, &first, &t, &err), 0);
            assert_int_equal(first, PACK_RECORDS * p);
            assert_int_equal(t.parts, PACK_RECORDS);
            assert_int_equal(record_set_pack_ends(s, p, 1, &end, &err), 0);
            assert_int_equal(end, PACK_RECORDS * (p + 1));
        }
        record_tokens_fini(&t);
        record_set_close(s);
        sample_fini(&a);
    }
}

static void reads_into_room_that_is_there(void **state)
{
    (void)state;
    struct err err = {0};
    struct record_tokens t = {0};
    struct sample a = sample_create(RECORD_SET_RECORDS, 32000, true);
    sample_write(&a);
    struct record_set *s = open_set();
    assert_int_equal(record_tokens_reserve(&t, 6 * PACK_RECORDS, PACK_RECORDS, &err),
                     0);
    const int32_t *id = t.id;
    const int64_t *end = t.end;
    for (int64_t p = 0; p < 100; p++) {
        assert_int_equal(record_set_read_pack(s, p, NULL, &t, &err), 0);
        assert_ptr_equal(t.id, id);
        assert_ptr_equal(t.end, end);
    }
    record_tokens_fini(&t);
    record_set_close(s);
    sample_fini(&a);
}

static void change_id(struct sample *s)
{
    s->id[18] = 32000;
}
static void mark_two(struct sample *s)
{
    s->counted[18] = 2;
}
static void mark_first(struct sample *s)
{
    s->counted[s->ends[2]] = 1; /* record 3 */
}
static void mark_prompt(struct sample *s)
{
    s->counted[s->ends[8] + 1] = 1; /* pair 3 */
}
static void mark_none(struct sample *s)
{
    for (int64_t i = s->ends[2]; i < s->ends[3]; i++)
        s->counted[i] = 0;
}
static void mark_no_chosen(struct sample *s)
{
    s->counted[s->ends[9]] = 0;
}
static void end_falls(struct sample *s)
{
    s->ends[3] = s->ends[2] - 1;
}
static void end_stays(struct sample *s)
{
    s->ends[3] = s->ends[2];
}
static void end_far(struct sample *s)
{
    s->ends[3] = INT64_MAX;
}
static void end_negative(struct sample *s)
{
    s->ends[3] = INT64_MIN;
}
static void end_long(struct sample *s)
{
    s->ends[3] += 3;
}
static void completion_long(struct sample *s)
{
    s->ends[9]--; /* the prompt of pair 3 is one token, but its parts are as long */
    s->ends[10] += 2;
}

/* Bad values are found when they are read, with the file's name, and not before. */
static void refuses_hostile_values(void **state)
{
    (void)state;
    static const struct {
        enum record_set_kind kind;
        void (*change)(struct sample *s);
        const char *says;
    } rows[] = {
        {RECORD_SET_RECORDS, change_id, "token 18: expected an id below 32000"},
        {RECORD_SET_RECORDS, mark_two, "token 18: expected a mark of 0 or 1, found 2"},
        {RECORD_SET_RECORDS, mark_first,
         "record 3, part 0: expected a first token that does not count"},
        {RECORD_SET_RECORDS, mark_none, "record 3, part 0: expected counted tokens"},
        {RECORD_SET_PAIRS, mark_prompt, "pair 3, part 0: expected no counted token"},
        {RECORD_SET_PAIRS, mark_no_chosen, "pair 3, part 1: expected counted tokens"},
        {RECORD_SET_RECORDS, end_falls, "record 3: expected part 0 to end at"},
        {RECORD_SET_RECORDS, end_stays, "record 3: expected part 0 to end at"},
        {RECORD_SET_RECORDS, end_far, "found 9223372036854775807"},
        {RECORD_SET_RECORDS, end_negative, "found -9223372036854775808"},
        {RECORD_SET_RECORDS, end_long, "record 3: expected at most 6 tokens"},
        {RECORD_SET_PAIRS, end_falls, "pair 1: expected part 0 to end at"},
        {RECORD_SET_PAIRS, completion_long, "pair 3: expected"},
    };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        struct err err = {0};
        struct record_tokens t = {0};
        struct sample a = sample_create(rows[k].kind, 32000, false);
        rows[k].change(&a);
        sample_write(&a);
        struct record_set *s = open_set();
        assert_int_equal(record_set_read(s, 0, 10, &t, &err), -1);
        printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_INPUT);
        assert_int_equal(strncmp(err.text, path, strlen(path)), 0);
        assert_non_null(strstr(err.text, rows[k].says));
        assert_int_equal(record_set_read(s, 0, 1, &t, &err), 0);
        record_tokens_fini(&t);
        record_set_close(s);
        sample_fini(&a);
    }
}

static void refuses_ends_that_leave_tokens_over(void **state)
{
    (void)state;
    struct err err = {0};
    int64_t length[2];
    struct sample a = sample_create(RECORD_SET_RECORDS, 32000, false);
    a.ends[RECORDS - 1]--;
    sample_write(&a);
    struct record_set *s = open_set();
    assert_int_equal(record_set_lengths(s, RECORDS - 2, 2, length, &err), -1);
    assert_non_null(strstr(err.text, "expected the last record to end at token"));
    record_set_close(s);
    sample_fini(&a);
}

static void refuses_hostile_packs(void **state)
{
    (void)state;
    static const struct {
        int64_t pack, end;
        const char *says;
    } rows[] = {{7, 35, "pack 7: expected it to end at a record from 36"},
                {7, 34, "pack 7: expected it to end at a record from 36"},
                {7, RECORDS + 1, "found 30001"},
                {7, -1, "found -1"},
                {7, 42, "pack 7: expected at most 30 tokens, found 36"},
                {7, 80, "pack 7: expected at most 30 records, found 45"},
                {RECORDS / PACK_RECORDS - 1, RECORDS - 1, "from 30000 to 30000"}};
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        struct err err = {0};
        struct record_tokens t = {0};
        struct sample a = sample_create(RECORD_SET_RECORDS, 32000, true);
        a.pack_end[rows[k].pack] = rows[k].end;
        sample_write(&a);
        struct record_set *s = open_set();
        assert_int_equal(record_set_read_pack(s, rows[k].pack, NULL, &t, &err), -1);
        printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, rows[k].says));
        record_tokens_fini(&t);
        record_set_close(s);
        sample_fini(&a);
    }
}

/* Attributes that do not fit one another are found when the set is opened. */
static void refuses_numbers_that_do_not_fit(void **state)
{
    (void)state;
    struct sample a = sample_create(RECORD_SET_RECORDS, 32000, true);
    struct record_set_info *i = &a.info, good = *i;
    const struct {
        int64_t *number, value;
        const char *says;
    } rows[] = {
        {&i->counted_tokens, i->tokens + 1, "no more counted tokens than tokens"},
        {&i->counted_tokens, 0, "counted_tokens: expected 1 to"},
        {&i->longest, 7, "expected longest <= longest_row"},
        {&i->longest, 5, "expected longest_row to be longest"},
        {&i->max_length, 5, "expected longest <= max_length"},
        {&i->pack_length, 0, "expected both of packs and pack_length"},
        {&i->pack_length, 5, "expected longest <= pack_length"},
        {&i->truncated, -1, "truncated: expected 0 to"},
    };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        struct err err = {0};
        *rows[k].number = rows[k].value;
        sample_write(&a);
        assert_null(record_set_open(comm_self(), path, &err));
        printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, rows[k].says));
        *i = good;
    }
    struct err err = {0};
    i->eos_id = 32000;
    sample_write(&a);
    assert_null(record_set_open(comm_self(), path, &err));
    assert_non_null(strstr(err.text, "eos_id below vocab"));
    sample_fini(&a);
}

/* A sealed file of zeros with these attributes. */
static void expect_refused(const struct sealed_attr *attrs, int n, const char *says)
{
    struct err err = {0};
    static const char zeros[64];
    static const struct sealed_array array = {
        .path = "/tokens", .type = SEALED_U16, .dims = 1, .dim = {4}};
    struct sealed_writer *w =
        sealed_create(comm_self(), path, true, &array, 1, attrs, n, &err);
    assert_non_null(w);
    assert_int_equal(sealed_write(w, 0, 0, 0, zeros, 8, &err), 0);
    assert_int_equal(sealed_commit(w, &err), 0);
    assert_null(record_set_open(comm_self(), path, &err));
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, says));
}

static void refuses_files_of_another_kind(void **state)
{
    (void)state;
    struct err err = {0};
    struct sealed_attr attrs[] = {
        {.group = "/", .name = "format", .kind = SEALED_STRING, .s = "dusk token set"},
        {.group = "/", .name = "version", .kind = SEALED_INT, .i = 2},
        {.group = "/", .name = "kind", .kind = SEALED_STRING, .s = "triples"}};
    expect_refused(attrs, 0, "no text \"format\"");
    expect_refused(attrs, 3, "expected a record set, found a dusk token set; ");
    assert_false(record_set_is(comm_self(), path));
    attrs[0].s = "dusk record set";
    expect_refused(attrs, 3, "version: expected 1 to 1, found 2");
    attrs[1].i = 1;
    expect_refused(attrs, 3, "kind: expected records or pairs, found \"triples\"");
    attrs[2].s = "pairs";
    expect_refused(attrs, 3, "no number \"records\"");
    assert_null(record_set_open(comm_self(), "/nowhere/set.h5", &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_false(record_set_is(comm_self(), "/nowhere/set.h5"));
    record_set_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_back_what_was_written),
        cmocka_unit_test(reads_into_room_that_is_there),
        cmocka_unit_test(refuses_hostile_values),
        cmocka_unit_test(refuses_ends_that_leave_tokens_over),
        cmocka_unit_test(refuses_hostile_packs),
        cmocka_unit_test(refuses_numbers_that_do_not_fit),
        cmocka_unit_test(refuses_files_of_another_kind),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
