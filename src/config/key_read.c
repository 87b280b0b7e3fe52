/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/key.h"

#include "src/base/check.h"
#include "src/base/suggest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a scalar must be, and its name in messages: "optim.lr", "data.train[1].weight".
 */
struct wanted {
    const char *label;
    const char *expected;
};

static int refuse(const struct tree_node *node, struct wanted w, struct err *err)
{
    char shown[TREE_SHOWN];
    return tree_error(err, node->at, "%s: expected %s, found %s", w.label, w.expected,
                      tree_found(node, shown));
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_OTHER, "run file: no memory");
}

static const char *skip_digits(const char *text)
{
    return text + strspn(text, "0123456789");
}

/* A decimal number as people write it; no hexadecimal, infinity or locale. */
static bool is_number(const char *text)
{
    text += *text == '-' || *text == '+';
    const char *end = skip_digits(text);
    bool digits = end > text;
    if (*end == '.') {
        const char *fraction = end + 1;
        end = skip_digits(fraction);
        digits = digits || end > fraction;
    }
    if (digits && (*end == 'e' || *end == 'E')) {
        end += 1 + (end[1] == '-' || end[1] == '+');
        const char *exponent = end;
        end = skip_digits(exponent);
        digits = end > exponent;
    }
    return digits && *end == '\0';
}

/* Digits, or a number with an exponent that makes it whole ("1.5e9"). A leading zero
 * is refused: other readers of YAML take it for octal. */
static bool parse_count(const char *text, uint64_t *value)
{
    size_t whole = strspn(text, "0123456789");
    if (whole == 0 || (text[0] == '0' && whole > 1) || !is_number(text))
        return false;
    long zeros = 0;
    size_t n = whole;
    if (text[n] == '.')
        n += 1 + strspn(text + n + 1, "0123456789");
    const char *fraction_end = text + n;
    if (*fraction_end)
        zeros = strtol(fraction_end + 1, NULL, 10);
    else if (n > whole)
        return false;
    if (zeros < 0 || zeros > 40)
        return false;
    zeros -= n > whole ? (long)(n - whole - 1) : 0;
    if (zeros < 0)
        return false;
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        if (text[i] != '.' &&
            (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
             __builtin_add_overflow(v, (uint64_t)(text[i] - '0'), &v)))
            return false;
    for (long i = 0; i < zeros; i++)
        if (__builtin_mul_overflow(v, (uint64_t)10, &v))
            return false;
    *value = v;
    return true;
}

static int read_count(const struct tree_node *node, struct wanted w, double min,
                      double max, uint64_t *value, struct err *err)
{
    if (node->kind != TREE_SCALAR || !node->plain || node->has_nul || !node->text ||
        !parse_count(node->text, value) || (double)*value < min || (double)*value > max)
        return refuse(node, w, err);
    return 0;
}

static int read_double(const struct tree_node *node, struct wanted w,
                       const struct key *range, double *value, struct err *err)
{
    if (node->kind != TREE_SCALAR || !node->plain || node->has_nul || !node->text ||
        !is_number(node->text))
        return refuse(node, w, err);
    double v = strtod(node->text, NULL);
    if (!isfinite(v) || v < range->min || v > range->max ||
        (range->above_min && v <= range->min))
        return refuse(node, w, err);
    *value = v;
    return 0;
}

static int read_bool(const struct tree_node *node, struct wanted w, bool *value,
                     struct err *err)
{
    bool yes = node->text && strcmp(node->text, "true") == 0;
    bool no = node->text && strcmp(node->text, "false") == 0;
    if (!node->plain || node->has_nul || (!yes && !no))
        return refuse(node, w, err);
    *value = yes;
    return 0;
}

/* Line breaks and other control characters (C0, DEL, C1, Unicode's separators and byte
 * order mark) do not belong in names and paths, and would not survive being written. */
static bool is_printable(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f || (c[0] == 0xc2 && c[1] < 0xa0) ||
            (c[0] == 0xe2 && c[1] == 0x80 && (c[2] == 0xa8 || c[2] == 0xa9)) ||
            (c[0] == 0xef &&
             ((c[1] == 0xbb && c[2] == 0xbf) || (c[1] == 0xbf && c[2] >= 0xbe))))
            return false;
    return true;
}

static int read_text(const struct tree_node *node, struct wanted w, char **value,
                     struct err *err)
{
    if (node->kind != TREE_SCALAR || tree_is_null(node) || node->has_nul ||
        !node->text[0] || !is_printable(node->text))
        return refuse(node, w, err);
    char *copy = strdup(node->text);
    if (!copy)
        return no_memory(err);
    free(*value);
    *value = copy;
    return 0;
}

