/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "mpi/comm.h"
#include "mpi/watch.h"
#include "src/base/mem.h"
#include "src/base/suggest.h"
#include "src/cli/help.h"
#include "src/cli/verb.h"

/* What is still in stdout's buffer may not fit on the disk. */
static int flush_output(void)
{
    if (!fflush(stdout) && !ferror(stdout))
        return 0;
    perror("dusk: writing to standard output");
    return ERR_IO;
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return true;
    return false;
}

static const struct verb *find_verb(const char *name)
{
    for (int i = 0; verbs[i]; i++)
        if (!strcmp(verbs[i]->name, name))
            return verbs[i];
    return NULL;
}

static int fail_unknown(const char *name)
{
    struct suggest s = suggest_for(name);
    for (int i = 0; verbs[i]; i++)
        suggest_try(&s, verbs[i]->name);
    fprintf(stderr, "dusk: unknown %s \"%.100s\"%s%s%s (see dusk --help)\n",
            name[0] == '-' ? "option" : "verb", name, s.best ? ": did you mean " : "",
            s.best ? s.best : "", s.best ? "?" : "");
    return ERR_USAGE;
}

static bool needs_mpi(const struct verb *v, int argc, char **argv)
{
    if (v->mpi)
        return true;
    for (int i = 2; v->mpi_option && i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], v->mpi_option))
            return true;
    return false;
}

/* Runs a verb on its ranks. All of them leave with the same code, the largest, and none
 * before all are through: mpirun kills the others when one leaves with another code
 * than 0. */
static int run_verb(const struct verb *v, int argc, char **argv)
{
    struct err err;
    struct comm *world = comm_self();
    bool mpi = needs_mpi(v, argc, argv);
    if (mpi) {
        world = comm_start(&argc, &argv, &err);
        if (!world) {
            fprintf(stderr, "dusk %s: %s\n", v->name, err.text);
            return err.code;
        }
        static const double limits_s[WATCH_LIMITS] = {3600, 3600};
        if (comm_agree(world, watch_start(comm_watch(world), world, limits_s, &err),
                       &err)) {
            if (comm_root(world))
                fprintf(stderr, "dusk %s: %s\n", v->name, err.text);
            comm_finish(world);
            return err.code;
        }
    }
    struct log log = {comm_root(world) ? stderr : NULL};
    int64_t code = v->run(argc - 1, argv + 1, world, &log);
    int flushed = flush_output();
    if (flushed && !code)
        code = flushed;
    comm_max_i64(world, &code, 1);
    if (mpi)
        comm_finish(world);
    return (int)code;
}

int main(int argc, char **argv)
{
    mem_keep_freed();
    signal(SIGXFSZ, SIG_IGN); /* beyond ulimit -f, write(2) fails and says so */
    if (argc < 2) {
        help_program(stderr);
        return ERR_USAGE;
    }
    const char *first = argv[1];
    if (!strcmp(first, "--help") || !strcmp(first, "-h")) {
        help_program(stdout);
        return flush_output();
    }
    if (!strcmp(first, "--version")) {
        puts("dusk " PACKAGE_VERSION);
        return flush_output();
    }
    if (!strcmp(first, "--man")) {
        help_man(stdout);
        return flush_output();
    }
    const struct verb *v = find_verb(first);
    if (!v)
        return fail_unknown(first);
    if (wants_help(argc - 1, argv + 1)) {
        help_verb(stdout, v);
        return flush_output();
    }
    return run_verb(v, argc, argv);
}
