/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/base/suggest.h"

static int usage(const struct options *o, struct err *err)
{
    size_t used = strlen(err->text);
    snprintf(err->text + used, sizeof err->text - used, " (see dusk %s --help)",
             o->verb->name);
    return -1;
}

/* The option whose name is the first `n` characters of text; NULL if there is none. */
static const struct option *option_find(const struct verb *v, const char *text,
                                        size_t n)
{
    for (const struct option *p = v->options; p && p->name; p++)
        if (strlen(p->name) == n && !strncmp(p->name, text, n))
            return p;
    return NULL;
}

static bool option_repeats(const struct option *p)
{
    size_t n = p->value ? strlen(p->value) : 0;
    return n >= 3 && !strcmp(p->value + n - 3, "...");
}

static int fail_unknown(const struct options *o, const char *text, size_t n,
                        struct err *err)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)n, text);
    struct suggest s = suggest_for(name);
    suggest_try(&s, "--help");
    for (const struct option *p = o->verb->options; p && p->name; p++)
        if (p->name[1] == '-')
            suggest_try(&s, p->name);
    if (s.best)
        err_set(err, ERR_USAGE, "unknown option %s: did you mean %s?", name, s.best);
    else
        err_set(err, ERR_USAGE, "unknown option %s", name);
    return usage(o, err);
}

/* Takes the option argv[*i] and its value, and moves *i past them. */
static int option_take(struct options *o, int argc, char **argv, int *i,
                       struct err *err)
{
    const char *text = argv[*i];
    const char *equals = text[1] == '-' ? strchr(text, '=') : NULL;
    size_t n = equals ? (size_t)(equals - text) : strlen(text);
    const struct option *p = option_find(o->verb, text, n);
    if (!p)
        return fail_unknown(o, text, n, err);
    if (!option_repeats(p)) {
        for (int k = 0; k < o->given; k++) {
            if (o->set[k].option == p) {
                err_set(err, ERR_USAGE, "%s is given twice", p->name);
                return usage(o, err);
            }
        }
    }
    if (o->given == OPTIONS_MAX) {
        err_set(err, ERR_USAGE, "more than %d options", OPTIONS_MAX);
        return usage(o, err);
    }
    const char *value = equals ? equals + 1 : NULL;
    if (!p->value && value) {
        err_set(err, ERR_USAGE, "%s takes no value, found \"%s\"", p->name, value);
        return usage(o, err);
    }
    if (p->value && !value) {
        const char *next = *i + 1 < argc ? argv[*i + 1] : NULL;
        if (!next || option_find(o->verb, next, strlen(next))) {
            err_set(err, ERR_USAGE, "%s needs a value (%s), found %s", p->name,
                    p->value, next ? next : "nothing");
            return usage(o, err);
        }
        value = next;
        *i += 1;
    }
    o->set[o->given].option = p;
    o->set[o->given].value = value;
    o->given++;
    *i += 1;
    return 0;
}

static int check_count(const struct options *o, int args_min, int args_max,
                       struct err *err)
{
    if (o->args >= args_min && (args_max < 0 || o->args <= args_max))
        return 0;
    if (o->args < args_min && o->args == 0)
        err_set(err, ERR_USAGE, "expected arguments: %s", o->verb->arguments);
    else if (o->args < args_min)
        err_set(err, ERR_USAGE, "expected %s%d argument%s, found %d",
                args_max == args_min ? "" : "at least ", args_min,
                args_min == 1 ? "" : "s", o->args);
    else
        err_set(err, ERR_USAGE, "one argument too many: \"%s\"", o->arg[args_max]);
    return usage(o, err);
}

int options_read(struct options *o, const struct verb *v, int argc, char **argv,
                 int args_min, int args_max, struct err *err)
{
    *o = (struct options){.verb = v};
    o->arg = mem_array(argc, sizeof *o->arg, err);
    if (!o->arg)
        return -1;
    bool only_args = false;
    int i = 1;
    while (i < argc) {
        const char *text = argv[i];
        if (!only_args && !strcmp(text, "--")) {
            only_args = true;
            i++;
        } else if (!only_args && text[0] == '-' && text[1]) {
            if (option_take(o, argc, argv, &i, err))
                goto fail;
        } else {
            o->arg[o->args++] = text;
            i++;
        }
    }
    if (check_count(o, args_min, args_max, err))
        goto fail;
    return 0;
fail:
    options_fini(o);
    return -1;
}

