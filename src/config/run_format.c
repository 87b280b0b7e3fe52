/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/run.h"

#include "src/config/key.h"
#include "src/config/schema.h"

#include <stdlib.h>
#include <string.h>

/* The last word of a section's path if it lies directly in `outer` ("": at the top). */
static const char *section_leaf(const struct section *s, const char *outer)
{
    size_t n = strlen(outer);
    if (n && (strncmp(s->path, outer, n) != 0 || s->path[n] != '.'))
        return NULL;
    const char *leaf = s->path + n + (n > 0);
    return strchr(leaf, '.') ? NULL : leaf;
}

/* A section is null if none of its keys applies. */
static bool section_applies(const struct section *s, const struct run *r)
{
    for (const struct key *k = schema_keys; k->path; k++)
        if (schema_leaf(k, s->path) && schema_applies(k, r))
            return true;
    return false;
}

static void format_block(const struct section *s, const struct run *r, int indent,
                         FILE *out)
{
    for (const struct key *k = schema_keys; k->path; k++) {
        const char *leaf = schema_leaf(k, s->path);
        if (!leaf)
            continue;
        fprintf(out, "%*s%s: ", indent, "", leaf);
        key_format(k, r, out);
        fputc('\n', out);
    }
    for (const struct section *inner = schema_sections; inner->path; inner++) {
        const char *leaf = section_leaf(inner, s->path);
        if (!leaf)
            continue;
        bool applies = section_applies(inner, r);
        fprintf(out, "%*s%s:%s\n", indent, "", leaf, applies ? "" : " null");
        if (applies)
            format_block(inner, r, indent + 2, out);
    }
}

static void format_flow(const struct section *s, const struct run *r, FILE *out)
{
    const char *comma = "";
    if (!section_applies(s, r)) {
        fputs("null", out);
        return;
    }
    fputc('{', out);
    for (const struct key *k = schema_keys; k->path; k++) {
        const char *leaf = schema_leaf(k, s->path);
        if (!leaf)
            continue;
        fprintf(out, "%s%s: ", comma, leaf);
        key_format(k, r, out);
        comma = ", ";
    }
    for (const struct section *inner = schema_sections; inner->path; inner++) {
        const char *leaf = section_leaf(inner, s->path);
        if (leaf) {
            fprintf(out, "%s%s: ", comma, leaf);
            format_flow(inner, r, out);
        }
    }
    fputc('}', out);
}

/* Closes a memory stream; its text, or NULL with err set if it ran out of memory. */
static char *finish(FILE *out, char **text, struct err *err)
{
    bool failed = ferror(out);
    if (fclose(out) == 0 && !failed)
        return *text;
    free(*text);
    err_set(err, ERR_OTHER, "run file: no memory");
    return NULL;
}

static FILE *begin(char **text, size_t *bytes, struct err *err)
{
    FILE *out = open_memstream(text, bytes);
    if (!out)
        err_set(err, ERR_OTHER, "run file: no memory");
    return out;
}

char *run_format(const struct run *r, struct err *err)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = begin(&text, &bytes, err);
    if (!out)
        return NULL;
    for (const struct section *s = schema_sections; s->path; s++)
        if (section_leaf(s, "")) {
            fprintf(out, "%s:\n", s->path);
            format_block(s, r, 2, out);
        }
    return finish(out, &text, err);
}

char *run_value(const struct run *r, const char *key, struct err *err)
{
    char *text = NULL;
    size_t bytes;
    const struct key *k = schema_find(key);
    const struct section *s = schema_find_section(key);
    if (!k && !s) {
        err_set(err, ERR_USAGE, "run file: no key is called \"%s\"", key);
        return NULL;
    }
    FILE *out = begin(&text, &bytes, err);
    if (!out)
        return NULL;
    if (k)
        key_format(k, r, out);
    else
        format_flow(s, r, out);
    return finish(out, &text, err);
}

const char *run_key(int i)
{
    int known = 0;
    while (known <= i && schema_keys[known].path)
        known++;
    return i >= 0 && i < known ? schema_keys[i].path : NULL;
}
