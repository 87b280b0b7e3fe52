/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/template_parts.h"

#include "src/base/check.h"
#include "src/base/json.h"
#include "src/base/mem.h"

#include <stdlib.h>
#include <string.h>

const char *template_part_name(enum template_part part)
{
    static const char *const names[TEMPLATE_PARTS] = {
        [PART_START] = "start",
        [PART_SYSTEM_BEFORE] = "system_before",
        [PART_SYSTEM_AFTER] = "system_after",
        [PART_USER_BEFORE] = "user_before",
        [PART_USER_AFTER] = "user_after",
        [PART_INPUT_BEFORE] = "input_before",
        [PART_INPUT_JOINT] = "input_joint",
        [PART_REPLY_BEFORE] = "reply_before",
        [PART_REPLY_OPEN] = "reply_open",
        [PART_REPLY_END] = "reply_end",
        [PART_REPLY_AFTER] = "reply_after",
    };
    CHECK(part < TEMPLATE_PARTS, "part %d", (int)part);
    return names[part];
}

/* The part with "{bos}" and "{eos}" replaced; owned (free). */
static char *expand(const struct template_spec *spec, enum template_part part,
                    const char *bos, const char *eos, struct err *err)
{
    static const struct {
        char mark[6];
        const char *what;
    } piece[] = {{"{bos}", "BOS"}, {"{eos}", "EOS"}};
    struct marked_text out = {0};
    for (const char *at = spec->part[part]; *at;) {
        int k = 0;
        while (k < 2 && strncmp(at, piece[k].mark, 5) != 0)
            k++;
        if (k == 2) {
            marked_text_append(&out, at++, 1);
            continue;
        }
        const char *text = k ? eos : bos;
        if (!text) {
            err_set(err, ERR_USAGE,
                    "template %s: %s has %s, but the tokenizer has no %s", spec->name,
                    template_part_name(part), piece[k].mark, piece[k].what);
            marked_text_fini(&out);
            return NULL;
        }
        marked_text_append(&out, text, strlen(text));
        at += 5;
    }
    marked_text_append(&out, "", 1);
    if (marked_text_check(&out, err)) {
        marked_text_fini(&out);
        return NULL;
    }
    return out.text;
}

/* Replaces a borrowed string by a copy; NULL stays. */
static int own(const char **s, struct err *err)
{
    return *s && !(*s = mem_printf(err, "%s", *s)) ? -1 : 0;
}

static int own_all(struct template_spec *s, struct err *err)
{
    int failed = own(&s->name, err) | own(&s->eos, err);
    for (int i = 0; i < TEMPLATE_PARTS; i++)
        failed |= own(&s->part[i], err);
    for (int i = 0; i < TEMPLATE_TOKENS; i++)
        failed |= own(&s->token[i], err);
    return failed ? -1 : 0;
}

struct template *template_create(const struct template_spec *spec, const char *bos,
                                 const char *eos, struct err *err)
{
    if (!spec->name || !spec->name[0]) {
        err_set(err, ERR_USAGE, "template: expected a name, found none");
        return NULL;
    }
    struct template *t = mem_array(1, sizeof *t, err);
    if (!t)
        return NULL;
    t->spec = *spec;
    if (!t->spec.eos)
        t->spec.eos = eos;
    for (int i = 0; i < TEMPLATE_PARTS; i++)
        if (!t->spec.part[i])
            t->spec.part[i] = i == PART_INPUT_JOINT    ? "\n\n"
                              : i == PART_INPUT_BEFORE ? spec->part[PART_USER_BEFORE]
                                                       : "";
    if (!t->spec.part[PART_INPUT_BEFORE])
        t->spec.part[PART_INPUT_BEFORE] = "";
    int failed = own_all(&t->spec, err);
    for (int i = 0; i < TEMPLATE_PARTS && !failed; i++) {
        t->text[i] = expand(&t->spec, i, bos, t->spec.eos, err);
        failed = !t->text[i];
        t->bytes[i] = failed ? 0 : strlen(t->text[i]);
    }
    if (failed) {
        template_destroy(t);
        return NULL;
    }
    return t;
}

static void drop(const char *owned)
{
    union {
        const char *in;
        char *out;
    } same = {owned};
    free(same.out);
}

void template_destroy(struct template *t)
{
    if (!t)
        return;
    drop(t->spec.name);
    drop(t->spec.eos);
    for (int i = 0; i < TEMPLATE_PARTS; i++) {
        drop(t->spec.part[i]);
        free(t->text[i]);
    }
    for (int i = 0; i < TEMPLATE_TOKENS; i++)
        drop(t->spec.token[i]);
    mem_free(t);
}

const char *template_name(const struct template *t)
{
    return t->spec.name;
}

bool template_bos(const struct template *t)
{
    return t->spec.bos;
}

const char *template_eos(const struct template *t)
{
    return t->spec.eos;
}

const char *template_token(const struct template *t, int i)
{
    return i < 0 || i >= TEMPLATE_TOKENS ? NULL : t->spec.token[i];
}

char *template_describe(const struct template *t, struct err *err)
{
    static const char *const systems[] = {[SYSTEM_TURN] = "turn",
                                          [SYSTEM_MERGED] = "merged",
                                          [SYSTEM_REFUSED] = "refused"};
    const struct template_spec *s = &t->spec;
    const struct {
        const char *name;
        bool on;
    } flag[] = {{"skip_empty_system", s->skip_empty_system},
                {"strip", s->strip},
                {"bos", s->bos},
                {"raw", s->raw},
                {"text", s->text},
                {"one_turn", s->one_turn},
                {"end_once", s->end_once}};
    struct json j = {0};
    json_begin(&j, NULL, '{');
    json_text(&j, "name", s->name);
    for (int i = 0; i < TEMPLATE_PARTS; i++)
        if (s->part[i][0])
            json_text(&j, template_part_name(i), s->part[i]);
    json_begin(&j, "tokens", '[');
    for (int i = 0; i < TEMPLATE_TOKENS && s->token[i]; i++)
        json_text(&j, NULL, s->token[i]);
    json_end(&j, ']');
    json_text(&j, "eos", s->eos);
    json_text(&j, "system", systems[s->system]);
    for (size_t i = 0; i < sizeof flag / sizeof *flag; i++)
        if (flag[i].on)
            json_bool(&j, flag[i].name, true);
    json_end(&j, '}');
    char *text = mem_printf(err, "%s", j.text);
    json_fini(&j);
    return text;
}

static bool ends_with(const char *text, size_t bytes, const char *end, size_t end_bytes)
{
    return bytes >= end_bytes && memcmp(text + bytes - end_bytes, end, end_bytes) == 0;
}

bool template_ends_replies(const struct template *t)
{
    const char *eos = t->spec.eos;
    return eos && *eos &&
           ends_with(t->text[PART_REPLY_END], t->bytes[PART_REPLY_END], eos,
                     strlen(eos));
}