void options_fini(struct options *o)
{
    mem_free(o->arg);
    o->arg = NULL;
}

const char *options_each(const struct options *o, const char *name, int i)
{
    for (int k = 0; k < o->given; k++)
        if (!strcmp(o->set[k].option->name, name) && i-- == 0)
            return o->set[k].value;
    return NULL;
}

bool options_flag(const struct options *o, const char *name)
{
    for (int k = 0; k < o->given; k++)
        if (!strcmp(o->set[k].option->name, name))
            return true;
    return false;
}

const char *options_text(const struct options *o, const char *name, const char *missing)
{
    const char *value = options_each(o, name, 0);
    return value ? value : missing;
}

/* [+-]digits[.digits][e[+-]digits][k|M|G], exactly: -1 unless it is a whole number that
 * fits. */
static int parse_whole(const char *s, int64_t *value)
{
    bool negative = *s == '-';
    s += *s == '-' || *s == '+';
    int64_t n = 0;
    int digits = 0, exponent = 0;
    for (int after = 0; (*s >= '0' && *s <= '9') || (*s == '.' && !after); s++) {
        if (*s == '.') {
            after = -1;
            continue;
        }
        if (n > (INT64_MAX - (*s - '0')) / 10)
            return -1;
        n = n * 10 + (*s - '0');
        digits++;
        exponent += after;
    }
    if (!digits)
        return -1;
    if (*s == 'e' || *s == 'E') {
        char *end;
        long e = strtol(s + 1, &end, 10);
        if (end == s + 1 || e < -99 || e > 99)
            return -1;
        exponent += (int)e;
        s = end;
    }
    const char *suffixes = "kMG", *suffix = *s ? strchr(suffixes, *s) : NULL;
    if (suffix) {
        exponent += 3 * (int)(suffix - suffixes + 1);
        s++;
    }
    if (*s)
        return -1;
    for (; exponent > 0 && n != 0; exponent--) {
        if (n > INT64_MAX / 10)
            return -1;
        n *= 10;
    }
    for (; exponent < 0 && n != 0; exponent++) {
        if (n % 10)
            return -1;
        n /= 10;
    }
    *value = negative ? -n : n;
    return 0;
}

int options_int(const struct options *o, const char *name, int64_t missing, int64_t min,
                int64_t max, int64_t *value, struct err *err)
{
    const char *text = options_each(o, name, 0);
    if (!text) {
        *value = missing;
        return 0;
    }
    int64_t n;
    if (parse_whole(text, &n) || n < min || n > max) {
        char from[32], to[32] = "";
        snprintf(from, sizeof from, "%lld", (long long)min);
        if (max != INT64_MAX)
            snprintf(to, sizeof to, " to %lld", (long long)max);
        err_set(err, ERR_USAGE,
                "%s: expected a whole number from %s%s, found \"%.100s\"", name, from,
                max == INT64_MAX ? " up" : to, text);
        return usage(o, err);
    }
    *value = n;
    return 0;
}

int options_double(const struct options *o, const char *name, double missing,
                   double min, double max, double *value, struct err *err)
{
    const char *text = options_each(o, name, 0);
    if (!text) {
        *value = missing;
        return 0;
    }
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || !isfinite(x) || x < min || x > max) {
        err_set(err, ERR_USAGE, "%s: expected a number from %g to %g, found \"%.100s\"",
                name, min, max, text);
        return usage(o, err);
    }
    *value = x;
    return 0;
}

int options_choice(const struct options *o, const char *name, const char *const *words,
                   int n, int *choice, struct err *err)
{
    const char *given = options_text(o, name, words[0]);
    char all[256] = "";
    size_t used = 0;
    for (*choice = 0; *choice < n; ++*choice)
        if (strcmp(given, words[*choice]) == 0)
            return 0;
    for (int i = 0; i < n && used < sizeof all; i++)
        used += (size_t)snprintf(all + used, sizeof all - used, "%s%s",
                                 i == 0       ? ""
                                 : i == n - 1 ? " or "
                                              : ", ",
                                 words[i]);
    return err_set(err, ERR_USAGE, "%s: expected %s, found \"%s\"", name, all, given);
}
