/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/json.h"

#include "src/base/check.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void append(struct json *j, const char *bytes, size_t n)
{
    if (j->used + n + 1 > j->room) {
        j->room = 2 * (j->used + n + 128);
        j->text = realloc(j->text, j->room);
        CHECK(j->text, "no memory for %zu bytes of JSON", j->room);
    }
    memcpy(j->text + j->used, bytes, n);
    j->used += n;
    j->text[j->used] = '\0';
}

static void append_quoted(struct json *j, const char *s)
{
    append(j, "\"", 1);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        char escape[8];
        if (c == '"' || c == '\\') {
            append(j, (char[]){'\\', (char)c}, 2);
        } else if (c < 0x20) {
            snprintf(escape, sizeof escape, "\\u%04x", c);
            append(j, escape, 6);
        } else {
            append(j, s, 1);
        }
    }
    append(j, "\"", 1);
}

static void lead(struct json *j, const char *key)
{
    if (j->used && !j->first)
        append(j, ", ", 2);
    j->first = false;
    if (key) {
        append_quoted(j, key);
        append(j, ": ", 2);
    }
}

void json_begin(struct json *j, const char *key, char bracket)
{
    lead(j, key);
    append(j, &bracket, 1);
    j->first = true;
}

void json_end(struct json *j, char bracket)
{
    append(j, &bracket, 1);
    j->first = false;
}

static void append_text(struct json *j, const char *key, const char *text)
{
    lead(j, key);
    append(j, text, strlen(text));
}

void json_int(struct json *j, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    append_text(j, key, text);
}

void json_uint(struct json *j, const char *key, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, value);
    append_text(j, key, text);
}

void json_double(struct json *j, const char *key, double value)
{
    char text[40];
    if (isnan(value))
        snprintf(text, sizeof text, "\"NaN\"");
    else if (isinf(value))
        snprintf(text, sizeof text, "\"%sInfinity\"", value < 0 ? "-" : "");
    else
        snprintf(text, sizeof text, "%.17g", value);
    append_text(j, key, text);
}

void json_bool(struct json *j, const char *key, bool value)
{
    append_text(j, key, value ? "true" : "false");
}

void json_text(struct json *j, const char *key, const char *value)
{
    lead(j, key);
    if (value)
        append_quoted(j, value);
    else
        append(j, "null", 4);
}

void json_clear(struct json *j)
{
    j->used = 0;
    j->first = false;
}

void json_fini(struct json *j)
{
    free(j->text);
    *j = (struct json){0};
}
