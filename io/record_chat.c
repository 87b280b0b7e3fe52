/* SPDX-License-Identifier: Apache-2.0 */
#include "io/records_parts.h"

#include "io/json_read.h"

#include <stdlib.h>
#include <string.h>

json_t *records_get(const struct records *p, const json_t *object,
                    enum record_field field)
{
    json_t *value = json_object_get(object, p->map.key[field]);
    return value && json_is_null(value) ? NULL : value;
}

int records_wrong_type(const struct records *p, enum record_field field,
                       const json_t *value, const char *expected, struct err *err)
{
    char found[64];
    json_read_describe(value, found, sizeof found);
    return err_set(err, ERR_INPUT, "field \"%s\": expected %s, found %s",
                   p->map.key[field], expected, found);
}

int records_missing(const struct records *p, enum record_field field, struct err *err)
{
    char found[160] = "null";
    if (!json_object_get(p->root, p->map.key[field]))
        json_read_keys(p->root, found, sizeof found);
    return err_set(err, ERR_INPUT, "expected a field \"%s\", found %s",
                   p->map.key[field], found);
}

int records_push(struct message_list *list, enum message_role role, const json_t *text,
                 struct err *err)
{
    if (list->n == list->room) {
        int room = 2 * list->room + 16;
        struct message *grown = realloc(list->m, (size_t)room * sizeof *grown);
        if (!grown)
            return err_set(err, ERR_OTHER, "memory: none left for %d messages", room);
        list->m = grown;
        list->room = room;
    }
    list->m[list->n++] = (struct message){.role = role,
                                          .text = json_string_value(text),
                                          .bytes = json_string_length(text),
                                          .input = ""};
    return 0;
}

int records_push_field(struct records *p, struct message_list *list,
                       enum message_role role, enum record_field field, struct err *err)
{
    const json_t *value = records_get(p, p->root, field);
    if (!value)
        return records_missing(p, field, err);
    if (!json_is_string(value))
        return records_wrong_type(p, field, value, "a string", err);
    return records_push(list, role, value, err);
}

int records_push_system(struct records *p, struct message_list *list,
                        enum record_field field, struct err *err)
{
    const json_t *value = records_get(p, p->root, field);
    if (value && !json_is_string(value))
        return records_wrong_type(p, field, value, "a string", err);
    return value && json_string_length(value)
               ? records_push(list, ROLE_SYSTEM, value, err)
               : 0;
}

/* ShareGPT's files name the same three roles in several ways. */
static const struct {
    const char *name;
    enum message_role role;
    bool sharegpt;
} roles[] = {{"system", ROLE_SYSTEM, false},       {"user", ROLE_USER, false},
             {"assistant", ROLE_ASSISTANT, false}, {"human", ROLE_USER, true},
             {"gpt", ROLE_ASSISTANT, true},        {"chatgpt", ROLE_ASSISTANT, true}};

static int push_message(struct records *p, struct message_list *list,
                        const json_t *object, struct err *err)
{
    bool sharegpt = !records_get(p, object, FIELD_ROLE);
    enum record_field who = sharegpt ? FIELD_FROM : FIELD_ROLE,
                      what = sharegpt ? FIELD_VALUE : FIELD_CONTENT;
    const json_t *role = records_get(p, object, who), *text = NULL;
    char found[64];
    if (!role)
        return err_set(err, ERR_INPUT, "expected a \"%s\" or \"%s\", found neither",
                       p->map.key[FIELD_ROLE], p->map.key[FIELD_FROM]);
    size_t i = 0, n = sizeof roles / sizeof *roles;
    while (i < n && !(json_is_string(role) && (sharegpt || !roles[i].sharegpt) &&
                      strcmp(json_string_value(role), roles[i].name) == 0))
        i++;
    if (i == n)
        return records_wrong_type(p, who, role,
                                  sharegpt ? "\"system\", \"human\" or \"gpt\""
                                           : "\"system\", \"user\" or \"assistant\"",
                                  err);
    if (!(text = records_get(p, object, what)))
        return err_set(err, ERR_INPUT,
                       "expected a \"%s\" beside the \"%s\", found none",
                       p->map.key[what], p->map.key[who]);
    if (!json_is_string(text)) {
        json_read_describe(text, found, sizeof found);
        return err_set(err, ERR_INPUT, "field \"%s\": expected a string, found %s",
                       p->map.key[what], found);
    }
    return records_push(list, roles[i].role, text, err);
}

int records_push_list(struct records *p, struct message_list *list, const json_t *value,
                      enum record_field field, struct err *err)
{
    const json_t *object;
    size_t i;
    char found[64];
    if (!json_is_array(value))
        return records_wrong_type(p, field, value, "a list of messages", err);
    if (!json_array_size(value))
        return err_set(err, ERR_INPUT, "field \"%s\": expected messages, found none",
                       p->map.key[field]);
    json_array_foreach(value, i, object)
    {
        int failed = 0;
        if (!json_is_object(object)) {
            json_read_describe(object, found, sizeof found);
            failed = err_set(err, ERR_INPUT, "expected an object, found %s", found);
        } else {
            failed = push_message(p, list, object, err);
        }
        if (failed)
            return err_prefix(err, "field \"%s\": message %zu", p->map.key[field],
                              i + 1);
    }
    return 0;
}

int records_check(const struct message_list *list, int first, struct err *err)
{
    int systems = 0, replies = 0;
    for (int i = 0; i < list->n; i++) {
        systems += list->m[i].role == ROLE_SYSTEM;
        replies += i >= first && list->m[i].role == ROLE_ASSISTANT;
        if (systems > 1)
            return err_set(err, ERR_INPUT,
                           "expected at most one system message, found a second one");
        if (list->m[i].role == ROLE_SYSTEM && i > 0)
            return err_set(err, ERR_INPUT,
                           "expected the system message to be the first, found it as "
                           "number %d",
                           i + 1);
    }
    return replies
               ? 0
               : err_set(err, ERR_INPUT, "expected an assistant message, found none");
}
