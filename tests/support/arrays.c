/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/arrays.h"

#include "src/base/dtype.h"
#include "tests/support/facts.h"
#include "tests/support/need.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *oracle_path(const char *path)
{
    const char *root = getenv("srcdir");
    size_t size =
        strlen(path) + (root ? strlen(root) : 1) + sizeof "/tests/oracle/model/";
    char *whole = need(malloc(size), path, "no memory");
    if (*path == '/')
        snprintf(whole, size, "%s", path);
    else
        snprintf(whole, size, "%s/tests/oracle/model/%s", root ? root : ".", path);
    return whole;
}

static char *read_whole(const char *path, size_t *size)
{
    FILE *file = need(fopen(path, "rb"), path, "cannot open it");
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *bytes = need(malloc(*size + 1), path, "no memory");
    need(fread(bytes, 1, *size, file) == *size ? bytes : NULL, path, "cannot read it");
    fclose(file);
    return bytes;
}

static void widen(struct array *a, const char *bytes, const char *path)
{
    enum dtype float_type;
    size_t n = (size_t)a->elements;
    if (!dtype_parse(a->dtype, &float_type)) {
        a->f32 = need(malloc(n * sizeof(float) + 1), path, "no memory");
        dtype_to_f32(float_type, bytes, a->elements, a->f32);
        return;
    }
    bool wide = !strcmp(a->dtype, "I64");
    need(wide || !strcmp(a->dtype, "I32") ? a : NULL, path, "unknown dtype");
    a->i32 = need(malloc(n * sizeof(int32_t) + 1), path, "no memory");
    for (size_t i = 0; i < n; i++) {
        int64_t value;
        if (wide) {
            memcpy(&value, bytes + 8 * i, 8);
        } else {
            int32_t narrow;
            memcpy(&narrow, bytes + 4 * i, 4);
            value = narrow;
        }
        need(value == (int32_t)value ? a : NULL, path, "integer beyond 32 bits");
        a->i32[i] = (int32_t)value;
    }
}

static void read_array(struct array *a, const char *name, const json_t *entry,
                       const char *data, size_t data_bytes, const char *path)
{
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    size_t name_bytes = strlen(name) + 1;
    a->name = memcpy(need(malloc(name_bytes), path, "no memory"), name, name_bytes);
    const char *dtype =
        need(json_string_value(json_object_get(entry, "dtype")), path, "no dtype");
    snprintf(a->dtype, sizeof a->dtype, "%s", dtype);
    a->dims = (int)json_array_size(shape);
    need(a->dims <= ARRAY_MAX_DIMS ? a : NULL, path, "too many dimensions");
    a->elements = 1;
    for (int d = 0; d < a->dims; d++) {
        a->dim[d] = json_integer_value(json_array_get(shape, (size_t)d));
        a->elements *= a->dim[d];
    }
    int64_t begin = json_integer_value(json_array_get(offsets, 0));
    int64_t end = json_integer_value(json_array_get(offsets, 1));
    size_t bytes = !strcmp(a->dtype, "I64")                               ? 8
                   : !strcmp(a->dtype, "F32") || !strcmp(a->dtype, "I32") ? 4
                                                                          : 2;
    bool fits = begin >= 0 && (size_t)end <= data_bytes &&
                end - begin == a->elements * (int64_t)bytes;
    need(fits ? a : NULL, path, "data_offsets do not fit the shape");
    widen(a, data + begin, path);
}

/* Appends a file's arrays. */
static void load_file(struct arrays *a, const char *relative)
{
    char *path = oracle_path(relative);
    size_t size;
    char *bytes = read_whole(path, &size);
    uint64_t header_bytes = 0;
    need(size >= 8 ? a : NULL, path, "too short");
    memcpy(&header_bytes, bytes, 8);
    need(header_bytes <= size - 8 ? a : NULL, path, "header longer than the file");
    json_t *header =
        need(json_loadb(bytes + 8, header_bytes, 0, NULL), path, "no JSON");
    size_t room = (size_t)a->count + json_object_size(header);
    a->array = need(realloc(a->array, room * sizeof *a->array), path, "no memory");
    const char *data = bytes + 8 + header_bytes, *name;
    json_t *entry;
    json_object_foreach(header, name, entry)
    {
        if (!strcmp(name, "__metadata__"))
            continue;
        struct array *next = &a->array[a->count++];
        memset(next, 0, sizeof *next);
        read_array(next, name, entry, data, size - 8 - header_bytes, path);
    }
    json_decref(header);
    free(bytes);
    free(path);
}

struct arrays *arrays_load(const char *path)
{
    struct arrays *a = need(calloc(1, sizeof *a), path, "no memory");
    load_file(a, path);
    return a;
}

struct arrays *arrays_load_model(const char *folder)
{
    struct arrays *a = need(calloc(1, sizeof *a), folder, "no memory");
    char path[512];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    char *whole = oracle_path(path);
    FILE *single = fopen(whole, "rb");
    free(whole);
    if (single) {
        fclose(single);
        load_file(a, path);
        return a;
    }
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    struct facts *index = facts_load(path);
    int tensors = facts_count(index, "weight_map");
    for (int i = 0; i < tensors; i++) {
        const char *name = facts_key(index, "weight_map", i);
        if (arrays_find(a, name))
            continue;
        char place[256];
        snprintf(place, sizeof place, "weight_map/%s", name);
        snprintf(path, sizeof path, "%s/%s", folder, facts_string(index, place));
        load_file(a, path);
    }
    facts_destroy(index);
    return a;
}

void arrays_destroy(struct arrays *a)
{
    if (!a)
        return;
    for (int i = 0; i < a->count; i++) {
        free(a->array[i].name);
        free(a->array[i].f32);
        free(a->array[i].i32);
    }
    free(a->array);
    free(a);
}

const struct array *arrays_find(const struct arrays *a, const char *name)
{
    for (int i = 0; i < a->count; i++)
        if (!strcmp(a->array[i].name, name))
            return &a->array[i];
    return NULL;
}

const struct array *arrays_get(const struct arrays *a, const char *name)
{
    const struct array *found = arrays_find(a, name);
    need(found ? a : NULL, name, "no array of this name");
    return found;
}
