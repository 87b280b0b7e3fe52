/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/facts.h"

#include "tests/support/arrays.h"
#include "tests/support/need.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct facts {
    json_t *root;
};

struct facts *facts_load(const char *path)
{
    char *whole = oracle_path(path);
    struct facts *f = need(malloc(sizeof *f), path, "no memory");
    json_error_t error;
    f->root = json_load_file(whole, JSON_REJECT_DUPLICATES, &error);
    need(f->root, whole, error.text);
    free(whole);
    return f;
}

void facts_destroy(struct facts *f)
{
    if (!f)
        return;
    json_decref(f->root);
    free(f);
}

static const json_t *find(const struct facts *f, const char *place)
{
    const json_t *at = f->root;
    while (at && *place) {
        const json_t *whole = json_object_get(at, place);
        if (whole)
            return whole; /* a key that holds '/' */
        size_t length = strcspn(place, "/");
        char key[256];
        snprintf(key, sizeof key, "%.*s", (int)length, place);
        at = json_is_array(at) ? json_array_get(at, strtoul(key, NULL, 10))
                               : json_object_get(at, key);
        place += length + (place[length] == '/');
    }
    return at;
}

static const json_t *get(const struct facts *f, const char *place)
{
    const json_t *at = find(f, place);
    return need(at, place, "not in the JSON file");
}

bool facts_has(const struct facts *f, const char *place)
{
    return find(f, place) != NULL;
}

int facts_count(const struct facts *f, const char *place)
{
    const json_t *at = get(f, place);
    return (int)(json_is_array(at) ? json_array_size(at) : json_object_size(at));
}

const char *facts_key(const struct facts *f, const char *place, int i)
{
    union {
        const json_t *in;
        json_t *jansson; /* its iterators lack const */
    } at = {get(f, place)};
    void *iter = json_object_iter(at.jansson);
    for (; iter && i > 0; i--)
        iter = json_object_iter_next(at.jansson, iter);
    need(iter, place, "fewer keys than asked for");
    return json_object_iter_key(iter);
}

double facts_double(const struct facts *f, const char *place)
{
    const json_t *at = get(f, place);
    need(json_is_number(at) ? at : NULL, place, "not a number");
    return json_number_value(at);
}

int64_t facts_int(const struct facts *f, const char *place)
{
    const json_t *at = get(f, place);
    need(json_is_integer(at) ? at : NULL, place, "not an integer");
    return json_integer_value(at);
}

const char *facts_string(const struct facts *f, const char *place)
{
    return need(json_string_value(get(f, place)), place, "not a string");
}

/* Appends the numbers below `at` to out (NULL: only counts). */
static int flatten(const json_t *at, double *out, int n, const char *place)
{
    if (json_is_array(at)) {
        for (size_t i = 0; i < json_array_size(at); i++)
            n = flatten(json_array_get(at, i), out, n, place);
        return n;
    }
    need(json_is_number(at) ? at : NULL, place, "not only numbers");
    if (out)
        out[n] = json_number_value(at);
    return n + 1;
}

double *facts_doubles(const struct facts *f, const char *place, int *n)
{
    const json_t *at = get(f, place);
    *n = flatten(at, NULL, 0, place);
    double *out = need(malloc((size_t)*n * sizeof *out + 1), place, "no memory");
    flatten(at, out, 0, place);
    return out;
}

int32_t *facts_ints(const struct facts *f, const char *place, int *n)
{
    double *wide = facts_doubles(f, place, n);
    int32_t *out = need(malloc((size_t)*n * sizeof *out + 1), place, "no memory");
    for (int i = 0; i < *n; i++) {
        out[i] = (int32_t)wide[i];
        need((double)out[i] == wide[i] ? out : NULL, place, "not a 32-bit integer");
    }
    free(wide);
    return out;
}
