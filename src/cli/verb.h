/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CLI_VERB_H
#define DUSK_CLI_VERB_H

/* A verb: one file, src/cli/cmd_NAME.c, that defines `const struct verb verb_NAME` and
 * is listed once in src/cli/verbs.c. `--help` and the man page are made from the same
 * text.
 *
 * A verb's run() works in three phases with names: read the options
 * (src/cli/options.h), do (the layers below), print. It returns the exit code; errors
 * were printed by verb_fail. */

#include <stdbool.h>

#include "mpi/comm.h"
#include "src/base/err.h"
#include "src/base/log.h"

struct option {
    const char *name;  /* "--dtype", or "-o": one dash is a short name */
    const char *value; /* what follows, "keep|f32|bf16"; NULL: a flag; one that ends
                          with "...", "a.b=VALUE...", may be given repeatedly */
    const char *help;  /* one line or more, without line breaks */
};

struct verb {
    const char *name, *arguments; /* "HFDIR -o CKPT" */
    const char *summary;          /* one line */
    const char *description; /* paragraphs, for --help and the man page; '\n' between;
                              * one that starts with a space is a line of a drawing */
    const char *examples;    /* shell lines, '\n' between */
    const struct option
        *options;           /* ends with name NULL; -h/--help is added by itself */
    bool mpi;               /* runs on ranks: MPI is started before run() */
    const char *mpi_option; /* or only if this flag is given; NULL: none */
    /* argv[0] is the verb. world is comm_self() without MPI. log speaks on rank 0 only.
     */
    int (*run)(int argc, char **argv, struct comm *world, const struct log *log);
};

extern const struct verb *const verbs[]; /* in the order of --help, ends with NULL */

/* Prints "dusk VERB: text" on rank 0's stderr, or the text alone if it starts with a
 * place
 * ("run.yaml:3:5: ", "--set a.b: "), and returns the exit code of err. The error must
 * be the same on all ranks (agreed). */
int verb_fail(const struct verb *v, const struct comm *world, const struct err *err);

#endif
