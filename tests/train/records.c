/* SPDX-License-Identifier: Apache-2.0 */
/* From records to ids and loss masks, all the way, against the oracle: templates
 * (src/objective) and encoder (io) together. */

#include "io/record_ids.h"
#include "io/records.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/objective/template.h"
#include "tests/support/arrays.h"
#include "tests/support/examples.h"
#include "tests/support/facts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { PLACE_BYTES = 128 };

static struct tokenizer *tokenizer;
static char *model;
static size_t model_bytes;

static int setup(void **state)
{
    (void)state;
    struct err err = {0};
    char *path = oracle_path("../align/tokenizer/tokenizer.model");
    model = file_read(path, 1 << 20, &model_bytes, &err);
    tokenizer = model ? tokenizer_create(model, model_bytes, path, &err) : NULL;
    if (!tokenizer)
        print_error("%s\n", err.text);
    free(path);
    return tokenizer ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    tokenizer_destroy(tokenizer);
    free(model);
    return 0;
}

/* A template with a tokenizer that has its added tokens, and the encoder. */
struct chain {
    struct template *t;
    struct tokenizer *tokenizer;
    struct record_encoder *e;
};

static struct chain chain_create(const char *name)
{
    struct err err = {0};
    struct added_token added[TEMPLATE_TOKENS];
    struct chain c = {
        template_create(template_find(name, &err),
                        tokenizer_piece(tokenizer, tokenizer_bos(tokenizer)),
                        tokenizer_piece(tokenizer, tokenizer_eos(tokenizer)), &err),
        NULL, NULL};
    assert_non_null(c.t);
    int n = 0;
    for (; template_token(c.t, n); n++)
        added[n] = (struct added_token){template_token(c.t, n),
                                        tokenizer_vocab(tokenizer) + n};
    c.tokenizer = tokenizer_create_added(model, model_bytes, added, n, name, &err);
    assert_non_null(c.tokenizer);
    c.e = record_encoder_create(c.tokenizer, &err);
    assert_non_null(c.e);
    return c;
}

static void chain_destroy(struct chain *c)
{
    record_encoder_destroy(c->e);
    tokenizer_destroy(c->tokenizer);
    template_destroy(c->t);
}

static void expect_ids(const char *what, const int32_t *id, int64_t n,
                       const struct facts *f, const char *place)
{
    int m;
    int32_t *expect = facts_ints(f, place, &m);
    if (n != m || memcmp(id, expect, (size_t)n * sizeof *id) != 0) {
        print_error("%s: %s: expected", what, place);
        for (int i = 0; i < m; i++)
            print_error(" %d", (int)expect[i]);
        print_error("\nfound");
        for (int64_t i = 0; i < n; i++)
            print_error(" %d", (int)id[i]);
        print_error("\n");
    }
    assert_int_equal(n, m);
    assert_memory_equal(id, expect, (size_t)n * sizeof *id);
    free(expect);
}

static void expect_mask(const struct record_ids *r, const char *bits)
{
    char *found = malloc((size_t)r->n + 1);
    assert_non_null(found);
    for (int64_t i = 0; i < r->n; i++)
        found[i] = r->mask[i] ? '1' : '0';
    found[r->n] = '\0';
    assert_string_equal(found, bits);
    free(found);
}

/* Ids, mask and counts of one record; what is left of it at the oracle's length. */
static void check_record(struct record_ids *r, const struct facts *f,
                         const char *record, int64_t max_length)
{
    char place[PLACE_BYTES];
    snprintf(place, sizeof place, "%s/ids", record);
    expect_ids(record, r->id, r->n, f, place);
    snprintf(place, sizeof place, "%s/mask", record);
    expect_mask(r, facts_string(f, place));
    snprintf(place, sizeof place, "%s/trl_mask", record);
    bool trl_differs = facts_has(f, place);
    snprintf(place, sizeof place, "%s/counted", record);
    /* TRL refuses what has no counted token, and gives it no count */
    int64_t counted = facts_has(f, place) ? facts_int(f, place) : 0;
    if (!trl_differs)
        assert_int_equal(record_ids_counted(r), counted);
    bool longer = r->n > max_length;
    record_ids_truncate(r, max_length);
    snprintf(place, sizeof place, "%s/at_max_length", record);
    assert_int_equal(longer, facts_has(f, place));
    if (!longer)
        return;
    snprintf(place, sizeof place, "%s/at_max_length/length", record);
    if (!facts_has(f, place)) { /* "dropped" */
        assert_int_equal(record_ids_counted(r), 0);
        return;
    }
    assert_int_equal(r->n, facts_int(f, place));
    snprintf(place, sizeof place, "%s/at_max_length/counted", record);
    assert_int_equal(record_ids_counted(r), facts_int(f, place));
}

