/* SPDX-License-Identifier: Apache-2.0 */
#include "io/jsonl.h"

#include "io/json_read.h"

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
        json_read_keys(object, found, sizeof found);
        err_set(err, ERR_INPUT,
                "expected a field \"%s\", found %s; --field names the text, "
                "--template NAME reads records",
                field, found);
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
