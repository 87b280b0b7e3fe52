/* SPDX-License-Identifier: Apache-2.0 */
#include "io/record_set_parts.h"

#include "io/token_set.h"
#include "src/base/check.h"
#include "src/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const char format_name[] = "dusk record set";
enum { VERSION = 1, ARRAYS = 4 };
static const int64_t max_count = INT64_MAX / 64;

/* The attributes of the file, but for format, version and kind. */
enum field_kind { FIELD_COUNT, FIELD_INT, FIELD_HASH, FIELD_STRING };
static const struct field {
    const char *name;
    enum field_kind kind;
    size_t at; /* in record_set_info */
    int min;   /* of numbers */
} fields[] = {
#define AT(name) offsetof(struct record_set_info, name)
    {"records", FIELD_COUNT, AT(records), 1},
    {"tokens", FIELD_COUNT, AT(tokens), 1},
    {"counted_tokens", FIELD_COUNT, AT(counted_tokens), 1},
    {"longest", FIELD_COUNT, AT(longest), 1},
    {"longest_row", FIELD_COUNT, AT(longest_row), 1},
    {"packs", FIELD_COUNT, AT(packs), 0},
    {"pack_length", FIELD_COUNT, AT(pack_length), 0},
    {"max_length", FIELD_COUNT, AT(max_length), 0},
    {"vocab", FIELD_INT, AT(vocab), 1},
    {"tokenizer", FIELD_HASH, AT(tokenizer), 0},
    {"template", FIELD_STRING, AT(template_name), 0},
    {"template_hash", FIELD_HASH, AT(template_hash), 0},
    {"template_text", FIELD_STRING, AT(template_text), 0},
    {"jinja", FIELD_STRING, AT(jinja), 0},
    {"bos", FIELD_STRING, AT(bos), 0},
    {"train_on", FIELD_STRING, AT(train_on), 0},
    {"too_long", FIELD_STRING, AT(too_long), 0},
    {"eos_id", FIELD_INT, AT(eos_id), -1},
    {"shape", FIELD_STRING, AT(shape), 0},
    {"source", FIELD_STRING, AT(source), 0},
    {"truncated", FIELD_COUNT, AT(truncated), 0},
    {"dropped_too_long", FIELD_COUNT, AT(dropped_too_long), 0},
    {"dropped_uncounted", FIELD_COUNT, AT(dropped_uncounted), 0},
    {"dropped_equal", FIELD_COUNT, AT(dropped_equal), 0},
    {"skipped", FIELD_COUNT, AT(skipped), 0},
#undef AT
};
enum { FIELDS = sizeof fields / sizeof *fields };

const char *record_set_kind_name(enum record_set_kind kind)
{
    return kind == RECORD_SET_PAIRS ? "pairs" : "records";
}

int record_set_parts(enum record_set_kind kind)
{
    return kind == RECORD_SET_PAIRS ? 3 : 1;
}

void record_set_template_hash(const char *template_text, char hex[RECORD_SET_HASH])
{
    XXH128_hash_t h = XXH3_128bits(template_text, strlen(template_text));
    snprintf(hex, RECORD_SET_HASH, "%016llx%016llx", (unsigned long long)h.high64,
             (unsigned long long)h.low64);
}

static struct sealed_attr attr_of(const struct field *f,
                                  const struct record_set_info *info, const char *hash)
{
    const void *at = (const char *)info + f->at;
    struct sealed_attr a = {.group = "/", .name = f->name, .kind = SEALED_STRING};
    if (f->kind == FIELD_COUNT || f->kind == FIELD_INT) {
        a.kind = SEALED_INT;
        a.i = f->kind == FIELD_INT ? *(const int *)at : *(const int64_t *)at;
    } else if (at == (const void *)info->template_hash) {
        a.s = hash;
    } else {
        a.s = f->kind == FIELD_HASH ? at : *(char *const *)at;
    }
    return a;
}

static void fill_arrays(struct sealed_array arrays[ARRAYS],
                        const struct record_set_info *info)
{
    bool narrow = token_set_id_bytes(info->vocab) == 2;
    arrays[RECORD_SET_TOKENS] =
        (struct sealed_array){.path = "/tokens",
                              .type = narrow ? SEALED_U16 : SEALED_U32,
                              .dims = 1,
                              .dim = {info->tokens}};
    arrays[RECORD_SET_COUNTED] = (struct sealed_array){
        .path = "/counted", .type = SEALED_U8, .dims = 1, .dim = {info->tokens}};
    arrays[RECORD_SET_ENDS] =
        (struct sealed_array){.path = "/ends",
                              .type = SEALED_I64,
                              .dims = 1,
                              .dim = {info->records * record_set_parts(info->kind)}};
    arrays[RECORD_SET_PACK_ENDS] = (struct sealed_array){
        .path = "/pack_ends", .type = SEALED_I64, .dims = 1, .dim = {info->packs}};
}

