/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tokenizer.h"

#include "io/spm_model.h"
#include "io/spm_shim.h"
#include "src/base/check.h"
#include "src/base/mem.h"

#include <xxhash.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPECIALS = 3, WHY_BYTES = 256, PART_BYTES = 256 };

struct tokenizer {
    struct spm *spm;
    struct spm_traits traits;
    int vocab, bos, eos, unk;
    char hash[33];
    struct special {
        const char *text; /* borrowed from spm */
        size_t bytes;
        int id;
    } special[SPECIALS]; /* what parse_special cuts out */
    int specials;
    bool *is_byte; /* [vocab] */
};

static void add_special(struct tokenizer *t, int id)
{
    if (id < 0)
        return;
    const char *text = spm_piece(t->spm, id);
    t->special[t->specials++] = (struct special){text, strlen(text), id};
}

struct tokenizer *tokenizer_create(const void *model, size_t bytes, const char *name,
                                   struct err *err)
{
    char why[WHY_BYTES] = "";
    struct spm_traits traits;
    if (spm_model_check(model, bytes, name, &traits, err))
        return NULL;
    struct tokenizer *t = mem_array(1, sizeof *t, err);
    if (!t)
        return NULL;
    t->traits = traits;
    t->spm = spm_create(model, bytes, why, sizeof why);
    if (!t->spm) {
        err_set(err, ERR_INPUT, "%s: SentencePiece refuses it: %s", name, why);
        mem_free(t);
        return NULL;
    }
    t->vocab = spm_vocab(t->spm);
    t->bos = spm_bos(t->spm);
    t->eos = spm_eos(t->spm);
    t->unk = spm_unk(t->spm);
    add_special(t, t->bos);
    add_special(t, t->eos);
    add_special(t, t->unk);
    if (!(t->is_byte = mem_array(t->vocab, sizeof *t->is_byte, err))) {
        tokenizer_destroy(t);
        return NULL;
    }
    for (int i = 0; i < t->vocab; i++)
        t->is_byte[i] = spm_is_byte(t->spm, i);
    XXH128_hash_t h = XXH3_128bits(model, bytes);
    snprintf(t->hash, sizeof t->hash, "%016llx%016llx", (unsigned long long)h.high64,
             (unsigned long long)h.low64);
    return t;
}

void tokenizer_destroy(struct tokenizer *t)
{
    if (!t)
        return;
    spm_destroy(t->spm);
    mem_free(t->is_byte);
    mem_free(t);
}

int tokenizer_vocab(const struct tokenizer *t)
{
    return t->vocab;
}

int tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

int tokenizer_unk(const struct tokenizer *t)
{
    return t->unk;
}

void tokenizer_hash(const struct tokenizer *t, char *hex, size_t size)
{
    CHECK(size >= sizeof t->hash, "room for %zu bytes", size);
    memcpy(hex, t->hash, sizeof t->hash);
}

static int append_ids(void *context, const int *ids, size_t n)
{
    struct token_ids *to = context;
    int64_t need = to->n + (int64_t)n;
    if (need > to->room) {
        int64_t room = need + need / 2 + 64;
        int32_t *grown = realloc(to->id, (size_t)room * sizeof *grown);
        if (!grown)
            return -1;
        to->id = grown;
        to->room = room;
    }
    for (size_t i = 0; i < n; i++)
        to->id[to->n + (int64_t)i] = ids[i];
    to->n = need;
    return 0;
}

int token_ids_push(struct token_ids *ids, int32_t id, struct err *err)
{
    return append_ids(ids, &id, 1)
               ? err_set(err, ERR_OTHER, "memory: none left for token ids")
               : 0;
}

/* Where the part of a text that starts at begin ends: at its end, or before the first
 * space after PART_BYTES that the traits allow to cut at. Short parts keep
 * SentencePiece's work in the cache and its memory small, whatever the text's length.
 */
static size_t part_end(const struct tokenizer *t, const char *text, size_t begin,
                       size_t bytes)
{
    if (!t->traits.parts_at_spaces || bytes - begin <= PART_BYTES)
        return bytes;
    for (size_t i = begin + PART_BYTES; i + 1 < bytes; i++)
        if (text[i] == ' ' && text[i - 1] != ' ' &&
            memcmp(text + i - 3, "\xe2\x96\x81", 3) != 0) /* a space as well */
            return i;
    return bytes;
}

static int encode_plain(const struct tokenizer *t, const char *text, size_t bytes,
                        struct token_ids *ids, struct err *err)
{
    char why[WHY_BYTES] = "no memory for the ids";
    for (size_t begin = 0, end; begin < bytes; begin = end) {
        end = part_end(t, text, begin, bytes);
        if (begin > 0)
            begin++; /* the model puts this space in front of the part again */
        if (spm_encode(t->spm, text + begin, end - begin, append_ids, ids, why,
                       sizeof why))
            return err_set(err, ERR_OTHER,
                           "SentencePiece failed on a text of %zu bytes: %s", bytes,
                           why);
    }
    return 0;
}

