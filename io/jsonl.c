/* SPDX-License-Identifier: Apache-2.0 */
#include "io/jsonl.h"

#include "io/json_read.h"

#include <stdio.h>
#include <string.h>

/* "a", "b", "c": the keys of an object, cut where the room ends. */
static void list_keys(json_t *object, char *text, size_t size)
{
    size_t used = 0;
    const char *key;
    json_t *value;
    text[0] = '\0';
    json_object_foreach(object, key, value)
    {
        char name[48];
        text_printable(name, sizeof name, key);
        if (used + strlen(name) + 8 > size)
            break;
        used += (size_t)snprintf(text + used, size - used, "%s\"%s\"", used ? ", " : "",
                                 name);
    }
    if (!used)
        snprintf(text, size, "no keys");
}

json_t *jsonl_text(const char *line, size_t bytes, const char *field, struct err *err)
{
    json_error_t e;
    char found[160];
    json_t *object = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, &e), *text = NULL;
    if (!object) {
        err_set(err, ERR_INPUT, "expected one JSON object a line, found: column %d: %s",
                e.column, text_printable(found, sizeof found, e.text));
        return NULL;
    }
    if (!json_is_object(object)) {
        json_read_describe(object, found, sizeof found);
        err_set(err, ERR_INPUT, "expected a JSON object, found %s", found);
    } else if (!(text = json_object_get(object, field))) {
        list_keys(object, found, sizeof found);
        err_set(err, ERR_INPUT,
                "expected a field \"%s\", found %s; --field names the text", field,
                found);
    } else if (!json_is_string(text)) {
        json_read_describe(text, found, sizeof found);
        err_set(err, ERR_INPUT, "field \"%s\": expected a string, found %s", field,
                found);
        text = NULL;
    }
    json_incref(text);
    json_decref(object);
    return text;
}
