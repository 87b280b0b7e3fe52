/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/template_file.h"

#include "src/base/file.h"
#include "src/config/tree.h"

#include <stdlib.h>
#include <string.h>

/* The description and the jinja of a template are attributes of a set, and HDF5 takes
 * 64 KiB for one. */
enum { TEMPLATE_BYTES = 8192 };

static const struct {
    const char *name;
    size_t at; /* in template_spec */
} flags[] = {
    {"skip_empty_system", offsetof(struct template_spec, skip_empty_system)},
    {"strip", offsetof(struct template_spec, strip)},
    {"bos", offsetof(struct template_spec, bos)},
    {"raw", offsetof(struct template_spec, raw)},
    {"text", offsetof(struct template_spec, text)},
    {"one_turn", offsetof(struct template_spec, one_turn)},
    {"end_once", offsetof(struct template_spec, end_once)},
};
enum { FLAGS = sizeof flags / sizeof *flags };

/* What is not as `expected`. */
static int wrong(const struct tree_node *node, const char *expected, struct err *err)
{
    char shown[TREE_SHOWN];
    return tree_error(err, node->at, "%s: expected %s, found %s",
                      node->key ? node->key : "tokens", expected,
                      tree_found(node, shown));
}

static int read_text(const struct tree_node *node, const char **text, struct err *err)
{
    if (node->kind != TREE_SCALAR || node->has_nul || tree_is_null(node))
        return wrong(node, "a text", err);
    *text = node->text;
    return 0;
}

static int read_flag(const struct tree_node *node, bool *flag, struct err *err)
{
    bool scalar = node->kind == TREE_SCALAR && node->plain;
    if (scalar && strcmp(node->text, "true") == 0)
        *flag = true;
    else if (scalar && strcmp(node->text, "false") == 0)
        *flag = false;
    else
        return wrong(node, "true or false", err);
    return 0;
}

static int read_system(const struct tree_node *node, enum template_system *system,
                       struct err *err)
{
    static const char *const names[] = {[SYSTEM_TURN] = "turn",
                                        [SYSTEM_MERGED] = "merged",
                                        [SYSTEM_REFUSED] = "refused"};
    for (int i = 0; node->kind == TREE_SCALAR && i < 3; i++)
        if (strcmp(node->text, names[i]) == 0) {
            *system = (enum template_system)i;
            return 0;
        }
    return wrong(node, "turn, merged or refused", err);
}

static int read_tokens(const struct tree_node *node, struct template_spec *spec,
                       struct err *err)
{
    int n = 0;
    if (node->kind != TREE_LIST)
        return wrong(node, "a list of texts", err);
    for (const struct tree_node *k = node->first; k; k = k->next) {
        if (n == TEMPLATE_TOKENS)
            return wrong(node, "at most 8 texts", err);
        if (read_text(k, &spec->token[n++], err))
            return -1;
    }
    return 0;
}

static int read_key(const struct tree_node *node, struct template_spec *spec,
                    struct err *err)
{
    char shown[TREE_SHOWN];
    for (int i = 0; i < TEMPLATE_PARTS; i++)
        if (strcmp(node->key, template_part_name((enum template_part)i)) == 0)
            return read_text(node, &spec->part[i], err);
    for (int i = 0; i < FLAGS; i++)
        if (strcmp(node->key, flags[i].name) == 0)
            return read_flag(node, (bool *)((char *)spec + flags[i].at), err);
    if (strcmp(node->key, "name") == 0)
        return read_text(node, &spec->name, err);
    if (strcmp(node->key, "eos") == 0)
        return tree_is_null(node) ? 0 : read_text(node, &spec->eos, err);
    if (strcmp(node->key, "system") == 0)
        return read_system(node, &spec->system, err);
    if (strcmp(node->key, "tokens") == 0)
        return read_tokens(node, spec, err);
    return tree_error(err, node->key_at,
                      "unknown key \"%s\": expected name, eos, tokens, system, a part "
                      "(start, system_before, user_before, reply_end, ...) or a flag "
                      "(bos, strip, ...)",
                      tree_shown(node->key, shown));
}

static struct template *create(const struct template_spec *spec,
                               const struct tokenizer *t, struct err *err)
{
    int bos = tokenizer_bos(t), eos = tokenizer_eos(t);
    return template_create(spec, bos < 0 ? NULL : tokenizer_piece(t, bos),
                           eos < 0 ? NULL : tokenizer_piece(t, eos), err);
}

struct template *template_parse(const char *source, const char *text, size_t bytes,
                                const struct tokenizer *t, struct err *err)
{
    struct template_spec spec = {.name = NULL};
    struct template *made = NULL;
    struct tree_node *root = tree_parse(source, true, text, bytes, err);
    if (!root)
        return NULL;
    int failed = 0;
    if (root->kind != TREE_MAP)
        failed = tree_error(err, root->at, "expected the keys of a template");
    for (const struct tree_node *k = root->first; k && !failed; k = k->next)
        failed = read_key(k, &spec, err);
    if (!failed && (!spec.name || !spec.name[0]))
        failed = tree_error(err, root->at, "expected a key name, found none");
    if (!failed && !(made = create(&spec, t, err)))
        err_prefix(err, "%s", source);
    tree_free(root);
    return made;
}

static bool is_file(const char *name)
{
    const char *dot = strrchr(name, '.');
    return strchr(name, '/') ||
           (dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0));
}

struct template *template_load(struct comm *c, const char *name,
                               const struct tokenizer *t, struct err *err)
{
    struct template *made = NULL;
    if (!is_file(name)) {
        const struct template_spec *spec = template_find(name, err);
        made = spec ? create(spec, t, err) : NULL;
    } else {
        char *text = NULL;
        size_t bytes = 0;
        int failed = 0;
        if (comm_root(c))
            failed = !(text = file_read(name, TEMPLATE_BYTES, &bytes, err));
        if (comm_agree(c, failed, err))
            return NULL;
        comm_bcast(c, &bytes, sizeof bytes, 0);
        if (!comm_root(c))
            failed = !(text = malloc(bytes + 1)) &&
                     err_set(err, ERR_OTHER, "memory: none left for a template");
        if (comm_agree(c, failed, err)) {
            free(text);
            return NULL;
        }
        comm_bcast(c, text, bytes, 0);
        made = template_parse(name, text, bytes, t, err);
        free(text);
    }
    if (comm_agree(c, !made, err)) {
        template_destroy(made);
        return NULL;
    }
    return made;
}
