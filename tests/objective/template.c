/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/template.h"

#include "tests/support/examples.h"
#include "tests/support/facts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct template *create(const struct template_spec *spec)
{
    struct err err = {0};
    struct template *t = template_create(spec, "<s>", "</s>", &err);
    if (!t)
        print_error("%s\n", err.text);
    assert_non_null(t);
    return t;
}

static void expect_text(const struct marked_text *out, const char *text)
{
    if (out->bytes != strlen(text) || memcmp(out->text, text, out->bytes) != 0)
        print_error("expected <%s>\nfound    <%.*s>\n", text, (int)out->bytes,
                    out->text);
    assert_int_equal(out->bytes, strlen(text));
    assert_memory_equal(out->text, text, out->bytes);
}

/* The marked spans, one after another in brackets. */
static void expect_spans(const struct marked_text *out, const char *spans)
{
    char found[1024];
    size_t used = 0;
    for (int i = 0; i < out->spans; i++)
        used += (size_t)snprintf(found + used, sizeof found - used, "[%.*s]",
                                 (int)(out->span[i].end - out->span[i].begin),
                                 out->text + out->span[i].begin);
    found[used] = '\0';
    assert_string_equal(found, spans);
}

/* Is what asks for the last reply the beginning of the text? */
static bool prompt_is_prefix(const struct template *t, const struct record *r,
                             const struct marked_text *text)
{
    struct err err = {0};
    struct rendered_pair p = {0};
    struct record pair = *r;
    pair.shape = RECORD_PAIRS;
    pair.rejected = r->message;
    pair.rejected_n = r->messages;
    pair.prompt = r->messages - 1;
    assert_int_equal(template_render_pair(t, &pair, &p, &err), 0);
    assert_int_equal(p.chosen.bytes, text->bytes);
    assert_memory_equal(p.chosen.text, text->text, text->bytes);
    assert_int_equal(p.rejected.bytes, text->bytes);
    assert_int_equal(p.prompt.spans, 0);
    bool same = p.prompt.bytes <= text->bytes &&
                memcmp(p.prompt.text, text->text, p.prompt.bytes) == 0;
    rendered_pair_fini(&p);
    return same;
}

static void renders_as_the_oracle(void **state)
{
    (void)state;
    struct facts *f = facts_load("../align/sft_records.json");
    struct examples *e = examples_load();
    struct marked_text out = {0};
    struct err err = {0};
    int templates = facts_count(f, "templates"), texts = 0;
    for (int i = 0; i < templates; i++) {
        char place[128];
        const char *name = facts_key(f, "templates", i);
        struct template *t = create(template_find(name, &err));
        snprintf(place, sizeof place, "templates/%s/records", name);
        int records = facts_count(f, place);
        for (int k = 0; k < records; k++, texts++) {
            struct record r = examples_record(e, name, k);
            assert_int_equal(template_render_record(t, &r, false, &out, &err), 0);
            snprintf(place, sizeof place, "templates/%s/records/%d/text", name, k);
            expect_text(&out, facts_string(f, place));
            snprintf(place, sizeof place,
                     "templates/%s/records/%d/prompt_is_text_prefix", name, k);
            if (facts_has(f, place))
                assert_true(prompt_is_prefix(t, &r, &out));
        }
        printf("%s: %d texts\n", name, records);
        template_destroy(t);
    }
    assert_int_equal(templates, 10);
    assert_int_equal(texts, 7 * 19 + 3 * 6);
    marked_text_fini(&out);
    examples_destroy(e);
    facts_destroy(f);
}

static void knows_bos_and_end_marks(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool bos, ends; /* ends: what TRL says of the chat templates */
    } rows[] = {{"solar_eos", false, true},       {"solar", false, false},
                {"chatml", false, false},         {"chatml_added", false, true},
                {"zephyr", false, true},          {"llama2", false, true},
                {"mistral", false, true},         {"alpaca", true, true},
                {"plain_completion", true, true}, {"plain_text", true, true}};
    int n = sizeof rows / sizeof *rows;
    for (int i = 0; i < n; i++) {
        struct template *t = create(template_builtin(i));
        assert_string_equal(template_name(t), rows[i].name);
        assert_int_equal(template_bos(t), rows[i].bos);
        assert_int_equal(template_ends_replies(t), rows[i].ends);
        bool added = strcmp(rows[i].name, "chatml_added") == 0;
        assert_string_equal(template_eos(t), added ? "<|im_end|>" : "</s>");
        assert_int_equal(template_token(t, 1) != NULL, added);
        template_destroy(t);
    }
    assert_null(template_builtin(n));
}

