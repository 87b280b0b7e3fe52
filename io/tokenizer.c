/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tokenizer.h"

#include "io/spm_model.h"
#include "io/spm_shim.h"
#include "src/base/check.h"
#include "src/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OWN_SPECIALS = 3, WHY_BYTES = 256, PART_BYTES = 256 };

struct tokenizer {
    struct spm *spm;
    struct spm_traits traits;
    int pieces, vocab, bos, eos, unk;
    char hash[TOKENIZER_HASH_ROOM];
    struct special {
        char *text; /* owned */
        size_t bytes;
        int32_t id;
    } * special;  /* [specials]: what text is cut at; added ones are the last */
    int specials; /* own and added */
    int added;
    bool first[256]; /* a special token begins with this byte */
    bool *is_byte;   /* [pieces] */
};

static int add_special(struct tokenizer *t, const char *text, int32_t id,
                       const char *name, struct err *err)
{
    int32_t last = t->added ? t->special[t->specials - 1].id : t->pieces - 1;
    bool own = id >= 0 && id < t->pieces;
    if (!*text || (!own && id <= last))
        return err_set(err, ERR_INPUT,
                       "%s: added token \"%.60s\": expected a text and an id above %d, "
                       "found id %d",
                       name, text, (int)last, (int)id);
    int32_t other = tokenizer_special(t, text);
    if (other >= 0)
        return err_set(
            err, ERR_INPUT,
            "%s: added token \"%.60s\": expected a new token, found it as id "
            "%d",
            name, text, (int)other);
    struct special *s = &t->special[t->specials];
    if (!(s->text = mem_printf(err, "%s", text)))
        return -1;
    s->bytes = strlen(text);
    s->id = id;
    t->first[(unsigned char)text[0]] = true;
    t->specials++;
    return 0;
}

static int add_specials(struct tokenizer *t, const struct added_token *added, int n,
                        const char *name, struct err *err)
{
    const int own[OWN_SPECIALS] = {t->bos, t->eos, t->unk};
    if (!(t->special = mem_array((int64_t)n + OWN_SPECIALS, sizeof *t->special, err)))
        return -1;
    for (int i = 0; i < OWN_SPECIALS; i++)
        if (own[i] >= 0 && add_special(t, spm_piece(t->spm, own[i]), own[i], name, err))
            return -1;
    for (; t->added < n; t->added++) {
        const struct added_token *a = &added[t->added];
        int32_t id = a->id < t->pieces ? -1 : a->id;
        if (add_special(t, a->text, id, name, err))
            return -1;
        t->vocab = a->id + 1;
    }
    return 0;
}

/* What is known of the pieces. */
static int read_pieces(struct tokenizer *t, struct err *err)
{
    t->pieces = t->vocab = spm_vocab(t->spm);
    t->bos = spm_bos(t->spm);
    t->eos = spm_eos(t->spm);
    t->unk = spm_unk(t->spm);
    if (!(t->is_byte = mem_array(t->pieces, sizeof *t->is_byte, err)))
        return -1;
    for (int i = 0; i < t->pieces; i++)
        t->is_byte[i] = spm_is_byte(t->spm, i);
    return 0;
}

struct tokenizer *tokenizer_create_added(const void *model, size_t bytes,
                                         const struct added_token *added, int n,
                                         const char *name, struct err *err)
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
    if (read_pieces(t, err) || add_specials(t, added, n, name, err)) {
        tokenizer_destroy(t);
        return NULL;
    }
    tokenizer_identity(model, bytes, added, n, t->hash);
    return t;
}

struct tokenizer *tokenizer_create(const void *model, size_t bytes, const char *name,
                                   struct err *err)
{
    return tokenizer_create_added(model, bytes, NULL, 0, name, err);
}

void tokenizer_destroy(struct tokenizer *t)
{
    if (!t)
        return;
    spm_destroy(t->spm);
    for (int i = 0; i < t->specials; i++)
        free(t->special[i].text);
    mem_free(t->special);
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
    if (token_ids_reserve(to, n))
        return -1;
    for (size_t i = 0; i < n; i++)
        to->id[to->n++] = ids[i];
    return 0;
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

int32_t tokenizer_special_at(const struct tokenizer *t, const char *text, size_t bytes,
                             size_t *length)
{
    const struct special *best = NULL;
    if (bytes == 0 || !t->first[(unsigned char)text[0]])
        return -1;
    for (int i = 0; i < t->specials; i++) {
        const struct special *s = &t->special[i];
        if (s->bytes <= bytes && memcmp(text, s->text, s->bytes) == 0 &&
            (!best || s->bytes > best->bytes))
            best = s;
    }
    if (best)
        *length = best->bytes;
    return best ? best->id : -1;
}

int32_t tokenizer_special(const struct tokenizer *t, const char *text)
{
    for (int i = 0; i < t->specials; i++)
        if (strcmp(t->special[i].text, text) == 0)
            return t->special[i].id;
    return -1;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text)
{
    for (int i = 0; i < t->pieces; i++)
        if (strcmp(spm_piece(t->spm, i), text) == 0)
            return i;
    return tokenizer_special(t, text);
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t bytes,
                     bool parse_special, struct token_ids *ids, struct err *err)
{
    int64_t before = ids->n;
    size_t begin = 0;
    for (size_t i = 0; parse_special && i < bytes;) {
        size_t length;
        int32_t id = tokenizer_special_at(t, text + i, bytes - i, &length);
        if (id < 0) {
            i++;
            continue;
        }
        if (encode_plain(t, text + begin, i - begin, ids, err) ||
            token_ids_push(ids, id, err))
            goto fail;
        i += length;
        begin = i;
    }
    if (encode_plain(t, text + begin, bytes - begin, ids, err))
        goto fail;
    return 0;
fail:
    ids->n = before;
    return -1;
}

/* The text of an added token; NULL: it is none. */
static const char *added_text(const struct tokenizer *t, int32_t id)
{
    for (int i = t->specials - t->added; id >= t->pieces && i < t->specials; i++)
        if (t->special[i].id == id)
            return t->special[i].text;
    return NULL;
}

/* text + more, of which text is owned and goes; NULL with err set. */
static char *joined(char *text, const char *more, struct err *err)
{
    char *both = text && more ? mem_printf(err, "%s%s", text, more) : NULL;
    free(text);
    return both;
}

static char *join_pieces(const struct tokenizer *t, char *text, const int32_t *ids,
                         int64_t n, struct err *err)
{
    char why[WHY_BYTES] = "";
    char *part = n ? spm_decode(t->spm, ids, (size_t)n, why, sizeof why) : NULL;
    if (n && !part)
        err_set(err, ERR_OTHER, "SentencePiece failed on %lld ids: %s", (long long)n,
                why);
    text = joined(text, n ? part : "", err);
    free(part);
    return text;
}

char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int64_t n,
                       struct err *err)
{
    char *text = mem_printf(err, "%s", "");
    int64_t begin = 0;
    for (int64_t i = 0; i < n && text; i++) {
        if (!tokenizer_piece(t, ids[i])) {
            err_set(err, ERR_INPUT,
                    "token %lld of %lld: expected an id below %d, found %d",
                    (long long)i, (long long)n, t->vocab, (int)ids[i]);
            free(text);
            return NULL;
        }
        if (ids[i] < t->pieces)
            continue;
        text = join_pieces(t, text, ids + begin, i - begin, err);
        text = joined(text, added_text(t, ids[i]), err);
        begin = i + 1;
    }
    return text ? join_pieces(t, text, ids + begin, n - begin, err) : NULL;
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->pieces ? spm_piece(t->spm, id) : added_text(t, id);
}
