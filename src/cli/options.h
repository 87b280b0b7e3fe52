/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CLI_OPTIONS_H
#define DUSK_CLI_OPTIONS_H

/* Command-line options of a verb, read strictly: an unknown option, a missing value or
 * a wrong number of arguments is ERR_USAGE with a did-you-mean and a pointer to --help.
 * `--name VALUE`, `--name=VALUE`, `-o VALUE`; `--` ends the options. Local. */

#include <stdbool.h>
#include <stdint.h>

#include "src/cli/verb.h"

enum { OPTIONS_MAX = 64 };

struct options {
    const struct verb *verb;
    int given;
    struct {
        const struct option *option;
        const char *value;
    } set[OPTIONS_MAX];
    int args;         /* what is not an option */
    const char **arg; /* owned; fini */
};

/* args_min..args_max plain arguments (max -1: any number). */
int options_read(struct options *o, const struct verb *v, int argc, char **argv,
                 int args_min, int args_max, struct err *err);
void options_fini(struct options *o);

bool options_flag(const struct options *o, const char *name);
const char *options_text(const struct options *o, const char *name,
                         const char *missing);
/* Every value of an option that may be repeated (--set), in order: the i-th, NULL at
 * the end. */
const char *options_each(const struct options *o, const char *name, int i);
/* Whole numbers take suffixes k, M, G (1000) and exponents that are whole ("5e9"). */
int options_int(const struct options *o, const char *name, int64_t missing, int64_t min,
                int64_t max, int64_t *value, struct err *err);
int options_double(const struct options *o, const char *name, double missing,
                   double min, double max, double *value, struct err *err);
/* One of words[n], which are at least two; the first if the option is missing. */
int options_choice(const struct options *o, const char *name, const char *const *words,
                   int n, int *choice, struct err *err);

#endif
