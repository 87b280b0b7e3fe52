/* SPDX-License-Identifier: Apache-2.0 */
#include "io/added_tokens.h"

#include "io/ckpt.h"
#include "io/json_read.h"
#include "src/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { SHOWN = 64, TEXT_BYTES_MAX = 1024 };

void added_tokens_fini(struct added_tokens *a)
{
    for (int i = 0; i < a->all; i++)
        free((char *)a->token[i].text);
    free(a->token);
    *a = (struct added_tokens){0};
}

/* Appends a copy, which has a row. */
static int append(struct added_tokens *a, const char *text, size_t bytes, int32_t id,
                  struct err *err)
{
    struct added_token *grown = a->token;
    if ((a->all & (a->all - 1)) == 0) /* full at 0, 1, 2, 4, 8, ... */
        grown = realloc(a->token, (size_t)(a->all ? 2 * a->all : 1) * sizeof *grown);
    if (grown)
        a->token = grown;
    char *copy = grown ? malloc(bytes + 1) : NULL;
    if (!copy)
        return err_set(err, ERR_OTHER, "memory: none left for added tokens");
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    a->token[a->all++] = (struct added_token){copy, id};
    a->n = a->all;
    return 0;
}

/* ---- from the files of a folder ---- */

struct reading {
    struct added_tokens *a;
    json_t *text, *id; /* sets of those that are there */
    int pieces;
    const char *where;
    struct err *err;
};

/* One entry of a file. */
static int take(struct reading *r, const char *text, const json_t *id)
{
    char shown[SHOWN], key[24];
    json_int_t number = json_integer_value(id);
    if (!text || !json_is_integer(id) || number < 0 || number >= INT32_MAX)
        return err_set(r->err, ERR_INPUT,
                       "%s: added token \"%s\": expected a text and an id from 0 to "
                       "2147483646",
                       r->where, text_printable(shown, sizeof shown, text ? text : ""));
    snprintf(key, sizeof key, "%lld", (long long)number);
    if (!*text || number < r->pieces || json_object_get(r->text, text) ||
        json_object_get(r->id, key))
        return 0;
    if (json_object_set_new(r->text, text, json_true()) ||
        json_object_set_new(r->id, key, json_true()))
        return err_set(r->err, ERR_OTHER, "memory: none left for added tokens");
    return append(r->a, text, strlen(text), (int32_t)number, r->err);
}

/* tokenizer.json: "added_tokens": [{"id": 512, "content": "<|im_start|>", ...}, ...] */
static int take_list(struct reading *r, json_t *file)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(file, "added_tokens"), i, entry)
    {
        const char *text = json_string_value(json_object_get(entry, "content"));
        if (take(r, text, json_object_get(entry, "id")))
            return -1;
    }
    return 0;
}

/* tokenizer_config.json: "added_tokens_decoder": {"512": {"content": ...}, ...} */
static int take_decoder(struct reading *r, json_t *file)
{
    const char *key;
    json_t *entry;
    json_object_foreach(json_object_get(file, "added_tokens_decoder"), key, entry)
    {
        char *end;
        errno = 0;
        long long number = strtoll(key, &end, 10);
        bool whole = *key >= '0' && *key <= '9' && !*end && !errno;
        json_t *id = whole ? json_integer(number) : json_null();
        const char *text = json_string_value(json_object_get(entry, "content"));
        int failed = take(r, text, id);
        json_decref(id);
        if (failed)
            return -1;
    }
    return 0;
}

/* added_tokens.json: {"<|im_start|>": 512, ...} */
static int take_map(struct reading *r, json_t *file)
{
    const char *text;
    json_t *id;
    json_object_foreach(file, text, id) if (take(r, text, id)) return -1;
    return 0;
}

static int by_id(const void *x, const void *y)
{
    const struct added_token *a = x, *b = y;
    return (a->id > b->id) - (a->id < b->id);
}

static const struct {
    const char *name;
    int (*take)(struct reading *r, json_t *file);
} sources[] = {{"tokenizer.json", take_list},
               {"tokenizer_config.json", take_decoder},
               {"added_tokens.json", take_map}};
enum { SOURCES = sizeof sources / sizeof *sources };