struct sealed_writer *record_set_create(struct comm *c, const char *path, bool replace,
                                        const struct record_set_info *info,
                                        struct err *err)
{
    struct sealed_array arrays[ARRAYS];
    struct sealed_attr attrs[FIELDS + 3] = {
        {.group = "/", .name = "format", .kind = SEALED_STRING, .s = format_name},
        {.group = "/", .name = "version", .kind = SEALED_INT, .i = VERSION},
        {.group = "/",
         .name = "kind",
         .kind = SEALED_STRING,
         .s = record_set_kind_name(info->kind)}};
    char hash[RECORD_SET_HASH];
    record_set_template_hash(info->template_text, hash);
    for (int i = 0; i < FIELDS; i++)
        attrs[i + 3] = attr_of(&fields[i], info, hash);
    fill_arrays(arrays, info);
    return sealed_create(c, path, replace, arrays, info->packs ? ARRAYS : ARRAYS - 1,
                         attrs, FIELDS + 3, err);
}

static int read_number(const struct record_set *s, const char *name, int64_t min,
                       int64_t max, int64_t *value, struct err *err)
{
    const struct sealed_attr *a = sealed_attr_find(s->file, "/", name);
    if (!a || a->kind != SEALED_INT)
        return err_set(err, ERR_INPUT, "%s: not a record set: no number \"%s\" in it",
                       s->path, name);
    if (a->i < min || a->i > max)
        return err_set(err, ERR_INPUT, "%s: %s: expected %lld to %lld, found %lld",
                       s->path, name, (long long)min, (long long)max, (long long)a->i);
    *value = a->i;
    return 0;
}

/* Borrowed from the file; NULL with err set. */
static const char *read_string(const struct record_set *s, const char *name,
                               struct err *err)
{
    const struct sealed_attr *a = sealed_attr_find(s->file, "/", name);
    if (a && a->kind == SEALED_STRING)
        return a->s;
    err_set(err, ERR_INPUT, "%s: not a record set: no text \"%s\" in it", s->path,
            name);
    return NULL;
}

static int read_field(struct record_set *s, const struct field *f, struct err *err)
{
    void *at = (char *)&s->info + f->at;
    int64_t number = 0;
    if (f->kind == FIELD_COUNT)
        return read_number(s, f->name, f->min, max_count, at, err);
    if (f->kind == FIELD_INT) {
        int failed = read_number(s, f->name, f->min, INT32_MAX, &number, err);
        *(int *)at = (int)number;
        return failed;
    }
    const char *text = read_string(s, f->name, err);
    if (!text)
        return -1;
    if (f->kind == FIELD_STRING)
        return (*(char **)at = mem_printf(err, "%s", text)) ? 0 : -1;
    if (strlen(text) >= RECORD_SET_HASH)
        return err_set(err, ERR_INPUT, "%s: %s: expected 32 hex digits", s->path,
                       f->name);
    memcpy(at, text, strlen(text) + 1);
    return 0;
}

static int check_info(const struct record_set *s, struct err *err)
{
    const struct record_set_info *i = &s->info;
    char hash[RECORD_SET_HASH];
    record_set_template_hash(i->template_text, hash);
    const struct {
        bool holds;
        const char *what;
    } rule[] = {
        {i->counted_tokens <= i->tokens, "no more counted tokens than tokens"},
        {i->longest <= i->longest_row && i->longest_row <= i->tokens,
         "longest <= longest_row <= tokens"},
        {i->max_length == 0 || i->longest <= i->max_length, "longest <= max_length"},
        {i->kind == RECORD_SET_PAIRS || i->longest == i->longest_row,
         "longest_row to be longest"},
        {i->packs <= i->records, "no more packs than records"},
        {!i->packs == !i->pack_length, "both of packs and pack_length, or none"},
        {!i->packs || i->longest <= i->pack_length, "longest <= pack_length"},
        {!i->packs || i->kind == RECORD_SET_RECORDS, "no packs of pairs"},
        {i->eos_id < i->vocab, "eos_id below vocab"},
        {strcmp(hash, i->template_hash) == 0, "template_hash to be template_text's"},
    };
    for (size_t k = 0; k < sizeof rule / sizeof *rule; k++)
        if (!rule[k].holds)
            return err_set(err, ERR_INPUT,
                           "%s: not a record set: expected %s, found otherwise",
                           s->path, rule[k].what);
    return 0;
}

