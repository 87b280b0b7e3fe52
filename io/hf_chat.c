/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_chat.h"

#include "io/json_read.h"

#include <stdlib.h>
#include <string.h>

static const char tokenizer_file[] = "tokenizer_config.json";
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

/* Takes `value`, which may be NULL for no memory. */
static int set_key(const struct ckpt_info *info, const char *name, const char *key,
                   json_t *value, char **text, struct err *err)
{
    json_t *object = read_object(info, name, err);
    if (!object) {
        json_decref(value);
        return -1;
    }
    if (json_object_set_new(object, key, value) == 0)
        *text = json_dumps(object, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    json_decref(object);
    return *text ? 0 : err_set(err, ERR_OTHER, "%s: no memory", name);
}

int hf_chat_file(const struct ckpt_info *info, const char *name, char **text,
                 struct err *err)
{
    const char *jinja = jinja_of(info);
    *text = NULL;
    if (strcmp(name, generation_file) == 0 && ckpt_info_value(info, CHAT_JINJA) &&
        info->shape.eos_id >= 0)
        return set_key(info, name, "eos_token_id", json_integer(info->shape.eos_id),
                       text, err);
    if (!jinja)
        return 0;
    if (strcmp(name, jinja_file) == 0) {
        *text = strdup(jinja);
        return *text ? 0 : err_set(err, ERR_OTHER, "%s: no memory", name);
    }
    if (strcmp(name, tokenizer_file) == 0)
        return set_key(info, name, "chat_template", json_string(jinja), text, err);
    return 0;
}

const char *hf_chat_missing(const struct ckpt_info *info)
{
    bool missing = jinja_of(info) && !ckpt_info_file(info, tokenizer_file);
    return missing ? tokenizer_file : NULL;
}