static void describes_itself(void **state)
{
    (void)state;
    static const char solar[] =
        "{\"name\": \"solar_eos\", \"system_before\": \"### System:\\u000a\", "
        "\"system_after\": \"\\u000a\\u000a\", \"user_before\": \"### User:\\u000a\", "
        "\"user_after\": \"\\u000a\\u000a\", \"input_before\": \"### User:\\u000a\", "
        "\"input_joint\": \"\\u000a\\u000a\", \"reply_before\": \"### "
        "Assistant:\\u000a\", "
        "\"reply_end\": \"{eos}\", \"tokens\": [], \"eos\": \"</s>\", "
        "\"system\": \"turn\", \"skip_empty_system\": true}";
    char *seen[16] = {NULL};
    int n = 0;
    for (; template_builtin(n); n++) {
        struct err err = {0};
        struct template *t = create(template_builtin(n));
        seen[n] = template_describe(t, &err);
        assert_non_null(seen[n]);
        for (int k = 0; k < n; k++)
            assert_string_not_equal(seen[n], seen[k]);
        template_destroy(t);
    }
    assert_string_equal(seen[0], solar);
    assert_non_null(strstr(seen[3], "\"tokens\": [\"<|im_start|>\", \"<|im_end|>\"]"));
    while (n > 0)
        free(seen[--n]);
}

static void marks_replies_and_their_ends(void **state)
{
    (void)state;
    static const struct {
        const char *name, *spans, *all;
    } rows[] = {
        {"solar", "[a][b]", "[### User:\nq\n\n### Assistant:\na### Assistant:\nb]"},
        {"solar_eos", "[a</s>][b</s>]",
         "[### User:\nq\n\n### Assistant:\na</s>### Assistant:\nb</s>]"},
        {"chatml", "[a<|im_end|>][b<|im_end|>]",
         "[<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
         "<|im_start|>assistant\nb<|im_end|>\n]"},
        {"llama2", "[ a </s> b </s>]", "[<s>[INST] q [/INST] a </s> b </s>]"},
        {"mistral", "[a</s>][b</s>]", "[<s>[INST] q [/INST]a</s> b</s> ]"}};
    const struct message m[] = {{ROLE_USER, "q", 1, "", 0},
                                {ROLE_ASSISTANT, "a", 1, "", 0},
                                {ROLE_ASSISTANT, "b", 1, "", 0}};
    struct marked_text out = {0};
    struct err err = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct template *t = create(template_find(rows[i].name, &err));
        assert_int_equal(template_render(t, m, 3, false, &out, &err), 0);
        expect_spans(&out, rows[i].spans);
        assert_int_equal(template_render(t, m, 3, true, &out, &err), 0);
        expect_spans(&out, rows[i].all);
        template_destroy(t);
    }
    marked_text_fini(&out);
}

/* Prompt and completion as strings: through a chat template, as they are, and with an
 * EOS that is there already. */
static void takes_strings(void **state)
{
    (void)state;
    static const struct {
        const char *name, *reply, *text, *spans;
    } rows[] = {{"solar_eos", "a", "### User:\nq \n\n### Assistant:\na</s>", "[a</s>]"},
                {"plain_completion", "a", "q a</s>", "[a</s>]"},
                {"plain_completion", "a</s>", "q a</s>", "[a</s>]"},
                {"plain_completion", "", "q </s>", "[</s>]"},
                {"plain_text", "a", "q a</s>", "[q a</s>]"},
                {"solar_eos", "a</s>", "### User:\nq \n\n### Assistant:\na</s></s>",
                 "[a</s></s>]"}};
    struct marked_text out = {0};
    struct err err = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct template *t = create(template_find(rows[i].name, &err));
        const struct message m[] = {
            {ROLE_USER, "q ", 2, "", 0},
            {ROLE_ASSISTANT, rows[i].reply, strlen(rows[i].reply), "", 0}};
        struct record r = {.shape = RECORD_COMPLETION, true, m, NULL, 2, 0, 0};
        assert_int_equal(template_render_record(t, &r, false, &out, &err), 0);
        expect_text(&out, rows[i].text);
        expect_spans(&out, rows[i].spans);
        template_destroy(t);
    }
    marked_text_fini(&out);
}