static int read_info(struct record_set *s, struct err *err)
{
    const char *format = read_string(s, "format", err), *kind;
    int64_t version;
    if (!format)
        return -1;
    if (strcmp(format, format_name) != 0)
        return err_set(err, ERR_INPUT, "%s: expected a record set, found a %s%s",
                       s->path, format,
                       strcmp(format, "dusk token set") == 0
                           ? "; dusk tokens --template makes record sets"
                           : "");
    if (read_number(s, "version", VERSION, VERSION, &version, err) ||
        !(kind = read_string(s, "kind", err)))
        return -1;
    s->info.kind = RECORD_SET_RECORDS;
    if (strcmp(kind, record_set_kind_name(RECORD_SET_PAIRS)) == 0)
        s->info.kind = RECORD_SET_PAIRS;
    else if (strcmp(kind, record_set_kind_name(RECORD_SET_RECORDS)) != 0)
        return err_set(err, ERR_INPUT,
                       "%s: kind: expected records or pairs, found \"%.40s\"", s->path,
                       kind);
    for (int i = 0; i < FIELDS; i++)
        if (read_field(s, &fields[i], err))
            return -1;
    return check_info(s, err);
}

static int find_array(const struct record_set *s, const struct sealed_array *want,
                      int *index, struct err *err)
{
    *index = sealed_find(s->file, want->path);
    const struct sealed_array *a = *index < 0 ? NULL : sealed_array_at(s->file, *index);
    if (!a || a->type != want->type || a->dims != 1 || a->dim[0] != want->dim[0] ||
        a->stacked || a->source_path)
        return err_set(err, ERR_INPUT, "%s: expected an array %s of %lld %s numbers",
                       s->path, want->path, (long long)want->dim[0],
                       sealed_type_name(want->type));
    return 0;
}

/* All ranks were sent the same table and attributes, so they decide alike. */
static int check_file(struct record_set *s, struct err *err)
{
    struct sealed_array want[ARRAYS];
    int *const index[ARRAYS] = {&s->tokens, &s->counted, &s->ends, &s->pack_ends};
    if (read_info(s, err))
        return -1;
    fill_arrays(want, &s->info);
    s->pack_ends = -1;
    for (int i = 0; i < ARRAYS - !s->info.packs; i++)
        if (find_array(s, &want[i], index[i], err))
            return -1;
    return 0;
}

bool record_set_is(struct comm *c, const char *path)
{
    struct err ignored;
    int is = 0;
    if (comm_root(c)) {
        struct sealed *file = sealed_open(comm_self(), path, &ignored);
        const struct sealed_attr *a =
            file ? sealed_attr_find(file, "/", "format") : NULL;
        is = a && a->kind == SEALED_STRING && strcmp(a->s, format_name) == 0;
        if (file)
            sealed_close(file);
    }
    comm_bcast(c, &is, sizeof is, 0);
    return is;
}

struct record_set *record_set_open(struct comm *c, const char *path, struct err *err)
{
    struct record_set *s = mem_array(1, sizeof *s, err);
    int failed = !s || !(s->path = mem_printf(err, "%s", path));
    if (comm_agree(c, failed, err))
        goto fail;
    s->file = sealed_open(c, path, err);
    if (!s->file)
        goto fail;
    if (comm_agree(c, check_file(s, err), err))
        goto fail;
    return s;
fail:
    record_set_close(s);
    return NULL;
}

void record_set_close(struct record_set *s)
{
    if (!s)
        return;
    if (s->file)
        sealed_close(s->file);
    for (int i = 0; i < FIELDS; i++)
        if (fields[i].kind == FIELD_STRING)
            free(*(char **)(void *)((char *)&s->info + fields[i].at));
    free(s->path);
    mem_free(s);
}

const struct record_set_info *record_set_info(const struct record_set *s)
{
    return &s->info;
}

const char *record_set_path(const struct record_set *s)
{
    return s->path;
}

uint64_t record_set_identity(const struct record_set *s)
{
    return sealed_identity(s->file);
}
