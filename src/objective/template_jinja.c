/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/template_parts.h"

#include <stdio.h>
#include <string.h>

static void put(struct marked_text *out, const char *text)
{
    marked_text_append(out, text, strlen(text));
}

/* A sum of jinja terms; `any`: it has one already. */
struct sum {
    struct marked_text *out;
    bool any;
};

static void term(struct sum *s, const char *expression)
{
    if (s->any)
        put(s->out, " + ");
    put(s->out, expression);
    s->any = true;
}

static void put_char(struct marked_text *out, char c)
{
    char code[8];
    if (c == '\'' || c == '\\')
        marked_text_append(out, "\\", 1);
    if (c == '\n')
        put(out, "\\n");
    else if ((unsigned char)c < 0x20 || c == 0x7f) {
        snprintf(code, sizeof code, "\\x%02x", (unsigned char)c);
        put(out, code);
    } else
        marked_text_append(out, &c, 1);
}

/* A part as string literals and the variables of its pieces; nothing if empty. */
static void term_part(struct sum *s, const struct template *t, enum template_part part)
{
    bool open = false;
    for (const char *at = t->spec.part[part]; *at;) {
        bool bos = strncmp(at, "{bos}", 5) == 0,
             piece = bos || !strncmp(at, "{eos}", 5);
        if (open && piece)
            put(s->out, "'");
        if (piece) {
            term(s, bos ? "bos_token" : "eos_token");
            at += 5;
        } else {
            if (!open)
                term(s, "'");
            put_char(s->out, *at++);
        }
        open = !piece;
    }
    if (open)
        put(s->out, "'");
}

/* {{ before + text + after }}; text NULL: none. Nothing if all are empty. */
static void print(struct marked_text *out, const struct template *t,
                  enum template_part before, const char *text, int after)
{
    size_t begin = out->bytes;
    struct sum s = {out, false};
    put(out, "{{ ");
    term_part(&s, t, before);
    if (text)
        term(&s, text);
    if (after >= 0)
        term_part(&s, t, (enum template_part)after);
    if (s.any)
        put(out, " }}");
    else
        out->bytes = begin;
}

static void put_user(struct marked_text *out, const struct template *t)
{
    const char *text = "m.content";
    if (t->spec.system == SYSTEM_MERGED) {
        struct sum s = {out, false};
        put(out, "{% if loop.first and system %}{% set text = ");
        term_part(&s, t, PART_SYSTEM_BEFORE);
        term(&s, "system");
        term_part(&s, t, PART_SYSTEM_AFTER);
        term(&s, "m.content");
        put(out, " %}{% else %}{% set text = m.content %}{% endif %}");
        text = t->spec.strip ? "text.strip()" : "text";
    } else if (t->spec.strip) {
        text = "m.content.strip()";
    }
    print(out, t, PART_USER_BEFORE, text, PART_USER_AFTER);
}

static void put_reply(struct marked_text *out, const struct template *t, bool marks)
{
    const char *text = t->spec.strip ? "m.content.strip()" : "m.content";
    bool once = t->spec.end_once && t->spec.part[PART_REPLY_END][0];
    print(out, t, PART_REPLY_BEFORE, NULL, -1);
    if (marks)
        put(out, "{% generation %}");
    print(out, t, PART_REPLY_OPEN, text, once ? -1 : PART_REPLY_END);
    if (once) {
        struct sum s = {out, false};
        put(out, "{% if not m.content.endswith(");
        term_part(&s, t, PART_REPLY_END);
        put(out, ") %}");
        print(out, t, PART_REPLY_END, NULL, -1);
        put(out, "{% endif %}");
    }
    if (marks)
        put(out, "{% endgeneration %}");
    print(out, t, PART_REPLY_AFTER, NULL, -1);
}

static void put_system(struct marked_text *out, const struct template *t)
{
    put(out, "{% elif m.role == 'system' %}");
    if (t->spec.system == SYSTEM_REFUSED) {
        put(out, "{{ raise_exception('no place for a system message') }}");
        return;
    }
    if (t->spec.skip_empty_system)
        put(out, "{% if m.content %}");
    print(out, t, PART_SYSTEM_BEFORE, "m.content", PART_SYSTEM_AFTER);
    if (t->spec.skip_empty_system)
        put(out, "{% endif %}");
}

char *template_jinja(const struct template *t, bool marks, struct err *err)
{
    struct marked_text out = {0};
    bool merged = t->spec.system == SYSTEM_MERGED;
    if (t->spec.raw || t->spec.text) {
        err_set(err, ERR_USAGE, "template %s: has no chats, so no jinja", t->spec.name);
        return NULL;
    }
    if (merged)
        put(&out,
            "{% if messages[0].role == 'system' %}"
            "{% set system = messages[0].content %}{% set rest = messages[1:] %}"
            "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}");
    print(&out, t, PART_START, NULL, -1);
    put(&out, merged ? "{% for m in rest %}" : "{% for m in messages %}");
    put(&out, "{% if m.role == 'user' %}");
    put_user(&out, t);
    put(&out, "{% elif m.role == 'assistant' %}");
    put_reply(&out, t, marks);
    if (!merged)
        put_system(&out, t);
    put(&out, "{% endif %}{% endfor %}");
    if (t->spec.part[PART_REPLY_BEFORE][0]) {
        put(&out, "{% if add_generation_prompt %}");
        print(&out, t, PART_REPLY_BEFORE, NULL, -1);
        put(&out, "{% endif %}");
    }
    marked_text_append(&out, "", 1);
    if (marked_text_check(&out, err)) {
        marked_text_fini(&out);
        return NULL;
    }
    return out.text;
}