static void renders_pairs(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool strings;
        const char *prompt, *chosen, *chosen_spans, *rejected_spans;
    } rows[] = {
        {"solar_eos", true, "### User:\nq\n\n### Assistant:\n",
         "### User:\nq\n\n### Assistant:\ngood</s>", "[good</s>]", "[bad</s>]"},
        {"llama2", true, "<s>[INST] q [/INST]", "<s>[INST] q [/INST] good </s>",
         "[ good </s>]", "[ bad </s>]"},
        {"plain_completion", true, "q", "qgood</s>", "[good</s>]", "[bad</s>]"},
        {"plain_completion", false, "q\n", "q\ngood</s>", "[good</s>]", "[bad</s>]"}};
    const struct message chosen[] = {{ROLE_USER, "q", 1, "", 0},
                                     {ROLE_ASSISTANT, "good", 4, "", 0}},
                         rejected[] = {{ROLE_USER, "q", 1, "", 0},
                                       {ROLE_ASSISTANT, "bad", 3, "", 0}};
    struct rendered_pair p = {0};
    struct err err = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct template *t = create(template_find(rows[i].name, &err));
        struct record r = {RECORD_PAIRS, rows[i].strings, chosen, rejected, 2, 2, 1};
        assert_int_equal(template_render_pair(t, &r, &p, &err), 0);
        expect_text(&p.prompt, rows[i].prompt);
        expect_text(&p.chosen, rows[i].chosen);
        expect_spans(&p.chosen, rows[i].chosen_spans);
        expect_spans(&p.rejected, rows[i].rejected_spans);
        template_destroy(t);
    }
    rendered_pair_fini(&p);
}

/* Replies before the ends of a pair are not learnt. */
static void learns_only_the_ends_of_a_pair(void **state)
{
    (void)state;
    const struct message m[] = {{ROLE_USER, "q", 1, "", 0},
                                {ROLE_ASSISTANT, "a", 1, "", 0},
                                {ROLE_USER, "r", 1, "", 0},
                                {ROLE_ASSISTANT, "b", 1, "", 0}};
    struct rendered_pair p = {0};
    struct err err = {0};
    struct template *t = create(template_builtin(0));
    struct record r = {RECORD_PAIRS, false, m, m, 4, 4, 3};
    assert_int_equal(template_render_pair(t, &r, &p, &err), 0);
    expect_spans(&p.chosen, "[b</s>]");
    expect_text(&p.prompt, "### User:\nq\n\n### Assistant:\na</s>### User:\nr\n\n"
                           "### Assistant:\n");
    rendered_pair_fini(&p);
    template_destroy(t);
}

static void strips_what_python_strips(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } rows[] = {{" \t\r\n\v\f\x1c\x1d\x1e\x1f"
                 "a\xc2\xa0",
                 "a"},
                {"\xe3\x80\x80\xe2\x80\xa8\xc2\x85 a b\xe1\x9a\x80\xe2\x81\x9f", "a b"},
                {"\xe2\x80\x8b", "\xe2\x80\x8b"}, /* zero width: no space to Python */
                {" \xc3\xa0 ", "\xc3\xa0"},       /* ends in the byte a0 */
                {" \n ", ""}};
    struct template *t = create(&(struct template_spec){
        .name = "s",
        .part = {[PART_USER_BEFORE] = "<", [PART_USER_AFTER] = ">"},
        .strip = true});
    struct marked_text out = {0};
    struct err err = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char expect[32];
        struct message m = {ROLE_USER, rows[i].in, strlen(rows[i].in), "", 0};
        snprintf(expect, sizeof expect, "<%s>", rows[i].out);
        assert_int_equal(template_render(t, &m, 1, false, &out, &err), 0);
        expect_text(&out, expect);
    }
    marked_text_fini(&out);
    template_destroy(t);
}

