/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/run.h"

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/suggest.h"
#include "src/config/key.h"
#include "src/config/path.h"
#include "src/config/rules.h"
#include "src/config/schema.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(struct err *err)
{
    return err_set(err, ERR_OTHER, "run file: no memory");
}

/* The last word of a dotted path. */
static const char *last_word(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

/* A known key for an unknown one: the same word in another section, else the closest
 * path. */
static const char *suggest_key(const char *path)
{
    const char *word = last_word(path), *elsewhere = NULL;
    struct suggest s = suggest_for(path);
    for (const struct key *k = schema_keys; k->path; k++) {
        if (strcmp(last_word(k->path), word) == 0)
            elsewhere = k->path;
        suggest_try(&s, k->path);
    }
    for (const struct section *section = schema_sections; section->path; section++)
        suggest_try(&s, section->path);
    return elsewhere && s.distance > 1 ? elsewhere : s.best;
}

static int unknown_key(struct tree_place at, const char *path, struct err *err)
{
    char shown[TREE_SHOWN];
    const char *best = suggest_key(path);
    if (best)
        return tree_error(err, at, "unknown key \"%s\": did you mean %s?",
                          tree_shown(path, shown), best);
    return tree_error(err, at,
                      "unknown key \"%s\" (configs/reference.yaml explains every key)",
                      tree_shown(path, shown));
}

/* Is every key in this section of the tree one of the schema? `section` is "" at the
 * top. */
static int check_keys(const struct tree_node *map, const char *section, struct err *err)
{
    char shown[TREE_SHOWN], path[PATH_BYTES];
    if (tree_is_null(map))
        return 0;
    if (map->kind != TREE_MAP)
        return tree_error(err, map->at, "%s%sexpected a map of keys, found %s", section,
                          *section ? ": " : "", tree_found(map, shown));
    for (const struct tree_node *child = map->first; child; child = child->next) {
        bool known = false;
        snprintf(path, sizeof path, "%s%s%s", section, *section ? "." : "", child->key);
        if (!strchr(child->key, '.')) {
            known = *section && schema_find(path);
            if (!known && schema_find_section(path)) {
                if (check_keys(child, path, err) < 0)
                    return -1;
                known = true;
            }
        } else if (schema_find(path)) {
            return tree_error(
                err, child->key_at,
                "unknown key \"%s\": expected the section %.*s with %s in "
                "it",
                path, (int)(strrchr(path, '.') - path), path, last_word(path));
        }
        if (!known)
            return unknown_key(child->key_at, path, err);
    }
    return 0;
}

static int read_default(const struct key *k, struct run *r, struct err *err)
{
    struct tree_node *node =
        tree_parse(k->path, false, k->missing, strlen(k->missing), err);
    if (!node)
        return -1;
    int rc = tree_is_null(node) ? 0 : key_read(k, node, r, err);
    tree_free(node);
    return rc;
}

static int read_key(const struct key *k, const struct tree_node *root, struct run *r,
                    struct err *err)
{
    char shown[TREE_SHOWN], expected[KEY_EXPECTED];
    const struct tree_node *node = path_find(root, k->path);
    bool null = node && tree_is_null(node);
    if (!schema_applies(k, r)) {
        if (!node || null)
            return 0;
        return tree_error(err, node->at, "%s: expected nothing without %s, found %s",
                          k->path, schema_condition(k), tree_found(node, shown));
    }
    bool may_be_null =
        k->when != WHEN_ALWAYS || (k->missing && !strcmp(k->missing, "null"));
    if (node && !(null && may_be_null))
        return key_read(k, node, r, err);
    if (k->missing)
        return read_default(k, r, err);
    return tree_error(err, path_place(root, k->path), "%s is missing%s%s: expected %s",
                      k->path, k->when == WHEN_ALWAYS ? "" : ", needed with ",
                      k->when == WHEN_ALWAYS ? "" : schema_condition(k),
                      key_expected(k, expected));
}

static int read_tree(const struct tree_node *root, struct run *r, struct err *err)
{
    for (const struct key *k = schema_keys; k->path; k++)
        if (read_key(k, root, r, err) < 0)
            return -1;
    return rules_check(r, root, err);
}

/* Puts one "a.b=VALUE" into the tree. *source names it in messages; owned. */
static int apply_set(struct tree_node *root, const char *set, char **source,
                     struct err *err)
{
    char path[PATH_BYTES], shown[TREE_SHOWN];
    const char *equals = strchr(set, '=');
    size_t n = equals ? (size_t)(equals - set) : strlen(set);
    snprintf(path, sizeof path, "%.*s", n < sizeof path ? (int)n : PATH_BYTES - 1, set);
    *source = mem_printf(err, "--set %s", tree_shown(path, shown));
    if (!*source)
        return -1;
    struct tree_place at = {.source = *source};
    if (!equals)
        return tree_error(err, at, "expected KEY=VALUE, such as optim.lr=1e-5");
    if (!schema_find(path) && !schema_find_section(path))
        return unknown_key(at, path, err);
    struct tree_node *value =
        tree_parse(*source, false, equals + 1, strlen(equals + 1), err);
    if (!value)
        return -1;
    if (path_put(root, path, value, err) < 0)
        return -1;
    return check_keys(root, "", err);
}

static int read_all(struct run *r, const char *name, const char *text, size_t bytes,
                    const char *const *sets, int sets_n, struct err *err)
{
    int rc = -1;
    *r = (struct run){0};
    char **sources = calloc((size_t)sets_n + 1, sizeof *sources);
    if (!sources)
        return no_memory(err);
    struct tree_node *root = tree_parse(name, true, text, bytes, err);
    if (!root || check_keys(root, "", err) < 0)
        goto end;
    for (int i = 0; i < sets_n; i++)
        if (apply_set(root, sets[i], &sources[i], err) < 0)
            goto end;
    rc = read_tree(root, r, err);
end:
    tree_free(root);
    for (int i = 0; i < sets_n; i++)
        free(sources[i]);
    free(sources);
    if (rc < 0)
        run_fini(r);
    return rc;
}

int run_read(struct run *r, const char *path, const char *const *sets, int sets_n,
             struct err *err)
{
    size_t bytes;
    *r = (struct run){0};
    char *text = file_read(path, TREE_BYTES_MAX, &bytes, err);
    if (!text) {
        err->code = ERR_USAGE;
        return -1;
    }
    int rc = read_all(r, path, text, bytes, sets, sets_n, err);
    free(text);
    return rc;
}

int run_parse(struct run *r, const char *name, const char *text, struct err *err)
{
    return read_all(r, name, text, strlen(text), NULL, 0, err);
}

static void free_sets(struct run_set *sets, int n)
{
    for (int i = 0; i < n; i++) {
        free(sets[i].path);
        free(sets[i].name);
    }
    free(sets);
}

void run_fini(struct run *r)
{
    for (const struct key *k = schema_keys; k->path; k++)
        if (k->type == KEY_TEXT)
            free(*(char **)((char *)r + k->offset));
    free(r->model.init);
    free_sets(r->data.train, r->data.train_sets);
    free_sets(r->data.valid, r->data.valid_sets);
    for (int i = 0; i < r->train.freeze_n; i++)
        free(r->train.freeze[i]);
    free(r->train.freeze);
    free(r->parallel.split);
    free(r->parallel.schedule_file);
    for (int i = 0; i < r->checkpoint.resume_allow_n; i++)
        free(r->checkpoint.resume_allow[i]);
    free(r->checkpoint.resume_allow);
    *r = (struct run){0};
}

bool run_may_differ(const struct run *r, const char *key)
{
    for (int i = 0; i < r->checkpoint.resume_allow_n; i++) {
        const char *listed = r->checkpoint.resume_allow[i];
        size_t n = strlen(listed);
        if (strncmp(key, listed, n) == 0 && (key[n] == '\0' || key[n] == '.'))
            return true;
    }
    return false;
}

int run_chunks(const struct run *r)
{
    enum run_pipe s = r->parallel.schedule;
    if (r->parallel.chunks)
        return r->parallel.chunks;
    return s == RUN_INTERLEAVED || s == RUN_ZB_V ? 2 : 1;
}

int64_t run_steps(const struct run *r, int64_t samples)
{
    if (r->train.steps)
        return r->train.steps;
    if (r->train.epochs > 0)
        return (int64_t)ceil(r->train.epochs * (double)samples / r->train.global_batch);
    int64_t step = (int64_t)r->train.global_batch * r->data.seq_len;
    return (r->train.tokens + step - 1) / step;
}
