/* SPDX-License-Identifier: Apache-2.0 */
#include "io/safetensors.h"

#include "io/json_read.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LENGTH_BYTES = 8, NAME_SHOWN = 160 };

static const struct {
    char name[8];
    int bits;
} kinds[] = {{"F32", 32},    {"BF16", 16},  {"F16", 16}, {"F64", 64}, {"I64", 64},
             {"I32", 32},    {"I16", 16},   {"I8", 8},   {"U64", 64}, {"U32", 32},
             {"U16", 16},    {"U8", 8},     {"BOOL", 8}, {"C64", 64}, {"F8_E5M2", 8},
             {"F8_E4M3", 8}, {"F8_E8M0", 8}};

/* One entry of the header while it is read: messages name the file and the tensor. */
struct reading {
    const char *path;
    char name[NAME_SHOWN];
    int64_t data_bytes;
    struct err *err;
};

static int bad(const struct reading *r, const char *key, const json_t *found,
               const char *expected)
{
    char what[64] = "nothing";
    if (found)
        json_read_describe(found, what, sizeof what);
    return err_set(r->err, ERR_INPUT, "%s: tensor \"%s\": %s: expected %s, found %s",
                   r->path, r->name, key, expected, what);
}

static int read_dtype(const struct reading *r, const json_t *value,
                      struct safetensor *t)
{
    const char *name = json_string_value(value);
    for (size_t i = 0; name && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(name, kinds[i].name) == 0) {
            strcpy(t->dtype, kinds[i].name);
            t->bits = kinds[i].bits;
            return 0;
        }
    return bad(r, "dtype", value, "a type such as \"F32\", \"BF16\" or \"F16\"");
}

static int read_shape(const struct reading *r, const json_t *value,
                      struct safetensor *t)
{
    if (!json_is_array(value))
        return bad(r, "shape", value, "a list of whole numbers");
    if (json_array_size(value) > SAFETENSORS_DIMS)
        return err_set(r->err, ERR_INPUT,
                       "%s: tensor \"%s\": shape: expected at most %d dimensions, "
                       "found %zu",
                       r->path, r->name, SAFETENSORS_DIMS, json_array_size(value));
    t->ndim = (int)json_array_size(value);
    t->elements = 1;
    for (int i = 0; i < t->ndim; i++) {
        const json_t *v = json_array_get(value, (size_t)i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return bad(r, "shape", v, "whole numbers of 0 or more");
        t->shape[i] = json_integer_value(v);
        if (__builtin_mul_overflow(t->elements, t->shape[i], &t->elements) ||
            t->elements > INT64_MAX / 64)
            return err_set(r->err, ERR_INPUT,
                           "%s: tensor \"%s\": shape: more elements than fit in 64 "
                           "bits",
                           r->path, r->name);
    }
    return 0;
}

static int read_offsets(const struct reading *r, const json_t *value,
                        struct safetensor *t)
{
    const json_t *first = json_array_get(value, 0), *last = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(first) ||
        !json_is_integer(last))
        return bad(r, "data_offsets", value, "two whole numbers [begin, end]");
    int64_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || end > r->data_bytes)
        return err_set(r->err, ERR_INPUT,
                       "%s: tensor \"%s\": data_offsets [%lld, %lld]: expected a range "
                       "within the %lld bytes that follow the header (is the file "
                       "cut?)",
                       r->path, r->name, (long long)begin, (long long)end,
                       (long long)r->data_bytes);
    t->offset = begin;
    t->bytes = end - begin;
    int64_t expected = t->elements * t->bits / 8;
    if (t->bytes != expected)
        return err_set(r->err, ERR_INPUT,
                       "%s: tensor \"%s\": data_offsets [%lld, %lld]: expected %lld "
                       "bytes for its shape and dtype %s, found %lld",
                       r->path, r->name, (long long)begin, (long long)end,
                       (long long)expected, t->dtype, (long long)t->bytes);
    return 0;
}

static int read_tensor(struct reading *r, const char *name, const json_t *value,
                       struct safetensor *t)
{
    text_printable(r->name, sizeof r->name, name);
    if (!json_is_object(value))
        return bad(r, "entry", value, "an object");
    if (read_dtype(r, json_object_get(value, "dtype"), t) ||
        read_shape(r, json_object_get(value, "shape"), t) ||
        read_offsets(r, json_object_get(value, "data_offsets"), t))
        return -1;
    t->name = mem_printf(r->err, "%s", name);
    return t->name ? 0 : -1;
}

