/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/options.h"
#include "src/train/trainer.h"

static const struct option train_options[] = {
    {"--set", "KEY=VALUE...",
     "override a key of the run file, as in --set optim.lr=3e-4; VALUE is YAML; may be "
     "repeated"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_train = {
    .name = "train",
    .arguments = "RUN.yaml",
    .summary = "train a model as a run file says, on all ranks",
    .description =
        "Trains with pipeline x data parallelism under mpirun or srun, or alone. "
        "Everything "
        "of a run lies in run.dir/run.name: metrics.jsonl, checkpoints/step-*, the "
        "resolved "
        "run.yaml, ranks.txt, and a lock while the run lives.\n"
        "The same command goes on after a stop: the newest valid checkpoint is taken "
        "(checkpoint.resume), and the result has the bits of an uninterrupted run.\n"
        "train.objective says what is learnt: every next token of token sets, or with "
        "sft the replies of record sets, or with dpo what is preferred in sets of "
        "pairs, "
        "beside a reference that is run once before the first step.\n"
        "Every step says where its time went, in metrics.jsonl and the log; "
        "log.timeline keeps some steps whole, as timeline.json and timeline.svg.\n"
        "SIGUSR1 or SIGTERM to the ranks (SIGUSR1 to mpirun) saves and exits with 75. "
        "configs/reference.yaml explains every key; dusk check validates a file "
        "without "
        "MPI.",
    .examples = "mpirun -n 4 dusk train run.yaml\n"
                "srun -n 64 dusk train run.yaml --set parallel.pipeline=16",
    .options = train_options,
    .mpi = true,
    .run = run};

static int read_sets(const struct options *o, const char *sets[OPTIONS_MAX])
{
    int n = 0;
    for (const char *s; (s = options_each(o, "--set", n)); n++)
        sets[n] = s;
    return n;
}

static int run(int argc, char **argv, struct comm *world, const struct log *log)
{
    struct err err = {0};
    struct options o;
    if (options_read(&o, &verb_train, argc, argv, 1, 1, &err))
        return verb_fail(&verb_train, world, &err);
    const char *sets[OPTIONS_MAX];
    int n = read_sets(&o, sets);
    int failed = train(world, log, o.arg[0], sets, n, &err);
    options_fini(&o);
    return failed ? verb_fail(&verb_train, world, &err) : 0;
}