static int read_choice(const struct tree_node *node, struct wanted w,
                       const char *const *choices, int *value, struct err *err)
{
    if (node->kind != TREE_SCALAR || node->has_nul || !node->text)
        return refuse(node, w, err);
    struct suggest s = suggest_for(node->text);
    for (int i = 0; choices[i]; i++) {
        if (strcmp(node->text, choices[i]) == 0) {
            *value = i;
            return 0;
        }
        suggest_try(&s, choices[i]);
    }
    refuse(node, w, err);
    size_t used = strlen(err->text);
    if (s.best)
        snprintf(err->text + used, sizeof err->text - used, "; did you mean %s?",
                 s.best);
    return -1;
}

static int read_betas(const struct tree_node *node, struct wanted w,
                      const struct key *k, struct run *r, struct err *err)
{
    const struct tree_node *first = node->first;
    if (node->kind != TREE_LIST || !first || !first->next || first->next->next)
        return refuse(node, w, err);
    struct wanted beta = {w.label, "a number of at least 0 and below 1"};
    double *to[] = {&r->optim.beta1, &r->optim.beta2};
    for (int i = 0; i < 2; i++, first = first->next) {
        if (read_double(first, beta, k, to[i], err) < 0)
            return -1;
        if (*to[i] >= 1)
            return refuse(first, beta, err);
    }
    return 0;
}

static int count_items(const struct tree_node *list)
{
    int n = 0;
    for (const struct tree_node *item = list->first; item; item = item->next)
        n++;
    return n;
}

static int read_split(const struct tree_node *node, struct wanted w,
                      const struct key *k, struct run *r, struct err *err)
{
    if (node->kind == TREE_SCALAR && node->text && strcmp(node->text, "auto") == 0)
        return 0;
    int n = node->kind == TREE_LIST ? count_items(node) : 0;
    if (n == 0)
        return refuse(node, w, err);
    r->parallel.split = calloc((size_t)n, sizeof *r->parallel.split);
    if (!r->parallel.split)
        return no_memory(err);
    struct wanted layers = {w.label, "a whole number of layers for each stage"};
    for (const struct tree_node *item = node->first; item; item = item->next) {
        uint64_t v;
        if (read_count(item, layers, k->min, k->max, &v, err) < 0)
            return -1;
        r->parallel.split[r->parallel.split_n++] = (int)v;
    }
    return 0;
}

static int read_keys(const struct tree_node *node, struct wanted w, struct run *r,
                     struct err *err)
{
    if (node->kind != TREE_LIST)
        return refuse(node, w, err);
    if (!node->first)
        return 0;
    r->checkpoint.resume_allow =
        calloc((size_t)count_items(node), sizeof *r->checkpoint.resume_allow);
    if (!r->checkpoint.resume_allow)
        return no_memory(err);
    struct wanted name = {w.label, "the name of a key or section"};
    for (const struct tree_node *item = node->first; item; item = item->next) {
        char **to = &r->checkpoint.resume_allow[r->checkpoint.resume_allow_n++];
        if (read_text(item, name, to, err) < 0)
            return -1;
        if (!schema_find(*to) && !schema_find_section(*to)) {
            struct suggest s = suggest_for(*to);
            for (const struct key *k = schema_keys; k->path; k++)
                suggest_try(&s, k->path);
            refuse(item, name, err);
            size_t used = strlen(err->text);
            if (s.best)
                snprintf(err->text + used, sizeof err->text - used,
                         "; did you mean %s?", s.best);
            return -1;
        }
    }
    return 0;
}

static int read_patterns(const struct tree_node *node, struct wanted w, struct run *r,
                         struct err *err)
{
    if (node->kind != TREE_LIST)
        return refuse(node, w, err);
    if (!node->first)
        return 0;
    r->train.freeze = calloc((size_t)count_items(node), sizeof *r->train.freeze);
    if (!r->train.freeze)
        return no_memory(err);
    struct wanted pattern = {w.label, "a pattern of tensors' names"};
    for (const struct tree_node *item = node->first; item; item = item->next)
        if (read_text(item, pattern, &r->train.freeze[r->train.freeze_n++], err) < 0)
            return -1;
    return 0;
}

