/* SPDX-License-Identifier: Apache-2.0 */
#include "io/spm_model.h"

#include "src/base/mem.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Field numbers of sentencepiece_model.proto. */
enum {
    MODEL_PIECES = 1,
    MODEL_TRAINER = 2,
    MODEL_NORMALIZER = 3,
    MODEL_DENORMALIZER = 5
};
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_USER_DEFINED = 4, TYPE_BYTE = 6 };
enum { TRAINER_MODEL_TYPE = 3, TRAINER_SPACE_AS_SUFFIX = 24 };
enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2, MODEL_CHAR = 4 };
enum {
    NORMALIZER_CHARSMAP = 2,
    NORMALIZER_DUMMY_PREFIX = 3,
    NORMALIZER_REMOVE_SPACES = 4,
    NORMALIZER_ESCAPE_SPACES = 5
};

/* U+2581, which stands for a space in pieces. */
static const char space[3] = "\xe2\x96\x81";

enum wire_type { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct wire {
    const unsigned char *at, *end;
};

struct field {
    uint64_t number, value; /* value: of a varint, bits of a fixed number */
    enum wire_type type;
    struct wire bytes; /* of WIRE_BYTES */
};

static bool read_varint(struct wire *w, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 70 && w->at < w->end; shift += 7) {
        unsigned char byte = *w->at++;
        if (shift < 64)
            *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

static bool read_fixed(struct wire *w, int bytes, uint64_t *value)
{
    if (w->end - w->at < bytes)
        return false;
    *value = 0;
    for (int i = 0; i < bytes; i++)
        *value |= (uint64_t)w->at[i] << (8 * i);
    w->at += bytes;
    return true;
}

/* 1 with the next field, 0 at the end, -1 if what follows is no field. */
static int wire_next(struct wire *w, struct field *f)
{
    uint64_t tag;
    if (w->at == w->end)
        return 0;
    if (!read_varint(w, &tag))
        return -1;
    f->number = tag >> 3;
    f->type = (enum wire_type)(tag & 7);
    if (f->number < 1 || f->number > 0x1fffffff)
        return -1;
    switch (f->type) {
    case WIRE_VARINT:
        return read_varint(w, &f->value) ? 1 : -1;
    case WIRE_64:
        return read_fixed(w, 8, &f->value) ? 1 : -1;
    case WIRE_32:
        return read_fixed(w, 4, &f->value) ? 1 : -1;
    case WIRE_BYTES:
        if (!read_varint(w, &f->value) || f->value > (uint64_t)(w->end - w->at))
            return -1;
        f->bytes = (struct wire){w->at, w->at + f->value};
        w->at += f->value;
        return 1;
    }
    return -1; /* groups, which no such file has */
}

struct walk {
    const char *name;
    struct err *err;
    int64_t pieces, unknown;
    int lengths; /* different lengths of user-defined pieces */
    bool length[SPM_PIECE_BYTES + 1];
    bool space_piece; /* a space alone is a piece */
    bool joins;       /* a piece joins a space to what is before it */
    uint64_t type;    /* of the model */
    bool suffix;      /* spaces belong to the word before */
    bool charsmap, dummy_prefix, remove_spaces, escape_spaces;
};

static int bad(const struct walk *k, const char *what)
{
    return err_set(k->err, ERR_INPUT, "%s: not a SentencePiece model: %s", k->name,
                   what);
}

static int bad_piece(const struct walk *k, const char *what)
{
    return err_set(k->err, ERR_INPUT, "%s: not a SentencePiece model: piece %lld: %s",
                   k->name, (long long)k->pieces, what);
}

/* Does the piece have a space after something else, or, matched in the text as it is,
 * any space at all? */
static bool joins_space(const char *text, size_t bytes, uint64_t type)
{
    bool user = type == TYPE_USER_DEFINED;
    if (user && memchr(text, ' ', bytes))
        return true;
    for (size_t i = 0; i + sizeof space <= bytes; i++)
        if (memcmp(text + i, space, sizeof space) == 0 &&
            (user || (i > 0 && (i < sizeof space ||
                                memcmp(text + i - sizeof space, space, sizeof space)))))
            return true;
    return false;
}

static int check_piece(struct walk *k, struct wire w)
{
    struct field f;
    struct wire text = {0};
    uint64_t type = TYPE_NORMAL;
    float score = 0;
    int more;
    if (k->pieces >= SPM_PIECES)
        return bad_piece(k, "more pieces than the 1,048,576 that are allowed");
    while ((more = wire_next(&w, &f)) > 0) {
        if (f.number == PIECE_TEXT && f.type == WIRE_BYTES) {
            text = f.bytes;
        } else if (f.number == PIECE_SCORE && f.type == WIRE_32) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&score, &bits, sizeof score);
        } else if (f.number == PIECE_TYPE && f.type == WIRE_VARINT) {
            type = f.value;
        } else if (f.number <= PIECE_TYPE) {
            return bad_piece(k, "a field of the wrong type");
        }
    }
    size_t bytes = (size_t)(text.end - text.at);
    if (more < 0)
        return bad_piece(k, "cut or broken");
    if (bytes < 1 || bytes > SPM_PIECE_BYTES)
        return bad_piece(k, "expected 1 to 4096 bytes of text");
    if (memchr(text.at, 0, bytes))
        return bad_piece(k, "a NUL in the text");
    if (type < TYPE_NORMAL || type > TYPE_BYTE)
        return bad_piece(k, "unknown piece type");
    if (isnan(score))
        return bad_piece(k, "the score is NaN");
    if (type == TYPE_USER_DEFINED && !k->length[bytes]) {
        k->length[bytes] = true;
        k->lengths++;
    }
    const char *chars = (const char *)text.at;
    k->joins = k->joins || joins_space(chars, bytes, type);
    k->space_piece = k->space_piece || (type == TYPE_NORMAL && bytes == sizeof space &&
                                        memcmp(chars, space, bytes) == 0);
    k->unknown += type == TYPE_UNKNOWN;
    k->pieces++;
    return 0;
}