static void gives_the_ids_and_masks_of_the_oracle(void **state)
{
    (void)state;
    struct facts *f = facts_load("../align/sft_records.json");
    struct examples *examples = examples_load();
    struct marked_text text = {0};
    struct record_ids r = {0};
    struct err err = {0};
    int templates = facts_count(f, "templates"), records = 0;
    int64_t max_length = facts_int(f, "max_length"), tokens = 0;
    for (int i = 0; i < templates; i++) {
        char place[PLACE_BYTES - 32];
        const char *name = facts_key(f, "templates", i);
        struct chain c = chain_create(name);
        snprintf(place, sizeof place, "templates/%.40s/records", name);
        int n = facts_count(f, place);
        for (int k = 0; k < n; k++, records++) {
            struct record example = examples_record(examples, name, k);
            assert_int_equal(template_render_record(c.t, &example, false, &text, &err),
                             0);
            assert_int_equal(record_encode(c.e, &text, template_bos(c.t), &r, &err), 0);
            tokens += r.n;
            snprintf(place, sizeof place, "templates/%.40s/records/%d", name, k);
            check_record(&r, f, place, max_length);
        }
        chain_destroy(&c);
    }
    printf("%d templates, %d records, %lld tokens\n", templates, records,
           (long long)tokens);
    assert_int_equal(records, 151);
    record_ids_fini(&r);
    marked_text_fini(&text);
    examples_destroy(examples);
    facts_destroy(f);
}

/* A pair of the file as a line of JSON, read back by the parser and encoded. */
static void encode_pair(struct chain *c, struct records *parser, const struct facts *f,
                        const char *pair, struct pair_ids *out)
{
    static const char *const field[] = {"prompt", "chosen", "rejected"};
    struct json j = {0};
    struct err err = {0};
    struct record r;
    struct rendered_pair text = {0};
    enum record_shape shape;
    json_begin(&j, NULL, '{');
    for (int i = 0; i < 3; i++) {
        char place[PLACE_BYTES];
        snprintf(place, sizeof place, "%s/%s", pair, field[i]);
        json_text(&j, field[i], facts_string(f, place));
    }
    json_end(&j, '}');
    assert_int_equal(records_recognise(parser, j.text, j.used, &shape, &err), 0);
    assert_int_equal(shape, RECORD_PAIRS);
    assert_int_equal(records_parse(parser, shape, j.text, j.used, &r, &err), 0);
    assert_int_equal(template_render_pair(c->t, &r, &text, &err), 0);
    assert_int_equal(pair_encode(c->e, &text.prompt, &text.chosen, &text.rejected,
                                 template_bos(c->t), out, &err),
                     0);
    rendered_pair_fini(&text);
    json_fini(&j);
}

/* A BOS that TRL puts in front of one that the prompt has already is not in ours. */
static void expect_prompt(const struct pair_ids *p, const struct facts *f,
                          const char *place)
{
    int n;
    int32_t *expect = facts_ints(f, place, &n);
    int doubled = n > 1 && expect[0] == 1 && expect[1] == 1;
    assert_int_equal(p->prompt, n - doubled);
    assert_memory_equal(p->chosen.id, expect + doubled,
                        (size_t)p->prompt * sizeof *expect);
    assert_memory_equal(p->rejected.id, expect + doubled,
                        (size_t)p->prompt * sizeof *expect);
    free(expect);
}

/* All ids behind the prompt, and they alone, are in the loss. */
static void expect_end(const struct record_ids *r, int64_t prompt,
                       const struct facts *f, const char *place)
{
    expect_ids("end", r->id + prompt, r->n - prompt, f, place);
    for (int64_t i = 0; i < r->n; i++)
        assert_int_equal(r->mask[i], i >= prompt);
}

static void check_pairs(const char *list, int expect_n)
{
    struct facts *f = facts_load("../align/dpo_tokens.json");
    struct err err = {0};
    struct chain c = chain_create("plain_completion");
    struct records *parser = records_create(NULL, &err);
    struct pair_ids p = {0};
    int n = facts_count(f, list);
    for (int i = 0; i < n; i++) {
        char pair[32], place[PLACE_BYTES];
        snprintf(pair, sizeof pair, "%.16s/%d", list, i);
        encode_pair(&c, parser, f, pair, &p);
        snprintf(place, sizeof place, "%s/prompt_ids", pair);
        expect_prompt(&p, f, place);
        snprintf(place, sizeof place, "%s/chosen_ids", pair);
        expect_end(&p.chosen, p.prompt, f, place);
        snprintf(place, sizeof place, "%s/rejected_ids", pair);
        expect_end(&p.rejected, p.prompt, f, place);
        snprintf(place, sizeof place, "%s/case", pair);
        assert_int_equal(pair_ids_equal(&p),
                         facts_has(f, place) && strcmp(facts_string(f, place),
                                                       "chosen equals rejected") == 0);
    }
    printf("%s: %d\n", list, n);
    assert_int_equal(n, expect_n);
    pair_ids_fini(&p);
    records_destroy(parser);
    chain_destroy(&c);
    facts_destroy(f);
}

static void gives_the_pairs_of_the_oracle(void **state)
{
    (void)state;
    check_pairs("pairs", 8);
}

static void cuts_awkward_prompts_as_the_oracle(void **state)
{
    (void)state;
    check_pairs("boundary", 7);
}

