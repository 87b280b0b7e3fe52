/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/merge.h"
#include "src/base/clock.h"
#include "src/base/leftovers.h"
#include "src/base/mem.h"
#include "src/cli/dtype_option.h"

static const char dtypes[] = "keep|f32|bf16|f16";

static const struct option merge_options[] = {
    {"-o", "OUT", "the checkpoint to write, an .h5 file (required)"},
    {"--method", "linear|slerp",
     "linear: the weighted mean of two models or more; slerp: spherical interpolation "
     "of two (required)"},
    {"--weight", "W,W,...",
     "linear: one number for each model, divided by their sum; equal by default. A "
     "negative one leads away from its model"},
    {"--no-normalize", NULL,
     "linear: take the weights as they are, not divided by their sum"},
    {"--t", "T", "slerp: where between the two, from 0 (A) to 1 (B)"},
    {"--dtype", dtypes,
     "how weights are stored: as in A (keep, the default), or all in one type, rounded "
     "to nearest even"},
    {"--force", NULL, "replace OUT if it exists"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_merge = {
    .name = "merge",
    .arguments = "A B [C...] -o OUT --method linear|slerp",
    .summary = "average models of one shape, or interpolate between two",
    .description =
        "Merges the weights of checkpoints (files, or training checkpoints' folders) "
        "of "
        "one shape and one tokenizer, with mergekit's results: sums in fp32, rounded "
        "once to the type that is stored. Optimizers' state is left behind; tokenizer "
        "and types are A's; method, weights and sources are recorded in the result "
        "(dusk inspect --json shows all of it).\n"
        "linear is the sum of weight x model, divided by the sum of the weights. An "
        "element that is the same in all models keeps its bits.\n"
        "slerp turns each tensor (of each layer, as one vector) from A's direction to "
        "B's: weights sin((1 - T) th) / sin(th) and sin(T th) / sin(th), th the angle "
        "between the two; where they are nearly parallel or opposite, |cos th| > "
        "0.9995, the weights are 1 - T and T. It reads both models twice.\n"
        "Several ranks share the work; memory does not grow with the size of the "
        "models, and by a few MB with each more.",
    .examples = "dusk merge sft-1/checkpoints/latest sft-2/checkpoints/latest -o "
                "mean.h5 --method linear\n"
                "dusk merge a.h5 b.h5 c.h5 -o abc.h5 --method linear --weight "
                "0.5,0.3,0.2\n"
                "srun -n 8 dusk merge dpo-1.h5 dpo-2.h5 -o final.h5 --method slerp "
                "--t 0.5 --dtype bf16",
    .options = merge_options,
    .mpi = true,
    .run = run};

/* "0.3,0.7" as numbers: owned, *n of them; NULL with err set. */
static double *read_weights(const char *text, int *n, struct err *err)
{
    int64_t room = 1;
    for (const char *c = text; *c; c++)
        room += *c == ',';
    double *weight = mem_array(room, sizeof *weight, err);
    const char *at = text;
    for (*n = 0; weight && *n < room; at++) {
        char *end;
        weight[(*n)++] = strtod(at, &end);
        if (end == at || (*end != ',' && *end != '\0')) {
            err_set(err, ERR_USAGE,
                    "--weight: expected numbers with commas between them, found "
                    "\"%.100s\"",
                    text);
            mem_free(weight);
            return NULL;
        }
        at = end;
    }
    return weight;
}

/* An option of the other method is a misunderstanding. */
static int check_method(const struct options *o, const struct merge_options *m,
                        struct err *err)
{
    static const struct {
        const char *name;
        enum merge_method method;
    } owned[] = {{"--weight", MERGE_LINEAR},
                 {"--no-normalize", MERGE_LINEAR},
                 {"--t", MERGE_SLERP}};
    static const char *const method[] = {
        [MERGE_LINEAR] = "linear", [MERGE_SLERP] = "slerp"};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        if (owned[i].method != m->method && options_flag(o, owned[i].name))
            return err_set(err, ERR_USAGE, "%s belongs to --method %s, not to %s",
                           owned[i].name, method[owned[i].method], method[m->method]);
    if (m->method == MERGE_SLERP && !options_flag(o, "--t"))
        return err_set(err, ERR_USAGE, "--method slerp: expected --t T");
    return 0;
}

/* *weight is owned by the caller (mem_free), also after a failure. */
static int read_options(struct options *o, int argc, char **argv,
                        struct merge_options *m, double **weight, struct err *err)
{
    if (options_read(o, &verb_merge, argc, argv, 2, -1, err) < 0)
        return -1;
    const char *method = options_text(o, "--method", NULL);
    const char *weights = options_text(o, "--weight", NULL);
    *m = (struct merge_options){.checkpoint = o->arg,
                                .models = o->args,
                                .output = options_text(o, "-o", NULL),
                                .raw = options_flag(o, "--no-normalize"),
                                .force = options_flag(o, "--force")};
    if (!m->output)
        return err_set(err, ERR_USAGE, "expected -o OUT, the checkpoint to write");
    if (!method)
        return err_set(err, ERR_USAGE, "expected --method linear or --method slerp");
    m->method = strcmp(method, "slerp") == 0 ? MERGE_SLERP : MERGE_LINEAR;
    if (m->method == MERGE_LINEAR && strcmp(method, "linear") != 0)
        return err_set(err, ERR_USAGE,
                       "--method: expected linear or slerp, found \"%.40s\"", method);
    if (check_method(o, m, err) < 0 ||
        options_double(o, "--t", 0, 0, 1, &m->t, err) < 0 ||
        dtype_option(o, dtypes, &m->keep, &m->dtype, err) < 0)
        return -1;
    if (weights)
        m->weight = *weight = read_weights(weights, &m->weights, err);
    return weights && !*weight ? -1 : 0;
}

static void print(const struct merge_options *m, const struct merge_result *r,
                  double seconds, double peak)
{
    printf("%s: ", m->output);
    if (m->method == MERGE_LINEAR)
        printf("linear merge of %d models", m->models);
    else
        printf("slerp merge at t %g, %d of %d tensors nearly parallel and mixed "
               "linearly",
               m->t, r->lines, r->tensors);
    printf(", %lld parameters, %.2f GB in %.2f s: %.2f GB/s, peak memory %.0f MB a "
           "rank\n",
           (long long)r->parameters, (double)r->bytes / 1e9, seconds,
           (double)r->bytes / 1e9 / seconds, peak / 1e6);
}

static int run(int argc, char **argv, struct comm *world, const struct log *log)
{
    struct options o = {0};
    struct merge_options m;
    struct merge_result result = {0};
    struct err err;
    double *weight = NULL, start = clock_s();
    int rc = read_options(&o, argc, argv, &m, &weight, &err);
    if (rc == 0) {
        leftovers_warn(log, m.output);
        rc = merge(world, log, &m, &result, &err);
    }
    if (rc == 0) {
        double peak = (double)mem_peak_rss_bytes();
        comm_max_f64(world, &peak, 1);
        if (comm_root(world))
            print(&m, &result, clock_s() - start, peak);
    }
    mem_free(weight);
    options_fini(&o);
    return rc ? verb_fail(&verb_merge, world, &err) : 0;
}
