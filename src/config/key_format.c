/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/key.h"

#include "src/base/check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void format_text(const char *text, FILE *out)
{
    if (!text) {
        fputs("null", out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

/* The fewest digits that read back as the same number. */
static void format_double(double value, FILE *out)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (memcmp(&(double){strtod(text, NULL)}, &value, sizeof value) == 0)
            break;
    }
    fputs(text, out);
}

/* Counts that may be left out have 0 for that, below their least value. */
static void format_count(const struct key *k, int64_t value, FILE *out)
{
    if (value == 0 && k->min > 0)
        fputs("null", out);
    else
        fprintf(out, "%" PRId64, value);
}

static void format_split(const struct run *r, FILE *out)
{
    if (!r->parallel.split_n) {
        fputs("auto", out);
        return;
    }
    for (int i = 0; i < r->parallel.split_n; i++)
        fprintf(out, "%s%d", i ? ", " : "[", r->parallel.split[i]);
    fputc(']', out);
}

static void format_keys(const struct run *r, FILE *out)
{
    fputc('[', out);
    for (int i = 0; i < r->checkpoint.resume_allow_n; i++)
        fprintf(out, "%s%s", i ? ", " : "", r->checkpoint.resume_allow[i]);
    fputc(']', out);
}

static void format_patterns(const struct run *r, FILE *out)
{
    fputc('[', out);
    for (int i = 0; i < r->train.freeze_n; i++) {
        fputs(i ? ", " : "", out);
        format_text(r->train.freeze[i], out);
    }
    fputc(']', out);
}

static void format_sets(const struct run_set *sets, int n, bool train, FILE *out)
{
    fputc('[', out);
    for (int i = 0; i < n; i++) {
        fputs(i ? ", {" : "{", out);
        if (!train) {
            fputs("name: ", out);
            format_text(sets[i].name, out);
            fputs(", ", out);
        }
        fputs("path: ", out);
        format_text(sets[i].path, out);
        if (train) {
            fputs(", weight: ", out);
            format_double(sets[i].weight, out);
        }
        fputc('}', out);
    }
    fputc(']', out);
}

void key_format(const struct key *k, const struct run *r, FILE *out)
{
    const void *field = (const char *)r + k->offset;
    if (!schema_applies(k, r)) {
        fputs("null", out);
        return;
    }
    switch (k->type) {
    case KEY_TEXT:
        format_text(*(char *const *)field, out);
        return;
    case KEY_BOOL:
        fputs(*(const bool *)field ? "true" : "false", out);
        return;
    case KEY_INT:
        format_count(k, *(const int *)field, out);
        return;
    case KEY_I64:
        format_count(k, *(const int64_t *)field, out);
        return;
    case KEY_U64:
        fprintf(out, "%" PRIu64, *(const uint64_t *)field);
        return;
    case KEY_DOUBLE:
        if (*(const double *)field == 0 && k->missing && !strcmp(k->missing, "null"))
            fputs("null", out);
        else
            format_double(*(const double *)field, out);
        return;
    case KEY_CHOICE:
        fputs(k->choices[*(const int *)field], out);
        return;
    case KEY_INIT:
        if (r->model.init)
            format_text(r->model.init, out);
        else
            fputs("random", out);
        return;
    case KEY_BETAS:
        fputc('[', out);
        format_double(r->optim.beta1, out);
        fputs(", ", out);
        format_double(r->optim.beta2, out);
        fputc(']', out);
        return;
    case KEY_PIPE:
        if (r->parallel.schedule_file)
            format_text(r->parallel.schedule_file, out);
        else
            fputs(k->choices[r->parallel.schedule], out);
        return;
    case KEY_SPLIT:
        format_split(r, out);
        return;
    case KEY_KEYS:
        format_keys(r, out);
        return;
    case KEY_PATTERNS:
        format_patterns(r, out);
        return;
    case KEY_TRAIN_SETS:
        format_sets(r->data.train, r->data.train_sets, true, out);
        return;
    case KEY_VALID_SETS:
        format_sets(r->data.valid, r->data.valid_sets, false, out);
        return;
    }
    CHECK(0, "%s has type %d", k->path, (int)k->type);
}

static void expect_choices(const struct key *k, char text[KEY_EXPECTED])
{
    size_t used =
        (size_t)snprintf(text, KEY_EXPECTED, "%s", k->choices[1] ? "one of " : "");
    for (int i = 0; k->choices[i] && used < KEY_EXPECTED; i++)
        used += (size_t)snprintf(text + used, KEY_EXPECTED - used, "%s%s",
                                 i ? ", " : "", k->choices[i]);
}

const char *key_expected(const struct key *k, char text[KEY_EXPECTED])
{
    static const char *const expected[] = {
        [KEY_TEXT] = "text",
        [KEY_BOOL] = "true or false",
        [KEY_U64] = "a whole number from 0 to 2^64 - 1",
        [KEY_INIT] = "a checkpoint's path or random",
        [KEY_BETAS] = "a list of two numbers, each at least 0 and below 1",
        [KEY_SPLIT] = "auto or a list of layers for each stage",
        [KEY_KEYS] = "a list of keys or sections",
        [KEY_PATTERNS] = "a list of patterns",
        [KEY_TRAIN_SETS] = "a list of one or more {path: FILE, weight: NUMBER}",
        [KEY_VALID_SETS] = "a list of {name: NAME, path: FILE}",
    };
    switch (k->type) {
    case KEY_INT:
    case KEY_I64:
        snprintf(text, KEY_EXPECTED, "a whole number from %.0f to %.0f", k->min,
                 k->max);
        break;
    case KEY_DOUBLE:
        if (k->above_min)
            snprintf(text, KEY_EXPECTED, "a number above %g, at most %g", k->min,
                     k->max);
        else
            snprintf(text, KEY_EXPECTED, "a number from %g to %g", k->min, k->max);
        break;
    case KEY_CHOICE:
        expect_choices(k, text);
        break;
    case KEY_PIPE:
        expect_choices(k, text);
        strncat(text, " or FILE.csv", KEY_EXPECTED - 1 - strlen(text));
        break;
    default:
        snprintf(text, KEY_EXPECTED, "%s", expected[k->type]);
    }
    return text;
}