static int check_trainer(struct walk *k, struct wire w)
{
    struct field f;
    int more;
    while ((more = wire_next(&w, &f)) > 0) {
        if (f.number == TRAINER_MODEL_TYPE) {
            if (f.type != WIRE_VARINT || f.value < MODEL_UNIGRAM ||
                f.value > MODEL_CHAR)
                return bad(k, "unknown model type");
            k->type = f.value;
        } else if (f.number == TRAINER_SPACE_AS_SUFFIX) {
            k->suffix = k->suffix || f.type != WIRE_VARINT || f.value;
        }
    }
    return more < 0 ? bad(k, "trainer_spec is cut or broken") : 0;
}

/* The double array of Darts: a unit is a 32-bit word. */
static uint32_t unit_at(const unsigned char *units, uint32_t i)
{
    const unsigned char *u = units + 4 * (size_t)i;
    return (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 |
           (uint32_t)u[3] << 24;
}

static uint32_t unit_base(uint32_t at, uint32_t unit)
{
    return at ^ ((unit >> 10) << ((unit & 0x200u) >> 6));
}

static bool unit_has_value(uint32_t unit)
{
    return unit >> 8 & 1;
}

static const uint32_t no_child = UINT32_MAX;
enum { UNSEEN, OPEN, DONE }; /* OPEN: on the path to the unit at hand */

struct trie {
    const unsigned char *units;
    uint32_t n, values; /* units; bytes that a value may point into */
    struct trie_step {
        uint32_t at, next; /* a unit and the next byte to follow from it */
    } * stack;             /* [n] */
    unsigned char *state;  /* [n] */
    unsigned char *below;  /* [n]: most matches from here on, this unit's included */
};

/* What the unit itself promises: its links stay inside, its value too. */
static bool trie_unit_is_sound(const struct trie *t, uint32_t at)
{
    uint32_t unit = unit_at(t->units, at), base = unit_base(at, unit);
    return (base | 0xffu) < t->n &&
           (!unit_has_value(unit) ||
            (unit_at(t->units, base) & 0x7fffffffu) < t->values);
}

/* The next child of the step's unit that is not done yet, no_child if none is left;
 * gathers `below` of those that are. */
static uint32_t trie_next_child(const struct trie *t, struct trie_step *step)
{
    uint32_t base = unit_base(step->at, unit_at(t->units, step->at));
    for (; step->next < 256; step->next++) {
        uint32_t child = base ^ step->next;
        if ((unit_at(t->units, child) & 0x800000ffu) != step->next)
            continue;
        if (t->state[child] != DONE)
            return child;
        if (t->below[child] > t->below[step->at])
            t->below[step->at] = t->below[child];
    }
    return no_child;
}

/* Depth first over the (shared) nodes: no circle, never more than SPM_NESTED_RULES
 * matches on a path. */
static bool trie_is_sound(struct trie *t)
{
    uint32_t depth = 0;
    if (!trie_unit_is_sound(t, 0))
        return false;
    t->state[0] = OPEN;
    t->stack[depth++] = (struct trie_step){0, 0};
    while (depth) {
        struct trie_step *top = &t->stack[depth - 1];
        uint32_t child = trie_next_child(t, top);
        if (child != no_child) {
            if (t->state[child] == OPEN || !trie_unit_is_sound(t, child))
                return false;
            t->state[child] = OPEN;
            t->stack[depth++] = (struct trie_step){child, 0};
            continue;
        }
        if (top->at && unit_has_value(unit_at(t->units, top->at)) &&
            ++t->below[top->at] > SPM_NESTED_RULES)
            return false;
        t->state[top->at] = DONE;
        depth--;
    }
    return true;
}

/* Blob: u32 bytes of the trie, the trie, the replacement strings, each ended by NUL. */
static int check_charsmap(struct walk *k, struct wire w)
{
    uint64_t trie_bytes;
    struct trie t = {0};
    if (w.at == w.end)
        return 0;
    if (w.end - w.at > SPM_CHARSMAP_BYTES)
        return bad(k, "a character map of more than 4 MiB");
    if (!read_fixed(&w, 4, &trie_bytes) || trie_bytes % 4 || trie_bytes < 1024 ||
        trie_bytes >= (uint64_t)(w.end - w.at) || w.end[-1] != '\0')
        return bad(k, "a character map that is cut or broken");
    t.units = w.at;
    t.n = (uint32_t)(trie_bytes / 4);
    t.values = (uint32_t)((uint64_t)(w.end - w.at) - trie_bytes);
    int failed = 1;
    if ((t.stack = mem_array(t.n, sizeof *t.stack, k->err)) &&
        (t.state = mem_array(t.n, 1, k->err)) && (t.below = mem_array(t.n, 1, k->err)))
        failed =
            trie_is_sound(&t) ? 0 : bad(k, "a character map whose trie leads astray");
    mem_free(t.stack);
    mem_free(t.state);
    mem_free(t.below);
    return failed;
}

static int check_normalizer(struct walk *k, struct wire w)
{
    struct field f;
    int more;
    while ((more = wire_next(&w, &f)) > 0) {
        bool on = f.type != WIRE_VARINT || f.value;
        if (f.number == NORMALIZER_CHARSMAP) {
            if (f.type != WIRE_BYTES)
                return bad(k, "a character map of the wrong type");
            if (check_charsmap(k, f.bytes))
                return -1;
            k->charsmap = k->charsmap || f.bytes.at != f.bytes.end;
        } else if (f.number == NORMALIZER_DUMMY_PREFIX) {
            k->dummy_prefix = on;
        } else if (f.number == NORMALIZER_REMOVE_SPACES) {
            k->remove_spaces = on;
        } else if (f.number == NORMALIZER_ESCAPE_SPACES) {
            k->escape_spaces = on;
        }
    }
    return more < 0 ? bad(k, "normalizer_spec is cut or broken") : 0;
}

static int check_field(struct walk *k, const struct field *f)
{
    if (f->number > MODEL_DENORMALIZER)
        return 0;
    if (f->type != WIRE_BYTES)
        return bad(k, "a field of the wrong type");
    switch (f->number) {
    case MODEL_PIECES:
        return check_piece(k, f->bytes);
    case MODEL_TRAINER:
        return check_trainer(k, f->bytes);
    case MODEL_NORMALIZER:
    case MODEL_DENORMALIZER:
        return check_normalizer(k, f->bytes);
    }
    return 0;
}

int spm_model_check(const void *model, size_t bytes, const char *name,
                    struct spm_traits *traits, struct err *err)
{
    struct walk k = {.name = name,
                     .err = err,
                     .type = MODEL_UNIGRAM, /* the defaults of the format */
                     .dummy_prefix = true,
                     .remove_spaces = true,
                     .escape_spaces = true};
    struct wire w = {model, (const unsigned char *)model + bytes};
    struct field f;
    int more;
    if (bytes > SPM_MODEL_BYTES)
        return err_set(err, ERR_INPUT,
                       "%s: expected a SentencePiece model of at most "
                       "64 MiB, found %zu bytes",
                       name, bytes);
    while ((more = wire_next(&w, &f)) > 0)
        if (check_field(&k, &f))
            return -1;
    if (more < 0)
        return bad(&k, "cut or broken");
    if (k.pieces == 0)
        return bad(&k, "no pieces");
    if (k.unknown != 1)
        return bad(&k, "expected one piece for unknown text");
    if (k.lengths > SPM_NESTED_PIECES)
        return bad(&k, "user-defined pieces of more than 64 different lengths");
    traits->parts_at_spaces = k.type == MODEL_BPE && k.space_piece && !k.joins &&
                              !k.suffix && !k.charsmap && k.dummy_prefix &&
                              !k.remove_spaces && k.escape_spaces;
    return 0;
}

int spm_model_pieces(const void *model, size_t bytes)
{
    struct wire w = {model, (const unsigned char *)model + bytes};
    struct field f;
    int pieces = 0;
    while (pieces < SPM_PIECES && wire_next(&w, &f) > 0)
        pieces += f.number == MODEL_PIECES;
    return pieces;
}