static int read_source(struct reading *r, int source, const struct ckpt_file *file,
                       int files)
{
    r->where = sources[source].name;
    for (int i = 0; i < files; i++) {
        if (strcmp(file[i].name, r->where) != 0)
            continue;
        json_t *object =
            json_read_text((const char *)file[i].data, file[i].bytes, r->where, r->err);
        int failed = !object || sources[source].take(r, object);
        json_decref(object);
        if (failed)
            return -1;
    }
    return 0;
}

int added_tokens_read(struct added_tokens *a, const struct ckpt_file *file, int files,
                      int pieces, int vocab, struct err *err)
{
    *a = (struct added_tokens){0};
    struct reading r = {.a = a,
                        .text = json_object(),
                        .id = json_object(),
                        .pieces = pieces,
                        .err = err};
    int failed = 0;
    if (!r.text || !r.id)
        failed = err_set(err, ERR_OTHER, "memory: none left for added tokens");
    for (int i = 0; i < SOURCES && !failed; i++)
        failed = read_source(&r, i, file, files);
    json_decref(r.text);
    json_decref(r.id);
    if (failed) {
        added_tokens_fini(a);
        return -1;
    }
    if (a->all)
        qsort(a->token, (size_t)a->all, sizeof *a->token, by_id);
    while (a->n > 0 && a->token[a->n - 1].id >= vocab)
        a->n--;
    return 0;
}

/* ---- from the command line ---- */

static bool is_white(char c)
{
    return c && strchr(" \t\n\r\v\f", c);
}

static int check_text(const struct added_tokens *a, const char *text, size_t bytes,
                      struct err *err)
{
    char copy[SHOWN], shown[SHOWN];
    snprintf(copy, sizeof copy, "%.*s", (int)(bytes < SHOWN ? bytes : SHOWN), text);
    text_printable(shown, sizeof shown, copy);
    if (bytes == 0)
        return err_set(err, ERR_USAGE,
                       "--add-tokens: expected tokens between commas, found an empty "
                       "one (a token cannot hold a comma)");
    if (is_white(text[0]) || is_white(text[bytes - 1]))
        return err_set(err, ERR_USAGE,
                       "--add-tokens: token \"%s\": expected no white space at its "
                       "ends",
                       shown);
    if (bytes > TEXT_BYTES_MAX)
        return err_set(err, ERR_USAGE,
                       "--add-tokens: token \"%s\": expected at most %d bytes, found "
                       "%zu",
                       shown, TEXT_BYTES_MAX, bytes);
    json_t *utf8 = json_stringn(text, bytes);
    json_decref(utf8);
    if (!utf8)
        return err_set(err, ERR_USAGE, "--add-tokens: token \"%s\": expected UTF-8",
                       shown);
    for (int i = 0; i < a->n; i++)
        if (strlen(a->token[i].text) == bytes &&
            memcmp(a->token[i].text, text, bytes) == 0)
            return err_set(err, ERR_USAGE, "--add-tokens: token \"%s\" is there twice",
                           shown);
    return 0;
}

int added_tokens_parse(struct added_tokens *a, const char *list, int32_t first,
                       struct err *err)
{
    *a = (struct added_tokens){0};
    for (const char *at = list;; at++) {
        size_t bytes = strcspn(at, ",");
        if (check_text(a, at, bytes, err) ||
            append(a, at, bytes, first + a->all, err)) {
            added_tokens_fini(a);
            return -1;
        }
        at += bytes;
        if (!*at)
            return 0;
    }
}

/* ---- identity ---- */

void tokenizer_identity(const void *model, size_t bytes,
                        const struct added_token *token, int n, char *hex)
{
    XXH128_hash_t h = XXH3_128bits(model, bytes);
    for (int i = 0; i < n; i++) {
        XXH128_hash_t text = XXH3_128bits(token[i].text, strlen(token[i].text));
        uint64_t words[] = {h.high64, h.low64, (uint64_t)token[i].id, text.high64,
                            text.low64};
        h = XXH3_128bits(words, sizeof words);
    }
    snprintf(hex, TOKENIZER_HASH_ROOM, "%016llx%016llx", (unsigned long long)h.high64,
             (unsigned long long)h.low64);
}
