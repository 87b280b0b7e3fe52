/* SPDX-License-Identifier: Apache-2.0 */
#include "io/reference_parts.h"

#include "src/base/mem.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

static const char format_name[] = "dusk reference", array_path[] = "/log_probabilities";
enum { VERSION = 1 };

/* The texts of a key, in the order in which they are compared. */
static const struct field {
    const char *name;
    size_t at; /* in reference_key */
    const char *differs;
} fields[] = {
    {"weights", offsetof(struct reference_key, weights), "was made with other weights"},
    {"data", offsetof(struct reference_key, data), "was made of other data"},
    {"template_hash", offsetof(struct reference_key, template_hash),
     "was made with another template"},
    {"precision", offsetof(struct reference_key, precision),
     "was made in another precision"},
};
enum { FIELDS = sizeof fields / sizeof *fields, ATTRS = FIELDS + 5 };

static const char **text_of(struct reference_key *k, const struct field *f)
{
    return (const char **)(void *)((char *)k + f->at);
}

static const char *text_in(const struct reference_key *k, const struct field *f)
{
    return *(const char *const *)(const void *)((const char *)k + f->at);
}

int reference_key_copy(struct reference_key *to, const struct reference_key *from,
                       struct err *err)
{
    *to = (struct reference_key){.pairs = from->pairs};
    for (int i = 0; i < FIELDS; i++) {
        const char *text = mem_printf(err, "%s", text_in(from, &fields[i]));
        if (!text)
            return -1;
        *text_of(to, &fields[i]) = text;
    }
    return 0;
}

void reference_key_fini(struct reference_key *k)
{
    for (int i = 0; i < FIELDS; i++)
        free((char *)(uintptr_t)text_in(k, &fields[i]));
}

/* The hash of the fields before is the seed of the next, so that none run together. */
uint64_t reference_hash(const struct reference_key *k)
{
    char number[32];
    int n = snprintf(number, sizeof number, "%d %lld", VERSION, (long long)k->pairs);
    uint64_t hash = XXH3_64bits(number, (size_t)n);
    for (int i = 0; i < FIELDS; i++) {
        const char *text = text_in(k, &fields[i]);
        hash = XXH3_64bits_withSeed(text, strlen(text), hash);
    }
    return hash;
}

void reference_name(const struct reference_key *k, char name[REFERENCE_NAME])
{
    snprintf(name, REFERENCE_NAME, "reference-%016llx.h5",
             (unsigned long long)reference_hash(k));
}

static const char *find_text(const struct sealed *file, const char *name)
{
    const struct sealed_attr *a = sealed_attr_find(file, "/", name);
    return a && a->kind == SEALED_STRING ? a->s : NULL;
}

static int64_t find_number(const struct sealed *file, const char *name)
{
    const struct sealed_attr *a = sealed_attr_find(file, "/", name);
    return a && a->kind == SEALED_INT ? a->i : -1;
}

int reference_key_of(const struct sealed *file, struct reference_key *k,
                     struct err *err)
{
    const char *path = sealed_path(file), *format = find_text(file, "format");
    if (!format || strcmp(format, format_name) != 0)
        return err_set(err, ERR_INPUT,
                       "%s: expected reference log-probabilities, found a %.40s", path,
                       format ? format : "file without a format");
    int64_t version = find_number(file, "version");
    if (version != VERSION)
        return err_set(err, ERR_INPUT, "%s: version: expected %d, found %lld", path,
                       VERSION, (long long)version);
    for (int i = 0; i < FIELDS; i++)
        if (!(*text_of(k, &fields[i]) = find_text(file, fields[i].name)))
            return err_set(err, ERR_INPUT, "%s: no text \"%s\" in it", path,
                           fields[i].name);
    k->pairs = find_number(file, "pairs");
    if (k->pairs < 1 || k->pairs > REFERENCE_MAX_PAIRS)
        return err_set(err, ERR_INPUT, "%s: pairs: expected 1 to %lld, found %lld",
                       path, (long long)REFERENCE_MAX_PAIRS, (long long)k->pairs);
    int index = sealed_find(file, array_path);
    const struct sealed_array *a = index < 0 ? NULL : sealed_array_at(file, index);
    if (!a || a->type != SEALED_F64 || a->dims != 2 || a->dim[0] != k->pairs ||
        a->dim[1] != REFERENCE_SIDES || a->stacked || a->source_path)
        return err_set(err, ERR_INPUT, "%s: expected an array %s of [%lld, %d] F64",
                       path, array_path, (long long)k->pairs, REFERENCE_SIDES);
    return 0;
}

