/* SPDX-License-Identifier: Apache-2.0 */
#include "io/json_read.h"

#include "src/base/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *text_printable(char *to, size_t size, const char *from)
{
    size_t n = 0;
    for (; from[n] && n + 1 < size; n++)
        to[n] = (unsigned char)from[n] < 0x20 || from[n] == 0x7f ? '?' : from[n];
    to[n] = 0;
    if (from[n] && n >= 3) {
        while (n > 3 && ((unsigned char)to[n - 3] & 0xc0) == 0x80)
            n--; /* not in the middle of a UTF-8 character */
        memcpy(to + n - 3, "...", 4);
    }
    return to;
}

/* jansson spends up to 250 bytes on a container and 50 on another value: what a small
 * text may make of our memory is bounded before it is read. */
enum { CONTAINERS_MAX = 2000000, COMMAS_MAX = 8000000 };

static int check_size(const char *text, size_t bytes, const char *where,
                      struct err *err)
{
    size_t containers = 0, commas = 0;
    for (size_t i = 0; i < bytes; i++) {
        containers += text[i] == '{' || text[i] == '[';
        commas += text[i] == ',';
    }
    if (containers <= CONTAINERS_MAX && commas <= COMMAS_MAX)
        return 0;
    return err_set(err, ERR_INPUT,
                   "%s: expected JSON of at most %d objects and lists and %d commas, "
                   "found %zu and %zu",
                   where, CONTAINERS_MAX, COMMAS_MAX, containers, commas);
}

/* A copy in which whole numbers of 19 digits and more have an exponent, which makes
 * them real ones. Owned (free); NULL: no memory. */
static char *widen_integers(const char *text, size_t bytes, size_t *wide_bytes)
{
    enum { DIGITS = 19 };
    char *wide = malloc(bytes + 2 * (bytes / DIGITS) + 1);
    size_t n = 0;
    bool string = false;
    for (size_t i = 0; wide && i < bytes;) {
        size_t digits = 0;
        while (!string && i < bytes && text[i] >= '0' && text[i] <= '9') {
            wide[n++] = text[i++];
            digits++;
        }
        if (digits >= DIGITS && (i == bytes || !strchr(".eE", text[i]))) {
            wide[n++] = 'e';
            wide[n++] = '0';
        }
        if (digits || i == bytes)
            continue;
        string = text[i] == '"' ? !string : string;
        if (string && text[i] == '\\' && i + 1 < bytes)
            wide[n++] = text[i++];
        wide[n++] = text[i++];
    }
    *wide_bytes = n;
    return wide;
}

/* Hugging Face writes 1000000000000000019884624838656 for "no limit", more than
 * jansson's whole numbers hold. */
static json_t *load_wide(const char *text, size_t bytes, json_error_t *e)
{
    size_t n;
    char *wide = widen_integers(text, bytes, &n);
    json_t *value = wide ? json_loadb(wide, n, JSON_REJECT_DUPLICATES, e) : NULL;
    free(wide);
    return value;
}

json_t *json_read_text(const char *text, size_t bytes, const char *where,
                       struct err *err)
{
    json_error_t e;
    if (check_size(text, bytes, where, err))
        return NULL;
    json_t *value = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &e);
    if (!value && json_error_code(&e) == json_error_numeric_overflow)
        value = load_wide(text, bytes, &e);
    if (!value) {
        char what[sizeof e.text];
        err_set(err, ERR_INPUT, "%s: not valid JSON: line %d, column %d: %s", where,
                e.line, e.column, text_printable(what, sizeof what, e.text));
        return NULL;
    }
    if (!json_is_object(value)) {
        char what[64];
        json_read_describe(value, what, sizeof what);
        err_set(err, ERR_INPUT, "%s: expected a JSON object, found %s", where, what);
        json_decref(value);
        return NULL;
    }
    return value;
}

json_t *json_read_file(const char *path, size_t limit, struct err *err)
{
    size_t bytes;
    char *text = file_read(path, limit, &bytes, err);
    if (!text)
        return NULL;
    json_t *value = json_read_text(text, bytes, path, err);
    free(text);
    return value;
}

void json_read_describe(const json_t *value, char *text, size_t size)
{
    char short_text[40];
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        snprintf(text, size, "an object");
        break;
    case JSON_ARRAY:
        snprintf(text, size, "a list");
        break;
    case JSON_STRING:
        snprintf(
            text, size, "the string \"%s\"",
            text_printable(short_text, sizeof short_text, json_string_value(value)));
        break;
    case JSON_INTEGER:
        snprintf(text, size, "%lld", (long long)json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(text, size, "the real number %.17g", json_real_value(value));
        break;
    case JSON_TRUE:
        snprintf(text, size, "true");
        break;
    case JSON_FALSE:
        snprintf(text, size, "false");
        break;
    case JSON_NULL:
        snprintf(text, size, "null");
        break;
    }
}

void json_read_keys(json_t *object, char *text, size_t size)
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

/* The value of a key, NULL if it is absent or null. 0, or -1 if it must be there. */
static int fetch(const json_t *object, const char *key, const char *where, bool *given,
                 const json_t **value, struct err *err)
{
    const json_t *v = json_object_get(object, key);
    if (v && json_is_null(v))
        v = NULL;
    *value = v;
    if (given)
        *given = v != NULL;
    else if (!v)
        return err_set(err, ERR_INPUT, "%s: key \"%s\" is missing", where, key);
    return 0;
}

static int wrong_type(const json_t *v, const char *key, const char *where,
                      const char *expected, struct err *err)
{
    char found[64];
    json_read_describe(v, found, sizeof found);
    return err_set(err, ERR_INPUT, "%s: %s: expected %s, found %s", where, key,
                   expected, found);
}

int json_read_int(const json_t *object, const char *key, const char *where, int64_t min,
                  int64_t max, int64_t *value, bool *given, struct err *err)
{
    const json_t *v;
    if (fetch(object, key, where, given, &v, err))
        return -1;
    if (!v)
        return 0;
    if (!json_is_integer(v))
        return wrong_type(v, key, where, "a whole number", err);
    int64_t i = json_integer_value(v);
    if (i < min || i > max)
        return err_set(err, ERR_INPUT,
                       "%s: %s: expected a whole number from %lld to %lld, found %lld",
                       where, key, (long long)min, (long long)max, (long long)i);
    *value = i;
    return 0;
}

int json_read_number(const json_t *object, const char *key, const char *where,
                     double *value, bool *given, struct err *err)
{
    const json_t *v;
    if (fetch(object, key, where, given, &v, err))
        return -1;
    if (!v)
        return 0;
    if (!json_is_number(v) || !isfinite(json_number_value(v)))
        return wrong_type(v, key, where, "a number", err);
    *value = json_number_value(v);
    return 0;
}

int json_read_bool(const json_t *object, const char *key, const char *where,
                   bool *value, bool *given, struct err *err)
{
    const json_t *v;
    if (fetch(object, key, where, given, &v, err))
        return -1;
    if (!v)
        return 0;
    if (!json_is_boolean(v))
        return wrong_type(v, key, where, "true or false", err);
    *value = json_is_true(v);
    return 0;
}

int json_read_string(const json_t *object, const char *key, const char *where,
                     const char **value, bool *given, struct err *err)
{
    const json_t *v;
    if (fetch(object, key, where, given, &v, err))
        return -1;
    if (!v)
        return 0;
    if (!json_is_string(v))
        return wrong_type(v, key, where, "a string", err);
    *value = json_string_value(v);
    return 0;
}
