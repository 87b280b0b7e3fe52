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
    {"--mode", "copy|link",
     "copy (default): the result stands alone; link: it holds no weights but points "
     "at those of the source, by a path relative to its own folder"},
    {"--force", NULL, "replace NEW if it exists"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_upscale = {
    .name = "upscale",
    .arguments = "CKPT -o NEW (--layers RANGES | --drop M)",
    .summary = "make a deeper model out of the layers of another",
    .description =
        "Writes a checkpoint whose layers are those of CKPT in a new order, some of "
        "them more than once; embedding, final norm, head and tokenizer are taken as "
        "they are, an optimizer's state is left behind. Weights keep their bits. The "
        "ranges and the source are recorded in the result (dusk inspect shows them).\n"
        "A link is read by dusk, h5py and h5dump as if it held the weights. It works "
        "for as long as its source keeps its place beside it and its content; both "
        "may be moved together.\n"
        "A run file can ask for the same map without a file: model.layers.",
    .examples = "dusk upscale mistral-7b.h5 -o solar-base.h5 --drop 8\n"
                "dusk upscale mistral-7b.h5 -o solar-base.h5 --layers 0:24,8:32 "
                "--mode link\n"
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
    int64_t drop;
    *u = (struct upscale_options){.checkpoint = o->arg[0],
                                  .output = options_text(o, "-o", NULL),
                                  .layers = options_text(o, "--layers", NULL),
                                  .link = strcmp(mode, "link") == 0,
                                  .force = options_flag(o, "--force")};
    if (!u->output)
        return err_set(err, ERR_USAGE, "expected -o NEW, the checkpoint to write");
    if (!u->link && strcmp(mode, "copy") != 0)
        return err_set(err, ERR_USAGE, "--mode: expected copy or link, found \"%s\"",
                       mode);
    if (!u->layers == !options_text(o, "--drop", NULL))
        return err_set(err, ERR_USAGE, "expected one of --layers RANGES and --drop M");
    if (options_int(o, "--drop", 0, 1, 65536, &drop, err) < 0)
        return -1;
    u->drop = (int)drop;
    return 0;
}

static void print(const struct upscale_options *u, const struct upscale_result *r,
                  double seconds)
{
    printf("%s: %d layers -> %d (%s), %lld parameters, ", u->output, r->source_layers,
           r->layers, r->ranges, (long long)r->parameters);
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
