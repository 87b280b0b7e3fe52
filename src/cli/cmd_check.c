/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/cli/check_memory.h"
#include "src/cli/check_schedule.h"
#include "src/cli/options.h"
#include "src/config/run.h"
#include "src/config/schema.h"
#include "src/train/dpo.h"
#include "src/train/precision.h"
#include "src/train/run_spec.h"

static const struct option check_options[] = {
    {"--set", "a.b=VALUE...",
     "override a key of the run file, as train does; VALUE is YAML, so null unsets"},
    {"--print", NULL, "print the whole run as it was understood, defaults included"},
    {"--memory", NULL,
     "print where the memory of every rank will go; opens model.init for its shape"},
    {"--schedule", NULL,
     "draw the pipeline's schedule of a step, with its length, bubble and "
     "micro-batches "
     "alive, where forward, input and weight gradient take one unit of time each"},
    {"--svg", "FILE", "draw --schedule to this file instead, as a picture"},
    {"--csv", "FILE",
     "write the table of --schedule to this file instead, in the form that "
     "parallel.schedule: FILE.csv reads"},
    {"--ranks", "N", "of the job, for --memory and --schedule (pipeline x data)"},
    {"--reference", NULL, "print every key with its explanation; takes no RUN.yaml"},
    {"--precision", NULL,
     "print bf16 or fp32, whichever is faster on this CPU; takes no RUN.yaml"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_check = {
    .name = "check",
    .arguments = "RUN.yaml",
    .summary = "validate a run file without running it",
    .description =
        "Reads the file as train does: an unknown key, a key given twice, a wrong "
        "type, a value out of range or a combination that cannot work is one line, "
        "FILE:LINE:COLUMN, what was expected and what was found, with exit code 2. "
        "Files that the run names are not opened (but for --memory, and a schedule's "
        "table for --schedule).\n"
        "If all is well, it says what the run is.",
    .examples =
        "dusk check run.yaml\n"
        "dusk check run.yaml --set optim.lr=2e-5 --set train.steps=100 --print\n"
        "dusk check run.yaml --memory --ranks 64\n"
        "dusk check run.yaml --schedule --set parallel.schedule=zb-h1\n"
        "dusk check run.yaml --schedule --ranks 8 --svg schedule.svg\n"
        "dusk check run.yaml --schedule --set parallel.schedule=zb-v --csv mine.csv\n"
        "dusk check --reference > reference.yaml\n"
        "dusk train run.yaml --set train.precision=$(dusk check --precision)",
    .options = check_options,
    .run = run};

enum { SETS_MAX = OPTIONS_MAX };

static int print_text(char *text)
{
    if (!text)
        return -1;
    fputs(text, stdout);
    free(text);
    return 0;
}

static void print_step(const struct run *r, int64_t steps)
{
    int64_t tokens = (int64_t)r->train.global_batch * r->data.seq_len;
    if (r->train.objective != RUN_PRETRAIN)
        printf("%d %s of at most %d tokens, ", r->train.global_batch,
               r->data.packing                 ? "packs"
               : r->train.objective == RUN_SFT ? "records"
                                               : "pairs",
               r->data.seq_len);
    else
        printf("%d x %d = %" PRId64 " tokens, ", r->train.global_batch, r->data.seq_len,
               tokens);
    if (steps && r->train.objective == RUN_PRETRAIN)
        printf("%.4g tokens in all, ", (double)steps * (double)tokens);
}

static void print_summary(const char *path, const struct run *r)
{
    int64_t steps = run_steps(r, 0);
    printf("%s: run %s: %s%s%s, ", path, r->run.name,
           r->model.init ? r->model.init : "random weights",
           r->model.layers ? " with layers " : "",
           r->model.layers ? r->model.layers : "");
    if (steps)
        printf("%" PRId64 " steps of ", steps);
    else
        printf("%.4g epoch%s in steps of ", r->train.epochs,
               r->train.epochs > 1 ? "s" : "");
    print_step(r, steps);
    char chunks[32] = "";
    if (run_chunks(r) > 1)
        snprintf(chunks, sizeof chunks, " (%d chunks a rank)", run_chunks(r));
    if (r->parallel.data)
        printf("pipeline %d%s x data %d = %" PRId64 " ranks\n", r->parallel.pipeline,
               chunks, r->parallel.data,
               (int64_t)r->parallel.pipeline * r->parallel.data);
    else
        printf("pipeline %d%s x data (ranks / %d)\n", r->parallel.pipeline, chunks,
               r->parallel.pipeline);
}

/* The names in train.freeze, where the file itself says what the model is. */
static int check_freeze(const struct run *r, struct err *err)
{
    struct model_shape shape;
    struct freeze freeze = run_freeze(r);
    if (r->model.init || !freeze.patterns)
        return 0;
    return run_model_shape(r, &shape, err) || freeze_check(&freeze, &shape, err) ? -1
                                                                                 : 0;
}

static int check(const struct options *o, struct err *err)
{
    const char *sets[SETS_MAX], *path = o->arg[0];
    int n = 0;
    int64_t ranks;
    if (options_int(o, "--ranks", 0, 1, INT32_MAX, &ranks, err))
        return -1;
    while (n < SETS_MAX && (sets[n] = options_each(o, "--set", n)))
        n++;
    struct run r;
    if (run_read(&r, path, sets, n, err) < 0)
        return -1;
    struct preference_settings preference;
    int rc = precision_check_program(&r, err) || dpo_settings(&r, &preference, err) ||
             check_freeze(&r, err);
    if (rc)
        err_prefix(err, "%s", path);
    else if (options_flag(o, "--print"))
        rc = print_text(run_format(&r, err));
    else if (options_flag(o, "--memory"))
        rc = check_memory(&r, ranks, err);
    else if (options_flag(o, "--schedule"))
        rc = check_schedule(&r, ranks, options_text(o, "--svg", NULL),
                            options_text(o, "--csv", NULL), err);
    else
        print_summary(path, &r);
    run_fini(&r);
    return rc ? -1 : 0;
}

static int read_options(struct options *o, int argc, char **argv, struct err *err)
{
    if (options_read(o, &verb_check, argc, argv, 0, 1, err) < 0)
        return -1;
    int alone = options_flag(o, "--reference") + options_flag(o, "--precision");
    if (alone > 1)
        return err_set(err, ERR_USAGE, "expected one of --reference and --precision");
    if (alone == (o->args == 1))
        return err_set(err, ERR_USAGE,
                       alone ? "--reference and --precision take no RUN.yaml"
                             : "expected RUN.yaml (see dusk check --help)");
    if (options_flag(o, "--memory") + options_flag(o, "--schedule") +
            options_flag(o, "--print") >
        1)
        return err_set(err, ERR_USAGE,
                       "expected one of --print, --memory and --schedule");
    if (options_text(o, "--svg", NULL) && !options_flag(o, "--schedule"))
        return err_set(err, ERR_USAGE, "--svg goes with --schedule");
    if (options_text(o, "--csv", NULL) && !options_flag(o, "--schedule"))
        return err_set(err, ERR_USAGE, "--csv goes with --schedule");
    return 0;
}

static int print_what_is_asked(const struct options *o, struct err *err)
{
    if (options_flag(o, "--reference"))
        return print_text(schema_reference(err));
    puts(precision_name(precision_here()));
    return 0;
}

static int run(int argc, char **argv, struct comm *world, const struct log *log)
{
    struct options o = {0};
    struct err err;
    (void)log;
    int rc = read_options(&o, argc, argv, &err);
    if (rc == 0)
        rc = o.args ? check(&o, &err) : print_what_is_asked(&o, &err);
    options_fini(&o);
    return rc ? verb_fail(&verb_check, world, &err) : 0;
}