/* One entry of data.train (path, weight) or data.valid (name, path). */
static int read_set(const struct tree_node *node, const struct key *k, int index,
                    struct run_set *set, struct err *err)
{
    char label[64], field_label[96];
    bool train = k->type == KEY_TRAIN_SETS;
    const char *other = train ? "weight" : "name";
    snprintf(label, sizeof label, "%s[%d]", k->path, index);
    if (node->kind != TREE_MAP)
        return refuse(node,
                      (struct wanted){label, train ? "{path: FILE, weight: NUMBER}"
                                                   : "{name: NAME, path: FILE}"},
                      err);
    static const struct key weights = {.min = 0, .max = 1e9, .above_min = true};
    set->weight = 1;
    for (const struct tree_node *field = node->first; field; field = field->next) {
        char shown[TREE_SHOWN];
        int rc;
        snprintf(field_label, sizeof field_label, "%s.%s", label,
                 strcmp(field->key, "path") == 0 ? "path" : other);
        if (strcmp(field->key, "path") == 0)
            rc = read_text(field, (struct wanted){field_label, "a file's path"},
                           &set->path, err);
        else if (strcmp(field->key, other) != 0)
            rc = tree_error(err, field->key_at,
                            "%s: unknown key \"%s\": expected path and %s", label,
                            tree_shown(field->key, shown), other);
        else if (train)
            rc = read_double(field, (struct wanted){field_label, "a number above 0"},
                             &weights, &set->weight, err);
        else
            rc = read_text(field, (struct wanted){field_label, "a name"}, &set->name,
                           err);
        if (rc < 0)
            return -1;
    }
    if (!set->path || (!train && !set->name))
        return tree_error(err, node->at, "%s: %s is missing", label,
                          set->path ? "name" : "path");
    return 0;
}

static int read_sets(const struct tree_node *node, struct wanted w, const struct key *k,
                     struct run *r, struct err *err)
{
    bool train = k->type == KEY_TRAIN_SETS;
    struct run_set **sets = train ? &r->data.train : &r->data.valid;
    int *n = train ? &r->data.train_sets : &r->data.valid_sets;
    if (node->kind != TREE_LIST || (train && !node->first))
        return refuse(node, w, err);
    if (!node->first)
        return 0;
    *sets = calloc((size_t)count_items(node), sizeof **sets);
    if (!*sets)
        return no_memory(err);
    for (const struct tree_node *item = node->first; item; item = item->next) {
        int i = (*n)++;
        if (read_set(item, k, i, &(*sets)[i], err) < 0)
            return -1;
    }
    return 0;
}

static int read_init(const struct tree_node *node, struct wanted w, struct run *r,
                     struct err *err)
{
    if (node->kind == TREE_SCALAR && node->plain && node->text &&
        strcmp(node->text, "random") == 0)
        return 0;
    return read_text(node, w, &r->model.init, err);
}

static int read_pipe(const struct tree_node *node, struct wanted w, const struct key *k,
                     struct run *r, struct err *err)
{
    static const char suffix[] = ".csv";
    size_t n = node->kind == TREE_SCALAR && node->text ? strlen(node->text) : 0;
    free(r->parallel.schedule_file);
    r->parallel.schedule_file = NULL;
    if (n < sizeof suffix || strcmp(node->text + n + 1 - sizeof suffix, suffix) != 0) {
        int choice = 0;
        if (read_choice(node, w, k->choices, &choice, err))
            return -1;
        r->parallel.schedule = (enum run_pipe)choice;
        return 0;
    }
    r->parallel.schedule = RUN_PIPE_FILE;
    return read_text(node, w, &r->parallel.schedule_file, err);
}

int key_read(const struct key *k, const struct tree_node *node, struct run *r,
             struct err *err)
{
    char expected[KEY_EXPECTED];
    struct wanted w = {k->path, key_expected(k, expected)};
    void *field = (char *)r + k->offset;
    uint64_t count;
    switch (k->type) {
    case KEY_TEXT:
        return read_text(node, w, field, err);
    case KEY_BOOL:
        return read_bool(node, w, field, err);
    case KEY_INT:
        if (read_count(node, w, k->min, k->max, &count, err) < 0)
            return -1;
        *(int *)field = to_int(to_i64(count));
        return 0;
    case KEY_I64:
        if (read_count(node, w, k->min, k->max, &count, err) < 0)
            return -1;
        *(int64_t *)field = to_i64(count);
        return 0;
    case KEY_U64:
        return read_count(node, w, k->min, k->max, field, err);
    case KEY_DOUBLE:
        return read_double(node, w, k, field, err);
    case KEY_CHOICE:
        return read_choice(node, w, k->choices, field, err);
    case KEY_INIT:
        return read_init(node, w, r, err);
    case KEY_BETAS:
        return read_betas(node, w, k, r, err);
    case KEY_PIPE:
        return read_pipe(node, w, k, r, err);
    case KEY_SPLIT:
        return read_split(node, w, k, r, err);
    case KEY_KEYS:
        return read_keys(node, w, r, err);
    case KEY_PATTERNS:
        return read_patterns(node, w, r, err);
    case KEY_TRAIN_SETS:
    case KEY_VALID_SETS:
        return read_sets(node, w, k, r, err);
    }
    CHECK(0, "%s has type %d", k->path, (int)k->type);
    return -1;
}