/* Of two texts that differ, so much of the start is left out that what differs is
 * among the first characters shown. */
static size_t shown_from(const char *a, const char *b)
{
    enum { BEFORE = 20, SHOWN = 100 };
    size_t same = 0;
    while (a[same] && a[same] == b[same])
        same++;
    return same < SHOWN - BEFORE ? 0 : same - BEFORE;
}

static int check_key(const char *path, const struct reference_key *want,
                     const struct reference_key *found, struct err *err)
{
    for (int i = 0; i < FIELDS; i++) {
        const char *a = text_in(want, &fields[i]), *b = text_in(found, &fields[i]);
        size_t from = shown_from(a, b);
        const char *cut = from ? "..." : "";
        if (strcmp(a, b) != 0)
            return err_set(err, ERR_INPUT,
                           "%s: %s: expected \"%s%.100s\", found \"%s%.100s\"", path,
                           fields[i].differs, cut, a + from, cut, b + from);
    }
    if (want->pairs != found->pairs)
        return err_set(err, ERR_INPUT,
                       "%s: was made of another number of pairs: expected %lld, "
                       "found %lld",
                       path, (long long)want->pairs, (long long)found->pairs);
    return 0;
}

static int read_sums(struct sealed *file, const struct reference_key *k, double *sums,
                     struct err *err)
{
    struct reference_key found;
    if (reference_key_of(file, &found, err) < 0 ||
        check_key(sealed_path(file), k, &found, err) < 0)
        return -1;
    return sealed_read_any(file, sealed_find(file, array_path), 0, sums,
                           (size_t)k->pairs * REFERENCE_PAIR_BYTES, err);
}

static int with_fix(struct err *err)
{
    size_t used = strlen(err->text);
    if (err->code == ERR_INPUT)
        snprintf(err->text + used, sizeof err->text - used,
                 "; name another cache to have them computed anew");
    return -1;
}

int reference_read(const char *path, const struct reference_key *k, double *sums,
                   struct err *err)
{
    struct stat st;
    if (stat(path, &st) < 0 && errno == ENOENT)
        return 0;
    struct sealed *file = sealed_open(comm_self(), path, err);
    int rc = file ? read_sums(file, k, sums, err) : -1;
    if (file)
        sealed_close(file);
    return rc < 0 ? with_fix(err) : 1;
}

int reference_write(const char *path, const struct reference_key *k, const double *sums,
                    struct err *err)
{
    struct sealed_array array = {
        .type = SEALED_F64, .dims = 2, .dim = {k->pairs, REFERENCE_SIDES}};
    struct sealed_attr attrs[ATTRS] = {
        {.group = "/", .name = "format", .kind = SEALED_STRING, .s = format_name},
        {.group = "/", .name = "version", .kind = SEALED_INT, .i = VERSION},
        {.group = "/", .name = "pairs", .kind = SEALED_INT, .i = k->pairs},
        {.group = array_path, .name = "units", .kind = SEALED_STRING, .s = "nats"},
        {.group = array_path,
         .name = "columns",
         .kind = SEALED_STRING,
         .s = "chosen, rejected"}};
    for (int i = 0; i < FIELDS; i++)
        attrs[ATTRS - FIELDS + i] = (struct sealed_attr){.group = "/",
                                                         .name = fields[i].name,
                                                         .kind = SEALED_STRING,
                                                         .s = text_in(k, &fields[i])};
    snprintf(array.path, sizeof array.path, "%s", array_path);
    struct sealed_writer *file =
        sealed_create(comm_self(), path, true, &array, 1, attrs, ATTRS, err);
    if (!file)
        return -1;
    if (sealed_write(file, 0, 0, 0, sums, (size_t)k->pairs * REFERENCE_PAIR_BYTES,
                     err) < 0) {
        sealed_abort(file);
        return -1;
    }
    return sealed_commit(file, err);
}
