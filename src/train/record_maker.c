/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/record_maker.h"

#include "io/record_ids.h"
#include "io/records.h"
#include "src/base/mem.h"

#include <stdlib.h>

enum { MAX_PARTS = 3 };

struct record_maker {
    const struct tokenizer *t;
    const struct template *chat;
    struct record_rule rule;
    struct record_counts counts;
    struct records *parser;
    struct record_encoder *encoder;
    struct marked_text text; /* of the record at hand */
    struct rendered_pair pair_text;
    struct record_ids ids;
    struct pair_ids pair;
    int parts;
    int64_t end[MAX_PARTS]; /* of the parts, in value */
    int32_t *value;
    int64_t room;
};

static int check_tokens(const struct record_maker *m, struct err *err)
{
    const char *text;
    for (int i = 0; (text = template_token(m->chat, i)); i++)
        if (tokenizer_special(m->t, text) < 0)
            return err_set(err, ERR_USAGE,
                           "template %s: expected a tokenizer with the token %s, found "
                           "none; `dusk upscale CKPT -o NEW --add-tokens` adds tokens",
                           template_name(m->chat), text);
    return 0;
}

struct record_maker *record_maker_create(const struct tokenizer *t,
                                         const struct template *chat,
                                         const struct record_map *map,
                                         const struct record_rule *rule,
                                         struct err *err)
{
    struct record_maker *m = mem_array(1, sizeof *m, err);
    if (!m)
        return NULL;
    m->t = t;
    m->chat = chat;
    m->rule = *rule;
    if (!(m->parser = records_create(map, err)) ||
        !(m->encoder = record_encoder_create(t, err)) || check_tokens(m, err)) {
        record_maker_destroy(m);
        return NULL;
    }
    return m;
}

void record_maker_destroy(struct record_maker *m)
{
    if (!m)
        return;
    records_destroy(m->parser);
    record_encoder_destroy(m->encoder);
    marked_text_fini(&m->text);
    rendered_pair_fini(&m->pair_text);
    record_ids_fini(&m->ids);
    pair_ids_fini(&m->pair);
    free(m->value);
    mem_free(m);
}

int record_maker_shape(struct record_maker *m, const char *line, size_t bytes,
                       enum record_shape *shape, struct err *err)
{
    return records_recognise(m->parser, line, bytes, shape, err);
}

int record_maker_eos(const struct record_maker *m)
{
    const char *eos = template_eos(m->chat);
    return eos && *eos ? tokenizer_special(m->t, eos) : -1;
}

int record_maker_parts(const struct record_maker *m)
{
    return m->parts;
}

const int32_t *record_maker_part(const struct record_maker *m, int part, int64_t *n)
{
    int64_t begin = part ? m->end[part - 1] : 0;
    *n = m->end[part] - begin;
    return m->value + begin;
}

const struct record_counts *record_maker_counts(const struct record_maker *m)
{
    return &m->counts;
}

static int reserve(struct record_maker *m, int64_t n, struct err *err)
{
    if (n <= m->room)
        return 0;
    int32_t *grown = realloc(m->value, (size_t)(n + n / 2) * sizeof *grown);
    if (!grown)
        return err_set(err, ERR_OTHER, "memory: none left for a record of %lld tokens",
                       (long long)n);
    m->value = grown;
    m->room = n + n / 2;
    return 0;
}

/* Ids [begin, n) of a sequence become the next part. Position 0 never counts. */
static void put_part(struct record_maker *m, const struct record_ids *ids,
                     int64_t begin, int64_t n)
{
    int64_t at = m->parts ? m->end[m->parts - 1] : 0, counted = 0;
    for (int64_t i = begin; i < n; i++) {
        int32_t mark = i > 0 && ids->mask[i];
        m->value[at++] = 2 * ids->id[i] + mark;
        counted += mark;
    }
    m->end[m->parts++] = at;
    m->counts.counted += counted;
}

