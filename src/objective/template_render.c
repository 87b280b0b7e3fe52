/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/template_parts.h"

#include "src/base/check.h"

#include <string.h>

/* Bytes of the white space character at text, 0: it is none. What Python's str.strip
 * takes off, which jinja's templates call. */
static size_t space_at(const char *text, size_t bytes)
{
    static const char wide[][4] = {
        "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81",
        "\xe2\x80\x82", "\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86",
        "\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8",
        "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
    unsigned char c = bytes ? (unsigned char)text[0] : 0xff;
    if ((c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20))
        return 1;
    for (size_t i = 0; c >= 0xc2 && i < sizeof wide / sizeof *wide; i++) {
        size_t n = strlen(wide[i]);
        if (n <= bytes && memcmp(text, wide[i], n) == 0)
            return n;
    }
    return 0;
}

/* Takes white space off both ends of what stands behind `from`. */
static void strip(struct marked_text *out, size_t from)
{
    size_t n;
    for (bool more = true; more && out->bytes > from;) {
        more = false;
        for (size_t k = 1; k <= 3 && k <= out->bytes - from && !more; k++) {
            more = space_at(out->text + out->bytes - k, k) == k;
            if (more)
                out->bytes -= k;
        }
    }
    size_t begin = from;
    while ((n = space_at(out->text + begin, out->bytes - begin)))
        begin += n;
    if (begin > from) {
        memmove(out->text + from, out->text + begin, out->bytes - begin);
        out->bytes -= begin - from;
    }
}

/* One string on its way. */
struct render {
    const struct template *t;
    struct marked_text *out;
    bool raw; /* strings go in as they are */
};

static void put_part(const struct render *r, enum template_part part)
{
    marked_text_append(r->out, r->t->text[part], r->t->bytes[part]);
}

static void put_body(const struct render *r, size_t from)
{
    if (r->t->spec.strip && !r->out->failed && r->out->bytes > from)
        strip(r->out, from);
}

static void put_system(const struct render *r, const struct message *m)
{
    bool keep_empty = r->t->spec.system == SYSTEM_TURN && !r->t->spec.skip_empty_system;
    if (m->bytes == 0 && !keep_empty)
        return;
    put_part(r, PART_SYSTEM_BEFORE);
    marked_text_append(r->out, m->text, m->bytes);
    put_part(r, PART_SYSTEM_AFTER);
}

/* `system` is merged into it; NULL: none. */
static void put_user(const struct render *r, const struct message *m,
                     const struct message *system)
{
    if (!r->raw)
        put_part(r, m->input_bytes ? PART_INPUT_BEFORE : PART_USER_BEFORE);
    size_t body = r->out->bytes;
    if (system)
        put_system(r, system);
    marked_text_append(r->out, m->text, m->bytes);
    if (m->input_bytes) {
        put_part(r, PART_INPUT_JOINT);
        marked_text_append(r->out, m->input, m->input_bytes);
    }
    put_body(r, body);
    if (!r->raw)
        put_part(r, PART_USER_AFTER);
}

static void put_reply(const struct render *r, const struct message *m, bool learnt)
{
    const struct template *t = r->t;
    put_part(r, PART_REPLY_BEFORE);
    size_t begin = r->out->bytes;
    put_part(r, PART_REPLY_OPEN);
    size_t body = r->out->bytes;
    marked_text_append(r->out, m->text, m->bytes);
    put_body(r, body);
    const char *end = t->text[PART_REPLY_END];
    size_t n = t->bytes[PART_REPLY_END];
    if (!t->spec.end_once || m->bytes < n ||
        memcmp(m->text + m->bytes - n, end, n) != 0)
        put_part(r, PART_REPLY_END);
    if (learnt)
        marked_text_mark(r->out, begin);
    put_part(r, PART_REPLY_AFTER);
}

static int misfit(const struct template *t, struct err *err, const char *what)
{
    return err_set(err, ERR_INPUT, "template %s: %s", t->spec.name, what);
}

static int check_messages(const struct template *t, const struct message *m, int n,
                          struct err *err)
{
    int users = 0;
    if (n < 1)
        return misfit(t, err, "expected messages, found none");
    for (int i = 0; i < n; i++) {
        users += m[i].role == ROLE_USER;
        if (m[i].role == ROLE_SYSTEM && i > 0)
            return err_set(err, ERR_INPUT,
                           "template %s: expected a system message to be the first, "
                           "found it as message %d",
                           t->spec.name, i + 1);
    }
    if (t->spec.one_turn && users > 1)
        return err_set(err, ERR_INPUT,
                       "template %s: expected one user message, found %d", t->spec.name,
                       users);
    if (m[0].role != ROLE_SYSTEM)
        return 0;
    if (t->spec.system == SYSTEM_REFUSED)
        return misfit(t, err, "has no place for a system message");
    if (t->spec.system == SYSTEM_MERGED && n > 1 && m[1].role != ROLE_USER)
        return misfit(t, err,
                      "merges the system message into the user message behind it, "
                      "found none there");
    return 0;
}

/* Messages from `first` on are learnt, n: none. */
static int render(const struct render *r, const struct message *m, int n, int first,
                  struct err *err)
{
    bool merged = r->t->spec.system == SYSTEM_MERGED;
    marked_text_clear(r->out);
    if (check_messages(r->t, m, n, err))
        return -1;
    put_part(r, PART_START);
    for (int i = 0; i < n; i++) {
        bool behind_system = merged && i == 1 && m[0].role == ROLE_SYSTEM;
        if (m[i].role == ROLE_USER)
            put_user(r, &m[i], behind_system ? &m[0] : NULL);
        else if (m[i].role == ROLE_ASSISTANT)
            put_reply(r, &m[i], i >= first);
        else if (!merged)
            put_system(r, &m[i]);
    }
    return marked_text_check(r->out, err);
}

static int mark_all(struct marked_text *out, struct err *err)
{
    out->spans = 0;
    marked_text_mark(out, 0);
    return marked_text_check(out, err);
}

int template_render(const struct template *t, const struct message *m, int n, bool all,
                    struct marked_text *out, struct err *err)
{
    struct render r = {t, out, false};
    if (render(&r, m, n, 0, err))
        return -1;
    return all || t->spec.text ? mark_all(out, err) : 0;
}

int template_render_record(const struct template *t, const struct record *record,
                           bool all, struct marked_text *out, struct err *err)
{
    bool text = record->shape == RECORD_TEXT;
    struct render r = {t, out, t->spec.raw && record->strings};
    CHECK(record->shape != RECORD_PAIRS, "a pair has two ends");
    if (text && !t->spec.text)
        return misfit(t, err,
                      "expected messages, or prompt and completion, found a text; "
                      "plain_text takes it as it is");
    if (!text && t->spec.text && !record->strings)
        return misfit(t, err,
                      "expected a text, or prompt and completion as strings, found "
                      "messages");
    if (text) {
        marked_text_clear(out);
        put_reply(&r, &record->message[0], true);
        return mark_all(out, err);
    }
    if (render(&r, record->message, record->messages, 0, err))
        return -1;
    return all || t->spec.text ? mark_all(out, err) : 0;
}

void rendered_pair_fini(struct rendered_pair *p)
{
    marked_text_fini(&p->prompt);
    marked_text_fini(&p->chosen);
    marked_text_fini(&p->rejected);
}

int template_render_pair(const struct template *t, const struct record *record,
                         struct rendered_pair *out, struct err *err)
{
    bool raw = t->spec.raw && record->strings;
    int prompt = record->prompt;
    struct render r = {t, &out->prompt, raw};
    CHECK(record->shape == RECORD_PAIRS, "expected a pair");
    if (t->spec.text)
        return misfit(t, err, "takes no pairs; plain_completion takes strings");
    if (render(&r, record->message, prompt, prompt, err))
        return -1;
    put_part(&r, PART_REPLY_BEFORE);
    if (marked_text_check(&out->prompt, err))
        return -1;
    r.out = &out->chosen;
    if (render(&r, record->message, record->messages, prompt, err))
        return -1;
    r.out = &out->rejected;
    return render(&r, record->rejected, record->rejected_n, prompt, err);
}
