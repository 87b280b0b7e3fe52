/* SPDX-License-Identifier: Apache-2.0 */
#include "io/records_parts.h"

#include "io/json_read.h"
#include "src/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* jansson spends hundreds of bytes on a container: a hostile line is bounded first. */
enum { CONTAINERS_MAX = 200000 };

struct records *records_create(const struct record_map *map, struct err *err)
{
    struct records *p = mem_array(1, sizeof *p, err);
    if (!p)
        return NULL;
    if (map)
        p->map = *map;
    else
        record_map_init(&p->map);
    return p;
}

void records_destroy(struct records *p)
{
    if (!p)
        return;
    json_decref(p->root);
    free(p->list.m);
    free(p->rejected.m);
    mem_free(p);
}

static int not_json(const json_error_t *e, struct err *err)
{
    char what[sizeof e->text];
    const char *kind = "bad JSON";
    text_printable(what, sizeof what, e->text);
    switch (json_error_code(e)) {
    case json_error_duplicate_key:
        kind = "a key that is there twice";
        break;
    case json_error_stack_overflow:
        kind = "too deep a nesting";
        break;
    case json_error_invalid_utf8:
        kind = "invalid UTF-8";
        break;
    case json_error_null_character:
    case json_error_null_byte_in_key:
        kind = "a NUL in a string";
        break;
    default:
        break;
    }
    return err_set(err, ERR_INPUT,
                   "expected one JSON object a line, found %s: column %d: %s", kind,
                   e->column, what);
}

static int check_line(const char *line, size_t bytes, struct err *err)
{
    if (bytes > RECORD_LINE_BYTES)
        return err_set(err, ERR_INPUT,
                       "expected a line of at most 16 MiB, found %zu bytes", bytes);
    const char *nul = memchr(line, 0, bytes);
    if (nul)
        return err_set(err, ERR_INPUT, "expected text, found a NUL as byte %zu",
                       (size_t)(nul - line) + 1);
    int containers = 0;
    for (size_t i = 0; i < bytes; i++)
        containers += line[i] == '{' || line[i] == '[';
    return containers <= CONTAINERS_MAX
               ? 0
               : err_set(err, ERR_INPUT,
                         "expected at most %d objects and lists in a line, found %d",
                         CONTAINERS_MAX, containers);
}

static int load(struct records *p, const char *line, size_t bytes, struct err *err)
{
    json_error_t e;
    char found[64];
    json_decref(p->root);
    p->root = NULL;
    p->list.n = p->rejected.n = 0;
    if (check_line(line, bytes, err))
        return -1;
    p->root = json_loadb(line, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (!p->root)
        return not_json(&e, err);
    if (json_is_object(p->root))
        return 0;
    json_read_describe(p->root, found, sizeof found);
    return err_set(err, ERR_INPUT, "expected a JSON object, found %s", found);
}

int records_recognise(struct records *p, const char *line, size_t bytes,
                      enum record_shape *shape, struct err *err)
{
    static const struct {
        enum record_field a, b; /* that the shape must have */
        enum record_shape shape;
    } rows[] = {{FIELD_CHOSEN, FIELD_REJECTED, RECORD_PAIRS},
                {FIELD_MESSAGES, FIELD_MESSAGES, RECORD_MESSAGES},
                {FIELD_CONVERSATIONS, FIELD_CONVERSATIONS, RECORD_SHAREGPT},
                {FIELD_INSTRUCTION, FIELD_OUTPUT, RECORD_ALPACA},
                {FIELD_PROMPT, FIELD_COMPLETION, RECORD_COMPLETION},
                {FIELD_QUESTION, FIELD_RESPONSE, RECORD_OPENORCA},
                {FIELD_TEXT, FIELD_TEXT, RECORD_TEXT}};
    char found[160];
    if (load(p, line, bytes, err))
        return -1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (records_get(p, p->root, rows[i].a) && records_get(p, p->root, rows[i].b)) {
            *shape = rows[i].shape;
            return 0;
        }
    json_read_keys(p->root, found, sizeof found);
    return err_set(err, ERR_INPUT,
                   "expected the fields of a known shape (messages; conversations; "
                   "instruction, output; prompt, completion; question, response; text; "
                   "chosen, rejected), found %s; --map renames fields",
                   found);
}

static int parse_list(struct records *p, enum record_field field, struct err *err)
{
    const json_t *value = records_get(p, p->root, field);
    return value ? records_push_list(p, &p->list, value, field, err)
                 : records_missing(p, field, err);
}

static int parse_alpaca(struct records *p, struct err *err)
{
    const json_t *input = records_get(p, p->root, FIELD_INPUT);
    if (input && !json_is_string(input))
        return records_wrong_type(p, FIELD_INPUT, input, "a string", err);
    if (records_push_field(p, &p->list, ROLE_USER, FIELD_INSTRUCTION, err) ||
        records_push_field(p, &p->list, ROLE_ASSISTANT, FIELD_OUTPUT, err))
        return -1;
    if (input) {
        p->list.m[0].input = json_string_value(input);
        p->list.m[0].input_bytes = json_string_length(input);
    }
    return 0;
}

static int push_two(struct records *p, enum record_field user, enum record_field reply,
                    struct err *err)
{
    return records_push_field(p, &p->list, ROLE_USER, user, err) ||
                   records_push_field(p, &p->list, ROLE_ASSISTANT, reply, err)
               ? -1
               : 0;
}

static int parse_shape(struct records *p, struct record *r, struct err *err)
{
    switch (r->shape) {
    case RECORD_MESSAGES:
        return parse_list(p, FIELD_MESSAGES, err);
    case RECORD_SHAREGPT:
        return parse_list(p, FIELD_CONVERSATIONS, err);
    case RECORD_ALPACA:
        return parse_alpaca(p, err);
    case RECORD_COMPLETION:
        r->strings = true;
        return push_two(p, FIELD_PROMPT, FIELD_COMPLETION, err);
    case RECORD_OPENORCA:
        return records_push_system(p, &p->list, FIELD_SYSTEM_PROMPT, err)
                   ? -1
                   : push_two(p, FIELD_QUESTION, FIELD_RESPONSE, err);
    case RECORD_TEXT:
        r->strings = true;
        return records_push_field(p, &p->list, ROLE_USER, FIELD_TEXT, err);
    case RECORD_PAIRS:
        return records_parse_pairs(p, r, err);
    case RECORD_SHAPES:
        break;
    }
    return err_set(err, ERR_OTHER, "no such shape");
}

int records_parse(struct records *p, enum record_shape shape, const char *line,
                  size_t bytes, struct record *r, struct err *err)
{
    *r = (struct record){.shape = shape};
    if (load(p, line, bytes, err) || parse_shape(p, r, err))
        return -1;
    if (shape != RECORD_TEXT && shape != RECORD_PAIRS &&
        records_check(&p->list, 0, err))
        return -1;
    r->message = p->list.m;
    r->messages = p->list.n;
    if (shape == RECORD_PAIRS) {
        r->rejected = p->rejected.m;
        r->rejected_n = p->rejected.n;
    }
    return 0;
}
