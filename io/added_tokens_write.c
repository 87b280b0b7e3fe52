/* SPDX-License-Identifier: Apache-2.0 */
#include "io/added_tokens.h"

#include "io/ckpt.h"
#include "io/json_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(const char *name, struct err *err)
{
    return err_set(err, ERR_OTHER, "%s: no memory", name);
}

/* The file's object, or an empty one. Owned. */
static json_t *read_object(const struct ckpt_info *info, const char *name,
                           struct err *err)
{
    const struct ckpt_file *f = ckpt_info_file(info, name);
    json_t *object =
        f ? json_read_text((const char *)f->data, f->bytes, name, err) : json_object();
    if (!object && !f)
        no_memory(name, err);
    return object;
}

/* The object becomes the file; keys stay in their order. */
static int put_object(struct ckpt_info *info, const char *name, const json_t *object,
                      struct err *err)
{
    char *text = json_dumps(object, JSON_INDENT(2) | JSON_ENSURE_ASCII |
                                        JSON_REAL_PRECISION(17));
    struct ckpt_file *f = (struct ckpt_file *)ckpt_info_file(info, name);
    if (!text)
        return no_memory(name, err);
    if (!f) {
        struct ckpt_file *grown =
            realloc(info->file, ((size_t)info->files + 1) * sizeof *grown);
        if (grown)
            info->file = grown;
        char *copy = grown ? strdup(name) : NULL;
        if (!copy) {
            free(text);
            return no_memory(name, err);
        }
        f = &grown[info->files++];
        *f = (struct ckpt_file){.name = copy};
    }
    free(f->data);
    f->data = (unsigned char *)text;
    f->bytes = strlen(text);
    return 0;
}

/* What transformers keeps of a special token that is found as it is. */
static json_t *entry(const struct added_token *t, bool with_id)
{
    json_t *e =
        json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "content", t->text, "lstrip", 0,
                  "normalized", 0, "rstrip", 0, "single_word", 0, "special", 1);
    if (e && with_id && json_object_set_new(e, "id", json_integer(t->id))) {
        json_decref(e);
        return NULL;
    }
    return e;
}

static int set_map(json_t *file, const struct added_token *t)
{
    if (json_object_get(file, t->text))
        return 0;
    return json_object_set_new(file, t->text, json_integer(t->id));
}

static int set_decoder(json_t *file, const struct added_token *t)
{
    char key[16];
    json_t *decoder = json_object_get(file, "added_tokens_decoder");
    if (!json_is_object(decoder)) {
        decoder = json_object();
        if (json_object_set_new(file, "added_tokens_decoder", decoder))
            return -1;
    }
    snprintf(key, sizeof key, "%d", (int)t->id);
    if (json_object_get(decoder, key))
        return 0;
    return json_object_set_new(decoder, key, entry(t, false));
}

static int append_list(json_t *file, const struct added_token *t)
{
    json_t *list = json_object_get(file, "added_tokens");
    if (!json_is_array(list)) {
        list = json_array();
        if (json_object_set_new(file, "added_tokens", list))
            return -1;
    }
    size_t i;
    json_t *e;
    json_array_foreach(list, i, e)
    {
        if (json_integer_value(json_object_get(e, "id")) == t->id)
            return 0;
    }
    return json_array_append_new(list, entry(t, true));
}

int added_tokens_write(struct ckpt_info *info, const struct added_token *token, int n,
                       struct err *err)
{
    static const struct {
        const char *name;
        int (*put)(json_t *file, const struct added_token *t);
        bool made; /* where there is none */
    } rows[] = {{"added_tokens.json", set_map, true},
                {"tokenizer_config.json", set_decoder, true},
                {"tokenizer.json", append_list, false}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        const char *name = rows[r].name;
        if (!rows[r].made && !ckpt_info_file(info, name))
            continue;
        json_t *file = read_object(info, name, err);
        int failed = file ? 0 : -1;
        for (int i = 0; i < n && !failed; i++)
            if (rows[r].put(file, &token[i]))
                failed = no_memory(name, err);
        if (!failed)
            failed = put_object(info, name, file, err);
        json_decref(file);
        if (failed)
            return -1;
    }
    return 0;
}
