/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/key.h"
#include "src/config/schema.h"

#include <stdlib.h>
#include <string.h>

enum { WIDTH = 88 };

/* Writes words as comment lines of at most WIDTH columns. */
static void write_comment(const char *text, int indent, FILE *out)
{
    int column = 0;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column && column + 1 + n > WIDTH) {
            fputc('\n', out);
            column = 0;
        }
        if (column == 0)
            column = fprintf(out, "%*s# %.*s", indent, "", n, text);
        else
            column += fprintf(out, " %.*s", n, text);
        text += n;
        text += *text == ' ';
    }
    fputc('\n', out);
}

static void write_key(const struct key *k, const char *leaf, int indent, bool active,
                      FILE *out)
{
    char expected[KEY_EXPECTED], text[KEY_EXPECTED + 128];
    snprintf(text, sizeof text, "(%s; %s%s%s%s)", key_expected(k, expected),
             k->missing ? "default " : "required", k->missing ? k->missing : "",
             k->when == WHEN_ALWAYS ? "" : ", only with ",
             k->when == WHEN_ALWAYS ? "" : schema_condition(k));
    write_comment(k->help, indent, out);
    write_comment(text, indent, out);
    fprintf(out, "%*s%s%s: %s\n", indent, "", active ? "" : "# ", leaf,
            k->example ? k->example : k->missing);
}

/* The example is a run from a checkpoint with a cosine schedule; what does not apply to
 * it is a comment. */
static bool in_example(const struct key *k)
{
    return k->when == WHEN_ALWAYS || k->when == WHEN_CHECKPOINT;
}

static void write_section(const struct section *s, FILE *out)
{
    int indent = strchr(s->path, '.') ? 4 : 2;
    const char *dot = strrchr(s->path, '.');
    bool active = false;
    for (const struct key *k = schema_keys; k->path; k++)
        active = active || (schema_leaf(k, s->path) && in_example(k));
    if (indent == 2)
        fputc('\n', out);
    write_comment(s->help, indent - 2, out);
    fprintf(out, "%*s%s%s:\n", indent - 2, "", active ? "" : "# ",
            dot ? dot + 1 : s->path);
    for (const struct key *k = schema_keys; k->path; k++) {
        const char *leaf = schema_leaf(k, s->path);
        if (leaf)
            write_key(k, leaf, indent, in_example(k), out);
    }
}

char *schema_reference(struct err *err)
{
    static const char head[] =
        "Every key of a run file, with an example that `dusk check` accepts. Steps are "
        "optimizer steps, batches are counted in sequences, rates are absolute. A key "
        "that is not known here is an error, and so is a key given twice. `--set "
        "optim.lr=1e-5` overrides a key on the command line. This file is made by "
        "`dusk "
        "check --reference`.";
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) {
        err_set(err, ERR_OTHER, "reference: no memory");
        return NULL;
    }
    write_comment(head, 0, out);
    for (const struct section *s = schema_sections; s->path; s++)
        write_section(s, out);
    bool failed = ferror(out);
    if (fclose(out) != 0 || failed) {
        free(text);
        err_set(err, ERR_OTHER, "reference: no memory");
        return NULL;
    }
    return text;
}