static void count_record(struct record_maker *m, int64_t longest, bool truncated)
{
    struct record_counts *c = &m->counts;
    int64_t row = m->end[m->parts - 1];
    c->records++;
    c->tokens += row;
    c->truncated += truncated;
    c->longest = longest > c->longest ? longest : c->longest;
    c->longest_row = row > c->longest_row ? row : c->longest_row;
}

static bool too_long(const struct record_maker *m, int64_t n)
{
    return m->rule.max_length > 0 && n > m->rule.max_length;
}

/* What becomes of one of n tokens that is too long, but for truncation. */
static enum record_made refuse_long(struct record_maker *m, int64_t n, struct err *err)
{
    if (m->rule.too_long == TOO_LONG_DROP) {
        m->counts.dropped_too_long++;
        return RECORD_DROPPED;
    }
    err_set(err, ERR_INPUT,
            "expected at most %lld tokens, found %lld; --too-long truncate or drop, or "
            "another --max-length",
            (long long)m->rule.max_length, (long long)n);
    return RECORD_FAILED;
}

static enum record_made failure(const struct err *err)
{
    return err->code == ERR_INPUT ? RECORD_BAD : RECORD_FAILED;
}

static enum record_made make_record(struct record_maker *m, const struct record *r,
                                    struct err *err)
{
    if (template_render_record(m->chat, r, m->rule.all, &m->text, err) ||
        record_encode(m->encoder, &m->text, m->rule.bos, &m->ids, err))
        return failure(err);
    bool cut = too_long(m, m->ids.n);
    if (cut && m->rule.too_long != TOO_LONG_TRUNCATE)
        return refuse_long(m, m->ids.n, err);
    if (cut)
        record_ids_truncate(&m->ids, m->rule.max_length);
    if (record_ids_counted(&m->ids) == 0) {
        m->counts.dropped_uncounted++;
        return RECORD_DROPPED;
    }
    if (reserve(m, m->ids.n, err))
        return RECORD_FAILED;
    put_part(m, &m->ids, 0, m->ids.n);
    count_record(m, m->ids.n, cut);
    return RECORD_MADE;
}

static enum record_made make_pair(struct record_maker *m, const struct record *r,
                                  struct err *err)
{
    struct pair_ids *p = &m->pair;
    struct rendered_pair *text = &m->pair_text;
    if (template_render_pair(m->chat, r, text, err) ||
        pair_encode(m->encoder, &text->prompt, &text->chosen, &text->rejected,
                    m->rule.bos, p, err))
        return failure(err);
    int64_t n = p->chosen.n > p->rejected.n ? p->chosen.n : p->rejected.n;
    bool cut = too_long(m, n);
    if (cut && m->rule.too_long != TOO_LONG_TRUNCATE)
        return refuse_long(m, n, err);
    if ((cut && !pair_ids_truncate(p, m->rule.max_length)) ||
        record_ids_counted(&p->chosen) == 0 || record_ids_counted(&p->rejected) == 0) {
        m->counts.dropped_uncounted++;
        return RECORD_DROPPED;
    }
    if (pair_ids_equal(p)) {
        m->counts.dropped_equal++;
        return RECORD_DROPPED;
    }
    if (reserve(m, p->chosen.n + p->rejected.n, err))
        return RECORD_FAILED;
    put_part(m, &p->chosen, 0, p->prompt);
    put_part(m, &p->chosen, p->prompt, p->chosen.n);
    put_part(m, &p->rejected, p->prompt, p->rejected.n);
    count_record(m, p->chosen.n > p->rejected.n ? p->chosen.n : p->rejected.n, cut);
    return RECORD_MADE;
}

enum record_made record_maker_line(struct record_maker *m, enum record_shape shape,
                                   const char *line, size_t bytes, struct err *err)
{
    struct record r;
    m->parts = 0;
    if (records_parse(m->parser, shape, line, bytes, &r, err))
        return failure(err);
    return shape == RECORD_PAIRS ? make_pair(m, &r, err) : make_record(m, &r, err);
}