static void check_sequence(const struct record_ids *r, int64_t prompt,
                           const struct facts *f, const char *sequence)
{
    char place[PLACE_BYTES];
    snprintf(place, sizeof place, "%s/length", sequence);
    assert_int_equal(r->n, facts_int(f, place));
    snprintf(place, sizeof place, "%s/completion_start", sequence);
    assert_int_equal(prompt, facts_int(f, place));
    snprintf(place, sizeof place, "%s/completion_tokens", sequence);
    assert_int_equal(record_ids_counted(r), facts_int(f, place));
    snprintf(place, sizeof place, "%s/first_ids", sequence);
    expect_ids(sequence, r->id, 4, f, place);
    snprintf(place, sizeof place, "%s/last_ids", sequence);
    expect_ids(sequence, r->id + r->n - 4, 4, f, place);
}

/* One row of the table: pairs that stay, and both their sequences. */
static int check_truncation(struct chain *c, struct records *parser,
                            const struct facts *f, int row)
{
    char place[PLACE_BYTES];
    struct pair_ids p = {0};
    int kept_n, next = 0;
    snprintf(place, sizeof place, "truncation/%d/max_length", row);
    int64_t max_length = facts_int(f, place);
    snprintf(place, sizeof place, "truncation/%d/pairs_kept", row);
    int32_t *kept = facts_ints(f, place, &kept_n);
    for (int i = 0; i < facts_count(f, "pairs"); i++) {
        snprintf(place, sizeof place, "pairs/%d", i);
        encode_pair(c, parser, f, place, &p);
        bool stays = pair_ids_truncate(&p, max_length);
        assert_int_equal(stays, next < kept_n && kept[next] == i);
        if (!stays)
            continue;
        snprintf(place, sizeof place, "truncation/%d/sequences/%d", row, next);
        check_sequence(&p.chosen, p.prompt, f, place);
        snprintf(place, sizeof place, "truncation/%d/sequences/%d", row,
                 kept_n + next++);
        check_sequence(&p.rejected, p.prompt, f, place);
    }
    assert_int_equal(next, kept_n);
    free(kept);
    pair_ids_fini(&p);
    return kept_n;
}

static void truncates_pairs_as_the_oracle(void **state)
{
    (void)state;
    struct facts *f = facts_load("../align/dpo_tokens.json");
    struct err err = {0};
    struct chain c = chain_create("plain_completion");
    struct records *parser = records_create(NULL, &err);
    int rows = 0;
    for (int i = 0; i < facts_count(f, "truncation"); i++) {
        char place[PLACE_BYTES];
        snprintf(place, sizeof place, "truncation/%d/truncation_mode", i);
        if (strcmp(facts_string(f, place), "keep_start") != 0)
            continue; /* TRL's other mode is deprecated, and not ours */
        printf("row %d: %d pairs stay\n", i, check_truncation(&c, parser, f, i));
        rows++;
    }
    assert_int_equal(rows, 2);
    records_destroy(parser);
    chain_destroy(&c);
    facts_destroy(f);
}

/* A pair of chats: what lies between and behind the replies of an end is not learnt. */
static void learns_only_replies_of_a_chat_pair(void **state)
{
    (void)state;
    static const char line[] =
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"1\"}], \"chosen\": "
        "[{\"role\": \"assistant\", \"content\": \"2\"}, {\"role\": \"user\", "
        "\"content\": \"3\"}, {\"role\": \"assistant\", \"content\": \"4\"}], "
        "\"rejected\": [{\"role\": \"assistant\", \"content\": \"5\"}]}";
    struct err err = {0};
    struct chain c = chain_create("zephyr");
    struct records *parser = records_create(NULL, &err);
    struct record r;
    struct rendered_pair text = {0};
    struct pair_ids p = {0};
    assert_int_equal(
        records_parse(parser, RECORD_PAIRS, line, sizeof line - 1, &r, &err), 0);
    assert_int_equal(template_render_pair(c.t, &r, &text, &err), 0);
    assert_int_equal(
        pair_encode(c.e, &text.prompt, &text.chosen, &text.rejected, false, &p, &err),
        0);
    char counted[64] = "";
    for (int64_t i = 0; i < p.chosen.n; i++)
        if (p.chosen.mask[i])
            strcat(counted, tokenizer_piece(tokenizer, p.chosen.id[i]));
    assert_string_equal(counted, "2</s>4</s>");
    assert_int_equal(record_ids_counted(&p.rejected), 2);
    assert_int_equal(p.rejected.n, p.prompt + 4); /* 5, EOS, space, newline */
    pair_ids_fini(&p);
    rendered_pair_fini(&text);
    records_destroy(parser);
    chain_destroy(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_ids_and_masks_of_the_oracle),
        cmocka_unit_test(gives_the_pairs_of_the_oracle),
        cmocka_unit_test(cuts_awkward_prompts_as_the_oracle),
        cmocka_unit_test(truncates_pairs_as_the_oracle),
        cmocka_unit_test(learns_only_replies_of_a_chat_pair),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
