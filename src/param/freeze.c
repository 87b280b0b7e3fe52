/* SPDX-License-Identifier: Apache-2.0 */
#include "src/param/freeze.h"

#include <fnmatch.h>
#include <stddef.h>
#include <string.h>

enum { NAME_ROOM = 96, LAYER_DIGITS = 6 };

/* Digits as a number, at most LAYER_DIGITS of them; what follows, NULL: none are there.
 */
static const char *parse_number(const char *text, int *value)
{
    int digits = 0;
    *value = 0;
    for (; text[digits] >= '0' && text[digits] <= '9'; digits++) {
        if (digits == LAYER_DIGITS)
            return NULL;
        *value = 10 * *value + (text[digits] - '0');
    }
    return digits ? text + digits : NULL;
}

/* Is it "layers.FROM-TO" or "layers.FROM"? */
static bool parse_layers(const char *pattern, int *from, int *to)
{
    static const char prefix[] = "layers.";
    if (strncmp(pattern, prefix, sizeof prefix - 1) != 0)
        return false;
    const char *rest = parse_number(pattern + sizeof prefix - 1, from);
    *to = *from;
    if (rest && *rest == '-')
        rest = parse_number(rest + 1, to);
    return rest && !*rest;
}

static bool matches(const char *pattern, const struct tensor *t)
{
    int from, to;
    char name[NAME_ROOM];
    if (parse_layers(pattern, &from, &to))
        return t->layer >= from && t->layer <= to;
    tensor_hf_name(t, name, sizeof name);
    return fnmatch(pattern, name, 0) == 0;
}

bool freeze_holds(const struct freeze *f, const struct tensor *t)
{
    for (int i = 0; i < f->patterns; i++)
        if (matches(f->pattern[i], t))
            return true;
    return false;
}

static int check_pattern(const char *pattern, const struct model_shape *s,
                         struct err *err)
{
    int from, to;
    if (parse_layers(pattern, &from, &to)) {
        if (from <= to && to < s->layers)
            return 0;
        return err_set(err, ERR_USAGE,
                       "train.freeze: expected layers.FROM-TO of the model's layers 0 "
                       "to %d, FROM <= TO, found \"%s\"",
                       s->layers - 1, pattern);
    }
    for (int i = 0; i < table_count(s); i++) {
        struct tensor t = table_at(s, i);
        if (matches(pattern, &t))
            return 0;
    }
    char name[NAME_ROOM];
    struct tensor example = table_find(s, ROLE_Q_PROJ, s->layers - 1);
    tensor_hf_name(&example, name, sizeof name);
    bool head = s->tied && fnmatch(pattern, "lm_head.weight", 0) == 0;
    return err_set(err, ERR_USAGE,
                   "train.freeze: expected a pattern that matches some tensor, such as "
                   "%s or layers.0-%d, found \"%s\", which matches none%s",
                   name, s->layers - 1, pattern,
                   head ? " (the head of a tied model is model.embed_tokens.weight)"
                        : "");
}

int freeze_check(const struct freeze *f, const struct model_shape *s, struct err *err)
{
    for (int i = 0; i < f->patterns; i++)
        if (check_pattern(f->pattern[i], s, err))
            return -1;
    int n = table_count(s);
    if (freeze_count(f, s).tensors < n)
        return 0;
    return err_set(
        err, ERR_USAGE,
        "train.freeze: expected at least one tensor left to train, found all "
        "%d frozen",
        n);
}

struct freeze_count freeze_count(const struct freeze *f, const struct model_shape *s)
{
    struct freeze_count c = {0};
    for (int i = 0; f->patterns && i < table_count(s); i++) {
        struct tensor t = table_at(s, i);
        if (freeze_holds(f, &t)) {
            c.tensors++;
            c.elements += t.elements;
        }
    }
    return c;
}

bool freeze_trains_before(const struct freeze *f, const struct model_shape *s,
                          int layer)
{
    for (int i = 0; i < table_count(s); i++) {
        struct tensor t = table_at(s, i);
        bool before = t.role == ROLE_EMBED_TOKENS || (t.layer >= 0 && t.layer < layer);
        if (before && !freeze_holds(f, &t))
            return true;
    }
    return false;
}
