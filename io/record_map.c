/* SPDX-License-Identifier: Apache-2.0 */
#include "io/record_map.h"

#include "src/base/check.h"
#include "src/base/suggest.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

const char *record_field_name(enum record_field field)
{
    static const char *const names[RECORD_FIELDS] = {
        [FIELD_MESSAGES] = "messages",
        [FIELD_ROLE] = "role",
        [FIELD_CONTENT] = "content",
        [FIELD_CONVERSATIONS] = "conversations",
        [FIELD_FROM] = "from",
        [FIELD_VALUE] = "value",
        [FIELD_INSTRUCTION] = "instruction",
        [FIELD_INPUT] = "input",
        [FIELD_OUTPUT] = "output",
        [FIELD_PROMPT] = "prompt",
        [FIELD_COMPLETION] = "completion",
        [FIELD_SYSTEM_PROMPT] = "system_prompt",
        [FIELD_QUESTION] = "question",
        [FIELD_RESPONSE] = "response",
        [FIELD_TEXT] = "text",
        [FIELD_CHOSEN] = "chosen",
        [FIELD_REJECTED] = "rejected",
        [FIELD_SYSTEM] = "system",
    };
    CHECK(field < RECORD_FIELDS, "field %d", (int)field);
    return names[field];
}

void record_map_init(struct record_map *m)
{
    for (int i = 0; i < RECORD_FIELDS; i++)
        snprintf(m->key[i], sizeof m->key[i], "%s", record_field_name(i));
}

static int unknown_field(const char *name, struct err *err)
{
    struct suggest s = suggest_for(name);
    for (int i = 0; i < RECORD_FIELDS; i++)
        suggest_try(&s, record_field_name(i));
    return err_set(
        err, ERR_USAGE,
        "map: expected a field of records in front of '=', found \"%s\"%s%s%s", name,
        s.best ? "; did you mean " : "", s.best ? s.best : "", s.best ? "?" : "");
}

static int rename_field(struct record_map *m, const char *pair, size_t bytes,
                        bool *renamed, struct err *err)
{
    const char *equals = memchr(pair, '=', bytes);
    char name[RECORD_KEY_BYTES];
    size_t n = equals ? (size_t)(equals - pair) : bytes, key = bytes - n - 1;
    if (!equals || n == 0 || key == 0)
        return err_set(err, ERR_USAGE,
                       "map: expected field=key,..., as in prompt=question, found "
                       "\"%.*s\"",
                       (int)(bytes < 80 ? bytes : 80), pair);
    if (n >= sizeof name || key >= sizeof m->key[0])
        return err_set(err, ERR_USAGE,
                       "map: expected names of at most %d bytes, found \"%.80s\"",
                       RECORD_KEY_BYTES - 1, pair);
    snprintf(name, sizeof name, "%.*s", (int)n, pair);
    int field = 0;
    while (field < RECORD_FIELDS && strcmp(name, record_field_name(field)) != 0)
        field++;
    if (field == RECORD_FIELDS)
        return unknown_field(name, err);
    if (renamed[field])
        return err_set(err, ERR_USAGE, "map: field \"%s\" is named twice", name);
    renamed[field] = true;
    snprintf(m->key[field], sizeof m->key[field], "%.*s", (int)key, equals + 1);
    return 0;
}

int record_map_parse(struct record_map *m, const char *renames, struct err *err)
{
    struct record_map parsed = *m;
    bool renamed[RECORD_FIELDS] = {false};
    for (const char *at = renames;; at++) {
        size_t bytes = strcspn(at, ",");
        if (rename_field(&parsed, at, bytes, renamed, err))
            return -1;
        at += bytes;
        if (!*at)
            break;
    }
    *m = parsed;
    return 0;
}
