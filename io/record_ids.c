/* SPDX-License-Identifier: Apache-2.0 */
#include "io/record_ids.h"

#include "src/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct record_encoder {
    const struct tokenizer *t;
    struct spanned_ids ids; /* of the string at hand */
    struct record_ids prompt;
};

struct record_encoder *record_encoder_create(const struct tokenizer *t, struct err *err)
{
    struct record_encoder *e = mem_array(1, sizeof *e, err);
    if (e)
        e->t = t;
    return e;
}

void record_encoder_destroy(struct record_encoder *e)
{
    if (!e)
        return;
    spanned_ids_fini(&e->ids);
    record_ids_fini(&e->prompt);
    mem_free(e);
}

void record_ids_fini(struct record_ids *r)
{
    free(r->id);
    free(r->mask);
    *r = (struct record_ids){0};
}

void pair_ids_fini(struct pair_ids *p)
{
    record_ids_fini(&p->chosen);
    record_ids_fini(&p->rejected);
    p->prompt = 0;
}

static int push_bos(struct record_encoder *e, const struct marked_text *m,
                    struct err *err)
{
    int32_t bos = tokenizer_bos(e->t);
    size_t length;
    if (bos < 0)
        return err_set(err, ERR_USAGE,
                       "expected a tokenizer with a BOS, which the template puts in "
                       "front; found none (--bos no)");
    return tokenizer_special_at(e->t, m->text, m->bytes, &length) == bos
               ? 0
               : spanned_ids_push(&e->ids, bos, (struct text_span){0, 0}, err);
}

/* Ids and spans of the whole string into e->ids. */
static int encode_text(struct record_encoder *e, const struct marked_text *m, bool bos,
                       struct err *err)
{
    size_t begin = 0, i = 0;
    e->ids.n = 0;
    if (bos && push_bos(e, m, err))
        return -1;
    while (i < m->bytes) {
        size_t length;
        int32_t id = tokenizer_special_at(e->t, m->text + i, m->bytes - i, &length);
        if (id < 0) {
            i++;
            continue;
        }
        if (tokenizer_encode_spans(e->t, m->text + begin, i - begin, begin, &e->ids,
                                   err) ||
            spanned_ids_push(&e->ids, id, (struct text_span){i, i + length}, err))
            return -1;
        i += length;
        begin = i;
    }
    return begin < m->bytes
               ? tokenizer_encode_spans(e->t, m->text + begin, m->bytes - begin, begin,
                                        &e->ids, err)
               : 0;
}

static int reserve(struct record_ids *r, int64_t n, struct err *err)
{
    int64_t room = n + n / 2 + 64;
    if (n <= r->room)
        return 0;
    record_ids_fini(r);
    r->id = malloc((size_t)room * sizeof *r->id);
    r->mask = malloc((size_t)room * sizeof *r->mask);
    if (!r->id || !r->mask) {
        record_ids_fini(r);
        return err_set(err, ERR_OTHER, "memory: none left for %lld token ids",
                       (long long)n);
    }
    r->room = room;
    return 0;
}

/* Tokens and spans both go on in the text, so that one walk along both will do. */
static void fill_mask(const struct spanned_ids *ids, const struct marked_text *m,
                      uint8_t *mask)
{
    int k = 0;
    for (int64_t i = 0; i < ids->n; i++) {
        struct text_span t = ids->span[i];
        while (k < m->spans && m->span[k].end <= t.begin)
            k++;
        if (k == m->spans)
            mask[i] = 0;
        else if (t.begin < t.end)
            mask[i] = m->span[k].begin < t.end;
        else
            mask[i] = m->span[k].begin <= t.begin;
    }
}

int record_encode(struct record_encoder *e, const struct marked_text *text, bool bos,
                  struct record_ids *out, struct err *err)
{
    out->n = 0;
    if (encode_text(e, text, bos, err) || reserve(out, e->ids.n, err))
        return -1;
    out->n = e->ids.n;
    if (out->n)
        memcpy(out->id, e->ids.id, (size_t)out->n * sizeof *out->id);
    fill_mask(&e->ids, text, out->mask);
    return 0;
}

int64_t record_ids_counted(const struct record_ids *r)
{
    int64_t counted = 0;
    for (int64_t i = 1; i < r->n; i++)
        counted += r->mask[i];
    return counted;
}

void record_ids_truncate(struct record_ids *r, int64_t max_length)
{
    if (r->n > max_length)
        r->n = max_length;
}

static int64_t common(const struct record_ids *a, const struct record_ids *b)
{
    int64_t n = a->n < b->n ? a->n : b->n, i = 0;
    while (i < n && a->id[i] == b->id[i])
        i++;
    return i;
}

/* The prompt does not count; what it lost to the reply does. */
static void mask_end(struct record_ids *r, int64_t prompt)
{
    int64_t first = 0;
    while (first < r->n && !r->mask[first])
        first++;
    for (int64_t i = 0; i < r->n && i < prompt; i++)
        r->mask[i] = 0;
    if (first < r->n)
        for (int64_t i = prompt; i < first; i++)
            r->mask[i] = 1;
}

int pair_encode(struct record_encoder *e, const struct marked_text *prompt,
                const struct marked_text *chosen, const struct marked_text *rejected,
                bool bos, struct pair_ids *out, struct err *err)
{
    if (record_encode(e, prompt, bos, &e->prompt, err) ||
        record_encode(e, chosen, bos, &out->chosen, err) ||
        record_encode(e, rejected, bos, &out->rejected, err))
        return -1;
    int64_t a = common(&e->prompt, &out->chosen),
            b = common(&e->prompt, &out->rejected);
    out->prompt = a < b ? a : b;
    mask_end(&out->chosen, out->prompt);
    mask_end(&out->rejected, out->prompt);
    return 0;
}

bool pair_ids_truncate(struct pair_ids *p, int64_t max_length)
{
    if (p->prompt >= max_length)
        return false;
    record_ids_truncate(&p->chosen, max_length);
    record_ids_truncate(&p->rejected, max_length);
    return true;
}

bool pair_ids_equal(const struct pair_ids *p)
{
    return p->chosen.n == p->rejected.n &&
           common(&p->chosen, &p->rejected) == p->chosen.n;
}
