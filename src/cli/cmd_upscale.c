/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "io/ckpt.h"
#include "io/upscale.h"
#include "src/base/clock.h"
#include "src/cli/options.h"

static const struct option upscale_options[] = {
    {"-o", "NEW", "the checkpoint to write, an .h5 file"},
    {"--layers", "0:24,8:32",
     "the layers of the result: half-open ranges of the source's, any number of them, "
     "in any order, with any overlap"},
    {"--drop", "M",
     "depth up-scaling as SOLAR 10.7B did it: of n layers take 0:n-M, then M:n"},
    {"--add-tokens", "A,B",
     "tokens that the tokenizer is to have, with a row of embed_tokens and lm_head "
     "each; none can hold a comma; may stand without --layers and --drop"},
    {"--init", "mean|zero|normal",
     "rows of new tokens: the mean of the old rows (default), zeros, or the mean plus "
     "normal noise as wide as the old rows are spread around it"},
    {"--seed", "N", "of --init normal (default: 0)"},
    {"--mode", "copy|link",
     "copy (default): the result stands alone; link: it holds no weights but points "
     "at those of the source, by a path relative to its own folder"},
    {"--force", NULL, "replace NEW if it exists"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_upscale = {
    .name = "upscale",
    .arguments = "CKPT -o NEW [--layers RANGES | --drop M] [--add-tokens A,B]",
    .summary = "make a deeper model out of the layers of another; add tokens",
    .description =
        "Writes a checkpoint whose layers are those of CKPT in a new order, some of "
        "them more than once; embedding, final norm, head and tokenizer are taken as "
        "they are, an optimizer's state is left behind. Weights keep their bits. The "
        "ranges and the source are recorded in the result (dusk inspect shows them).\n"
        "A link is read by dusk, h5py and h5dump as if it held the weights. It works "
        "for as long as its source keeps its place beside it and its content; both "
        "may be moved together.\n"
        "Tokens of --add-tokens get the ids from vocab_size on, which grows by their "
        "number and is not padded; dusk and transformers cut text at them. They go "
        "into "
        "the checkpoint's tokenizer files (added_tokens.json, tokenizer_config.json, "
        "tokenizer.json), from which dusk export writes them. Rows that had no token, "
        "of a padded vocabulary, become <unused_ID>, so that transformers numbers the "
        "new ones alike. A link cannot have new tokens.\n"
        "A run file can ask for the same map without a file: model.layers.",
    .examples = "dusk upscale mistral-7b.h5 -o solar-base.h5 --drop 8\n"
                "dusk upscale mistral-7b.h5 -o solar-base.h5 --layers 0:24,8:32 "
                "--mode link\n"
                "dusk upscale base.h5 -o chat.h5 --add-tokens "
                "'<|im_start|>,<|im_end|>'\n"
                "srun dusk upscale checkpoints/latest -o deeper.h5 --layers 0:12,4:16",
    .options = upscale_options,
    .mpi = true,
    .run = run};

static int read_options(struct options *o, int argc, char **argv,
                        struct upscale_options *u, struct err *err)
{
    if (options_read(o, &verb_upscale, argc, argv, 1, 1, err) < 0)
        return -1;
    const char *mode = options_text(o, "--mode", "copy");
    int64_t drop, seed;
    static const char *const inits[] = {"mean", "zero", "normal"};
    int init;
    *u = (struct upscale_options){.checkpoint = o->arg[0],
                                  .output = options_text(o, "-o", NULL),
                                  .layers = options_text(o, "--layers", NULL),
                                  .add_tokens = options_text(o, "--add-tokens", NULL),
                                  .link = strcmp(mode, "link") == 0,
                                  .force = options_flag(o, "--force")};
    if (!u->output)
        return err_set(err, ERR_USAGE, "expected -o NEW, the checkpoint to write");
    if (!u->link && strcmp(mode, "copy") != 0)
        return err_set(err, ERR_USAGE, "--mode: expected copy or link, found \"%s\"",
                       mode);
    bool layers = u->layers, drops = options_text(o, "--drop", NULL);
    if ((layers && drops) || (!layers && !drops && !u->add_tokens))
        return err_set(err, ERR_USAGE, "expected one of --layers RANGES and --drop M%s",
                       layers ? "" : ", or --add-tokens A,B");
    for (int i = 0; i < 2 && !u->add_tokens; i++)
        if (options_text(o, i ? "--seed" : "--init", NULL))
            return err_set(err, ERR_USAGE, "%s: is for --add-tokens A,B",
                           i ? "--seed" : "--init");
    if (options_choice(o, "--init", inits, 3, &init, err) < 0 ||
        options_int(o, "--seed", 0, 0, INT64_MAX, &seed, err) < 0 ||
        options_int(o, "--drop", 0, 1, 65536, &drop, err) < 0)
        return -1;
    u->drop = (int)drop;
    u->init = (enum new_rows_init)init;
    u->seed = (uint64_t)seed;
    return 0;
}

static void print(const struct upscale_options *u, const struct upscale_result *r,
                  double seconds)
{
    printf("%s: ", u->output);
    if (*r->ranges)
        printf("%d layers -> %d (%s), ", r->source_layers, r->layers, r->ranges);
    if (r->added)
        printf("%d token%s added, ids %d to %d, ", r->added, r->added == 1 ? "" : "s",
               r->vocab - r->added, r->vocab - 1);
    printf("%lld parameters, ", (long long)r->parameters);
    if (u->link)
        printf("linked to %s\n", u->checkpoint);
    else
        printf("%.2f GB in %.2f s: %.2f GB/s\n", (double)r->bytes / 1e9, seconds,
               (double)r->bytes / 1e9 / seconds);
}

static int run(int argc, char **argv, struct comm *world, const struct log *log)
{
    struct options o = {0};
    struct upscale_options u;
    struct upscale_result result = {0};
    struct err err;
    double start = clock_s();
    int rc = read_options(&o, argc, argv, &u, &err);
    if (rc == 0)
        rc = upscale(world, log, &u, &result, &err);
    if (rc == 0 && comm_root(world))
        print(&u, &result, clock_s() - start);
    options_fini(&o);
    return rc ? verb_fail(&verb_upscale, world, &err) : 0;
}
