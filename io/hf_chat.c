/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_chat.h"

#include "io/json_read.h"
#include "io/spm_model.h"

#include <stdlib.h>
#include <string.h>

static const char tokenizer_file[] = "tokenizer_config.json";
static const char specials_file[] = "special_tokens_map.json";
static const char generation_file[] = "generation_config.json";
static const char jinja_file[] = "chat_template.jinja";

/* NULL: there is none, or none for chats. */
static const char *jinja_of(const struct ckpt_info *info)
{
    const char *jinja = ckpt_info_value(info, CHAT_JINJA);
    return jinja && *jinja ? jinja : NULL;
}

static json_t *read_object(const struct ckpt_info *info, const char *name,
                           struct err *err)
{
    const struct ckpt_file *f = ckpt_info_file(info, name);
    json_t *object =
        f ? json_read_text((const char *)f->data, f->bytes, name, err) : json_object();
    if (!object && !f)
        err_set(err, ERR_OTHER, "%s: no memory", name);
    return object;
}

/* Each of the keys whose value is given; values are taken. *text stays NULL where there
 * is none. */
struct key {
    const char *name;
    json_t *value;
};

static int set_keys(const struct ckpt_info *info, const char *name, struct key *keys,
                    int n, char **text, struct err *err)
{
    int given = 0, failed = 0;
    for (int i = 0; i < n; i++)
        given += keys[i].value != NULL;
    json_t *object = given ? read_object(info, name, err) : NULL;
    for (int i = 0; i < n; i++)
        if (!object)
            json_decref(keys[i].value);
        else if (keys[i].value)
            failed |= json_object_set_new(object, keys[i].name, keys[i].value);
    if (!given)
        return 0;
    if (!object)
        return -1;
    if (!failed)
        *text = json_dumps(object, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    json_decref(object);
    return *text ? 0 : err_set(err, ERR_OTHER, "%s: no memory", name);
}

/* The text of the model's EOS where that is an added token; else NULL, the files have
 * it right. */
static int added_eos(const struct ckpt_info *info, json_t **eos, struct err *err)
{
    const struct ckpt_file *f = ckpt_info_file(info, "tokenizer.model");
    struct added_tokens added;
    *eos = NULL;
    if (!f)
        return 0;
    if (added_tokens_read(&added, info->file, info->files,
                          spm_model_pieces(f->data, f->bytes), info->shape.vocab, err))
        return -1;
    for (int i = 0; i < added.n; i++)
        if (added.token[i].id == info->shape.eos_id)
            *eos = json_string(added.token[i].text);
    added_tokens_fini(&added);
    return 0;
}

static int tokenizer_config(const struct ckpt_info *info, char **text, struct err *err)
{
    const char *jinja = jinja_of(info);
    struct key keys[] = {{"eos_token", NULL}, {"chat_template", NULL}};
    if (ckpt_info_value(info, CHAT_JINJA) && added_eos(info, &keys[0].value, err))
        return -1;
    keys[1].value = jinja ? json_string(jinja) : NULL;
    if (jinja && !keys[1].value) {
        json_decref(keys[0].value);
        return err_set(err, ERR_OTHER, "%s: no memory", tokenizer_file);
    }
    return set_keys(info, tokenizer_file, keys, 2, text, err);
}

int hf_chat_file(const struct ckpt_info *info, const char *name, char **text,
                 struct err *err)
{
    const char *jinja = jinja_of(info);
    bool chat = ckpt_info_value(info, CHAT_JINJA);
    *text = NULL;
    if (strcmp(name, generation_file) == 0 && chat && info->shape.eos_id >= 0) {
        struct key key = {"eos_token_id", json_integer(info->shape.eos_id)};
        return set_keys(info, name, &key, 1, text, err);
    }
    if (strcmp(name, specials_file) == 0 && chat) {
        struct key key = {"eos_token", NULL};
        return added_eos(info, &key.value, err) ||
                       set_keys(info, name, &key, 1, text, err)
                   ? -1
                   : 0;
    }
    if (strcmp(name, tokenizer_file) == 0)
        return tokenizer_config(info, text, err);
    if (strcmp(name, jinja_file) == 0 && jinja) {
        *text = strdup(jinja);
        return *text ? 0 : err_set(err, ERR_OTHER, "%s: no memory", name);
    }
    return 0;
}

const char *hf_chat_missing(const struct ckpt_info *info)
{
    bool missing = jinja_of(info) && !ckpt_info_file(info, tokenizer_file);
    return missing ? tokenizer_file : NULL;
}