static int read_metadata(const struct reading *r, const json_t *value,
                         struct safetensors *s)
{
    if (!json_is_object(value))
        return err_set(r->err, ERR_INPUT, "%s: __metadata__: expected an object",
                       r->path);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)value, key, v)
    {
        char shown[NAME_SHOWN];
        if (!json_is_string(v))
            return err_set(r->err, ERR_INPUT, "%s: __metadata__: %s: expected a string",
                           r->path, text_printable(shown, sizeof shown, key));
    }
    s->metadata = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
    if (!s->metadata)
        return err_set(r->err, ERR_OTHER, "out of memory reading %s", r->path);
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct safetensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Sorted tensors must follow each other from 0 to the end of the file. */
static int check_coverage(const struct reading *r, const struct safetensors *s)
{
    int64_t at = 0;
    char before[NAME_SHOWN] = "", name[NAME_SHOWN];
    for (int i = 0; i < s->n; i++) {
        const struct safetensor *t = &s->tensor[i];
        text_printable(name, sizeof name, t->name);
        if (t->offset < at)
            return err_set(r->err, ERR_INPUT,
                           "%s: tensors \"%s\" and \"%s\" overlap at data offset %lld",
                           r->path, before, name, (long long)t->offset);
        if (t->offset > at)
            return err_set(r->err, ERR_INPUT,
                           "%s: no tensor covers data bytes %lld to %lld, before "
                           "\"%s\"",
                           r->path, (long long)at, (long long)t->offset, name);
        at = t->offset + t->bytes;
        memcpy(before, name, sizeof before);
    }
    if (at != r->data_bytes)
        return err_set(r->err, ERR_INPUT,
                       "%s: expected the file to end with its last tensor at byte "
                       "%lld, found %lld bytes",
                       r->path, (long long)(s->data_at + at), (long long)s->file_bytes);
    return 0;
}

static int read_table(struct safetensors *s, const json_t *header, struct reading *r)
{
    s->tensor = mem_array((int64_t)json_object_size(header), sizeof *s->tensor, r->err);
    if (!s->tensor)
        return -1;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)header, name, value)
    {
        if (strcmp(name, "__metadata__") == 0) {
            if (read_metadata(r, value, s))
                return -1;
        } else if (read_tensor(r, name, value, &s->tensor[s->n]))
            return -1;
        else
            s->n++;
    }
    qsort(s->tensor, (size_t)s->n, sizeof *s->tensor, by_offset);
    if (check_coverage(r, s))
        return -1;
    for (int i = 0; i < s->n; i++)
        s->tensor[i].offset += s->data_at;
    return 0;
}

/* The header's JSON text; owned (free). Fills in the file's and the header's length. */
static char *load_header(struct safetensors *s, const char *path, int fd,
                         struct err *err)
{
    struct stat st;
    if (fstat(fd, &st)) {
        err_set_errno(err, 1, "%s", path);
        return NULL;
    }
    s->file_bytes = st.st_size;
    unsigned char raw[LENGTH_BYTES];
    if (!S_ISREG(st.st_mode) || st.st_size < LENGTH_BYTES) {
        err_set(err, ERR_INPUT, "%s: expected a safetensors file, found %s", path,
                S_ISREG(st.st_mode) ? "fewer than 8 bytes" : "no regular file");
        return NULL;
    }
    if (file_pread(fd, path, raw, sizeof raw, 0, err))
        return NULL;
    uint64_t length = 0;
    for (int i = LENGTH_BYTES; i-- > 0;)
        length = length << 8 | raw[i];
    if (length > SAFETENSORS_HEADER_BYTES) {
        err_set(err, ERR_INPUT,
                "%s: header length: expected at most %d bytes, found %llu (is this a "
                "safetensors file?)",
                path, SAFETENSORS_HEADER_BYTES, (unsigned long long)length);
        return NULL;
    }
    if (length > (uint64_t)(st.st_size - LENGTH_BYTES)) {
        err_set(err, ERR_INPUT,
                "%s: header length: %llu bytes, but only %lld follow in the file (is "
                "it cut?)",
                path, (unsigned long long)length,
                (long long)(st.st_size - LENGTH_BYTES));
        return NULL;
    }
    s->data_at = LENGTH_BYTES + (int64_t)length;
    char *text = malloc((size_t)length + 1);
    if (!text) {
        err_set(err, ERR_OTHER, "out of memory reading the header of %s", path);
        return NULL;
    }
    if (file_pread(fd, path, text, (size_t)length, LENGTH_BYTES, err)) {
        free(text);
        return NULL;
    }
    text[length] = 0;
    return text;
}

int safetensors_read(struct safetensors *s, const char *path, struct err *err)
{
    *s = (struct safetensors){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, 1, "%s", path);
    json_t *header = NULL;
    char *where = mem_printf(err, "%s: header", path);
    int rc = -1;
    char *text = where ? load_header(s, path, fd, err) : NULL;
    if (!text)
        goto out;
    if (text[0] != '{') {
        err_set(err, ERR_INPUT, "%s: expected the header to start with '{'", path);
        goto out;
    }
    header = json_read_text(text, (size_t)(s->data_at - LENGTH_BYTES), where, err);
    if (!header)
        goto out;
    struct reading r = {
        .path = path, .data_bytes = s->file_bytes - s->data_at, .err = err};
    rc = read_table(s, header, &r);
out:
    json_decref(header);
    free(text);
    free(where);
    close(fd);
    if (rc)
        safetensors_fini(s);
    return rc;
}

void safetensors_fini(struct safetensors *s)
{
    for (int i = 0; i < s->n; i++)
        free(s->tensor[i].name);
    mem_free(s->tensor);
    free(s->metadata);
    *s = (struct safetensors){0};
}

const struct safetensor *safetensors_find(const struct safetensors *s, const char *name)
{
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->tensor[i].name, name) == 0)
            return &s->tensor[i];
    return NULL;
}

int safetensor_dtype(const struct safetensor *tensor, enum dtype *t)
{
    return dtype_parse(tensor->dtype, t);
}