void spanned_ids_fini(struct spanned_ids *ids)
{
    free(ids->id);
    free(ids->span);
    *ids = (struct spanned_ids){0};
}

/* Room for n more. */
static int spanned_ids_reserve(struct spanned_ids *ids, size_t n)
{
    int64_t need = ids->n + (int64_t)n, room = need + need / 2 + 64;
    if (need <= ids->room)
        return 0;
    int32_t *id = realloc(ids->id, (size_t)room * sizeof *id);
    if (!id)
        return -1;
    ids->id = id;
    struct text_span *span = realloc(ids->span, (size_t)room * sizeof *span);
    if (!span)
        return -1;
    ids->span = span;
    ids->room = room;
    return 0;
}

int spanned_ids_push(struct spanned_ids *ids, int32_t id, struct text_span span,
                     struct err *err)
{
    if (spanned_ids_reserve(ids, 1))
        return err_set(err, ERR_OTHER, "memory: none left for token ids");
    ids->id[ids->n] = id;
    ids->span[ids->n++] = span;
    return 0;
}

/* Where the tokens of a part go. */
struct span_sink {
    const struct tokenizer *t;
    struct spanned_ids *ids;
    size_t offset;  /* of the part in the text, added to spans */
    bool space_cut; /* the space put in front of the part is the one cut off there */
};

static int append_spans(void *context, const struct spm_token *tokens, size_t n)
{
    const struct span_sink *k = context;
    if (spanned_ids_reserve(k->ids, n))
        return -1;
    int32_t *id = k->ids->id + k->ids->n;
    struct text_span *span = k->ids->span + k->ids->n;
    for (size_t i = n; i-- > 0;) {
        id[i] = tokens[i].id;
        span[i] =
            (struct text_span){k->offset + tokens[i].begin, k->offset + tokens[i].end};
        if (i + 1 < n && span[i].begin == span[i].end &&
            span[i].begin == span[i + 1].begin && k->t->is_byte[id[i]] &&
            k->t->is_byte[id[i + 1]])
            span[i] = span[i + 1]; /* of the same character */
    }
    if (k->space_cut && n)
        span[0].begin--;
    k->ids->n += (int64_t)n;
    return 0;
}

int tokenizer_encode_spans(const struct tokenizer *t, const char *text, size_t bytes,
                           size_t offset, struct spanned_ids *ids, struct err *err)
{
    char why[WHY_BYTES] = "no memory for the ids";
    int64_t before = ids->n;
    for (size_t begin = 0, end; begin < bytes; begin = end) {
        end = part_end(t, text, begin, bytes);
        bool space_cut = begin > 0;
        begin += space_cut;
        struct span_sink sink = {t, ids, offset + begin, space_cut};
        if (spm_encode_tokens(t->spm, text + begin, end - begin, append_spans, &sink,
                              why, sizeof why)) {
            ids->n = before;
            return err_set(err, ERR_OTHER,
                           "SentencePiece failed on a text of %zu bytes: %s", bytes,
                           why);
        }
    }
    return 0;
}

static const struct special *special_at(const struct tokenizer *t, const char *text,
                                        size_t bytes)
{
    const struct special *best = NULL;
    for (int i = 0; i < t->specials; i++) {
        const struct special *s = &t->special[i];
        if (s->bytes <= bytes && memcmp(text, s->text, s->bytes) == 0 &&
            (!best || s->bytes > best->bytes))
            best = s;
    }
    return best;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t bytes,
                     bool parse_special, struct token_ids *ids, struct err *err)
{
    int64_t before = ids->n;
    size_t begin = 0;
    for (size_t i = 0; parse_special && i < bytes;) {
        const struct special *s = special_at(t, text + i, bytes - i);
        if (!s) {
            i++;
            continue;
        }
        if (encode_plain(t, text + begin, i - begin, ids, err) ||
            token_ids_push(ids, s->id, err))
            goto fail;
        i += s->bytes;
        begin = i;
    }
    if (encode_plain(t, text + begin, bytes - begin, ids, err))
        goto fail;
    return 0;
fail:
    ids->n = before;
    return -1;
}

char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int64_t n,
                       struct err *err)
{
    char why[WHY_BYTES] = "";
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= t->vocab) {
            err_set(err, ERR_INPUT,
                    "token %lld of %lld: expected an id below %d, found %d",
                    (long long)i, (long long)n, t->vocab, (int)ids[i]);
            return NULL;
        }
    char *text = spm_decode(t->spm, ids, (size_t)n, why, sizeof why);
    if (!text)
        err_set(err, ERR_OTHER, "SentencePiece failed on %lld ids: %s", (long long)n,
                why);
    return text;
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id)
{
    return id < 0 || id >= t->vocab ? NULL : spm_piece(t->spm, id);
}