static void refuses_what_does_not_fit(void **state)
{
    (void)state;
    static const struct message s = {ROLE_SYSTEM, "s", 1, "", 0},
                                u = {ROLE_USER, "u", 1, "", 0},
                                a = {ROLE_ASSISTANT, "a", 1, "", 0};
    const struct {
        const char *name;
        enum record_shape shape;
        struct message m[4];
        int n;
        const char *says;
    } rows[] = {
        {"solar",
         RECORD_MESSAGES,
         {u},
         0,
         "template solar: expected messages, found none"},
        {"solar", RECORD_MESSAGES, {u, s, a}, 3, "found it as message 2"},
        {"llama2",
         RECORD_MESSAGES,
         {s, a},
         2,
         "merges the system message into the user"},
        {"alpaca",
         RECORD_MESSAGES,
         {u, a, u, a},
         4,
         "expected one user message, found 2"},
        {"none", RECORD_MESSAGES, {s, u, a}, 3, "has no place for a system message"},
        {"solar", RECORD_TEXT, {u}, 1, "found a text; plain_text takes it"},
        {"plain_text", RECORD_MESSAGES, {u, a}, 2, "as strings, found messages"}};
    const struct template_spec none = {.name = "none", .system = SYSTEM_REFUSED};
    struct marked_text out = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct template *t = create(
            strcmp(rows[i].name, "none") ? template_find(rows[i].name, &err) : &none);
        struct record r = {rows[i].shape, false, rows[i].m, NULL, rows[i].n, 0, 0};
        assert_int_equal(template_render_record(t, &r, false, &out, &err), -1);
        printf("%s\n", err.text);
        assert_non_null(strstr(err.text, rows[i].says));
        assert_int_equal(err.code, ERR_INPUT);
        template_destroy(t);
    }
    marked_text_fini(&out);
}

static void refuses_bad_descriptions(void **state)
{
    (void)state;
    struct err err = {0};
    assert_null(template_find("solar_eso", &err));
    printf("%s\n", err.text);
    assert_non_null(strstr(err.text, "solar_eos, solar, chatml, chatml_added"));
    assert_int_equal(err.code, ERR_USAGE);
    assert_null(template_create(&(struct template_spec){0}, "<s>", "</s>", &err));
    assert_non_null(strstr(err.text, "expected a name"));
    assert_null(template_create(template_find("llama2", &err), NULL, "</s>", &err));
    assert_string_equal(
        err.text,
        "template llama2: user_before has {bos}, but the tokenizer has no BOS");
    assert_null(template_create(template_find("zephyr", &err), "<s>", NULL, &err));
    assert_non_null(strstr(err.text, "has {eos}, but the tokenizer has no EOS"));
}

/* chat_templates.json holds what check_templates.py gave to transformers. */
static void writes_the_jinja_that_transformers_was_shown(void **state)
{
    (void)state;
    struct facts *f = facts_load("../align/chat_templates.json");
    int written = 0;
    for (int i = 0; template_builtin(i); i++)
        for (int marks = 0; marks < 2; marks++) {
            struct err err = {0};
            struct template *t = create(template_builtin(i));
            char *jinja = template_jinja(t, marks, &err), place[64];
            snprintf(place, sizeof place, "%s/%s", marks ? "marked" : "plain",
                     template_name(t));
            if (jinja)
                assert_string_equal(jinja, facts_string(f, place));
            else
                assert_int_equal(err.code, ERR_USAGE);
            assert_int_equal(jinja != NULL, facts_has(f, place));
            written += jinja != NULL;
            free(jinja);
            template_destroy(t);
        }
    assert_int_equal(written, 16);
    facts_destroy(f);
}

static void writes_awkward_parts_as_jinja(void **state)
{
    (void)state;
    struct err err = {0};
    struct template *t = create(&(struct template_spec){
        .name = "odd",
        .part = {[PART_USER_BEFORE] = "a'\\\t{eos}{bos}{% x %}\n",
                 [PART_REPLY_BEFORE] = "{eos}"},
        .system = SYSTEM_REFUSED});
    char *jinja = template_jinja(t, false, &err);
    assert_non_null(jinja);
    assert_string_equal(
        jinja,
        "{% for m in messages %}{% if m.role == 'user' %}"
        "{{ 'a\\'\\\\\\x09' + eos_token + bos_token + '{% x %}\\n' + m.content }}"
        "{% elif m.role == 'assistant' %}{{ eos_token }}{{ m.content }}"
        "{% elif m.role == 'system' %}"
        "{{ raise_exception('no place for a system message') }}"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ eos_token }}{% endif %}");
    free(jinja);
    template_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renders_as_the_oracle),
        cmocka_unit_test(knows_bos_and_end_marks),
        cmocka_unit_test(describes_itself),
        cmocka_unit_test(marks_replies_and_their_ends),
        cmocka_unit_test(takes_strings),
        cmocka_unit_test(renders_pairs),
        cmocka_unit_test(learns_only_the_ends_of_a_pair),
        cmocka_unit_test(strips_what_python_strips),
        cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(refuses_bad_descriptions),
        cmocka_unit_test(writes_the_jinja_that_transformers_was_shown),
        cmocka_unit_test(writes_awkward_parts_as_jinja),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
