/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "io/ckpt.h"
#include "io/upscale.h"
#include "src/base/clock.h"
#include "src/base/leftovers.h"
#include "src/base/mem.h"
#include "src/cli/options.h"

static const struct option upscale_options[] = {
    {"-o", "NEW", "the checkpoint to write, an .h5 file"},
    {"--layers", "0:24,8:32",
     "the layers of the result: half-open ranges of the source's, any number of them, "
     "in any order, with any overlap"},
    {"--drop", "M",
     "depth up-scaling as SOLAR 10.7B did it: of n layers take 0:n-M, then M:n"},
    {"--preset", "solar",
     "--drop M with M a quarter of the layers: 32 become 0:24,8:32"},
    {"--seam", "mean:K",
     "average the K layers on each side of a joint with their counterparts: the layers "
     "that the other side would have had there (see above)"},
    {"--zero", "ROLES",
     "matrices of inserted copies to be zeros, such as o_proj,down_proj: see above"},
    {"--init-noise", "STD",
     "add normal noise to the other matrices of inserted copies, its standard "
     "deviation STD x the rms of the matrix"},
    {"--add-tokens", "A,B",
     "tokens that the tokenizer is to have, with a row of embed_tokens and lm_head "
     "each; none can hold a comma; may stand without --layers and --drop"},
    {"--init", "mean|zero|normal",
     "rows of new tokens: the mean of the old rows (default), zeros, or the mean plus "
     "normal noise as wide as the old rows are spread around it"},
    {"--seed", "N", "of --init normal and --init-noise (default: 0)"},
    {"--mode", "copy|link",
     "copy (default): the result stands alone; link: it holds no weights but points "
     "at those of the source, by a path relative to its own folder"},
    {"--force", NULL, "replace NEW if it exists"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_upscale = {
    .name = "upscale",
    .arguments = "CKPT -o NEW [--layers RANGES | --drop M | --preset solar] "
                 "[--add-tokens A,B]",
    .summary = "make a deeper model out of the layers of another; add tokens",
    .description =
        "Writes a checkpoint whose layers are those of CKPT in a new order, some of "
        "them more than once; embedding, final norm, head and tokenizer are taken as "
        "they are, an optimizer's state is left behind. Weights keep their bits, but "
        "for those that --seam, --zero and --init-noise change. The ranges, these "
        "choices and the source are recorded in the result (dusk inspect --map draws "
        "them).\n"
        "A joint is where the next layer is not the source's next: after layer a comes "
        "layer b. With --seam mean:K both sides go on over it for K layers and are "
        "averaged where they cross, all tensors alike, in fp32. The number of layers "
        "stays. For K = 2:\n"
        "    left side goes on       a-1    a    |  a+1   a+2\n"
        "    right side comes from   b-2    b-1  |  b     b+1\n"
        "    result                  mean   mean |  mean  mean\n"
        "Of 0:24,8:32 and mean:1, layer 23 is averaged with 7, and 8 with 24. A layer "
        "whose counterpart the source does not have stays as it is.\n"
        "An inserted copy is a layer whose source layer came before: the second 3 of "
        "0:4,3:8. With --zero o_proj,down_proj it adds nothing to what goes through "
        "it, "
        "so that the deeper model starts with the function of its source: block "
        "expansion (LLaMA Pro, arXiv 2401.02415), for ranges that hold all layers in "
        "order. In a run, train.freeze can hold the other layers still.\n"
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
        "A run file can ask for the same map without a file, model.layers, but not for "
        "--seam, --zero or --init-noise; a link cannot have them either.",
    .examples = "dusk upscale mistral-7b.h5 -o solar-base.h5 --drop 8\n"
                "dusk upscale mistral-7b.h5 -o solar-base.h5 --layers 0:24,8:32 "
                "--mode link\n"
                "dusk upscale mistral-7b.h5 -o solar-base.h5 --preset solar --seam "
                "mean:2\n"
                "dusk upscale llama.h5 -o expanded.h5 --layers 0:4,3:8,7:12 --zero "
                "o_proj,down_proj\n"
                "dusk upscale base.h5 -o chat.h5 --add-tokens "
                "'<|im_start|>,<|im_end|>'\n"
                "srun dusk upscale checkpoints/latest -o deeper.h5 --layers 0:12,4:16",
    .options = upscale_options,
    .mpi = true,
    .run = run};

/* What the layers are: at most one of three options, and one without new tokens. */
static int read_map(const struct options *o, struct upscale_options *u, struct err *err)
{
    int64_t drop;
    const char *preset = options_text(o, "--preset", NULL);
    bool drops = options_text(o, "--drop", NULL);
    int maps = (u->layers != NULL) + drops + (preset != NULL);
    if (maps > 1 || (maps == 0 && !u->add_tokens))
        return err_set(err, ERR_USAGE,
                       "expected one of --layers RANGES, --drop M and --preset solar%s",
                       maps ? "" : ", or --add-tokens A,B");
    if (preset && strcmp(preset, "solar") != 0)
        return err_set(err, ERR_USAGE, "--preset: expected solar, found \"%.100s\"",
                       preset);
    if (options_int(o, "--drop", 0, 1, 65536, &drop, err) < 0)
        return -1;
    u->drop = (int)drop;
    u->solar = preset;
    return 0;
}

/* What becomes of them. */
static int read_choices(const struct options *o, struct upscale_options *u,
                        struct err *err)
{
    double noise;
    int64_t seed;
    if (options_text(o, "--init", NULL) && !u->add_tokens)
        return err_set(err, ERR_USAGE, "--init: is for --add-tokens A,B");
    if (options_text(o, "--seed", NULL) && !u->add_tokens &&
        !options_text(o, "--init-noise", NULL))
        return err_set(err, ERR_USAGE,
                       "--seed: is for --add-tokens A,B and --init-noise STD");
    if (upscale_choices_read(&u->choices, options_text(o, "--seam", NULL),
                             options_text(o, "--zero", NULL), err) < 0 ||
        options_double(o, "--init-noise", 0, 1e-9, 100, &noise, err) < 0 ||
        options_int(o, "--seed", 0, 0, INT64_MAX, &seed, err) < 0)
        return -1;
    u->choices.init_noise = noise;
    u->choices.seed = u->seed = (uint64_t)seed;
    return 0;
}

static int read_options(struct options *o, int argc, char **argv,
                        struct upscale_options *u, struct err *err)
{
    if (options_read(o, &verb_upscale, argc, argv, 1, 1, err) < 0)
        return -1;
    const char *mode = options_text(o, "--mode", "copy");
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
    if (read_map(o, u, err) < 0 || read_choices(o, u, err) < 0 ||
        options_choice(o, "--init", inits, 3, &init, err) < 0)
        return -1;
    u->init = (enum new_rows_init)init;
    return 0;
}

static void print_choices(const struct upscale_options *u,
                          const struct upscale_result *r, const char *zeroed)
{
    if (u->choices.seam)
        printf("%d of them averaged, ", r->averaged);
    if (zeroed)
        printf("%s of %d inserted cop%s zeroed%s, ", zeroed, r->inserted,
               r->inserted == 1 ? "y" : "ies",
               r->keeps_function ? " (the function is the source's)" : "");
    if (u->choices.init_noise > 0)
        printf("noise in %d inserted cop%s, ", r->inserted,
               r->inserted == 1 ? "y" : "ies");
}

static void print(const struct upscale_options *u, const struct upscale_result *r,
                  const char *zeroed, double seconds, double peak)
{
    printf("%s: ", u->output);
    if (*r->ranges)
        printf("%d layers -> %d (%s), ", r->source_layers, r->layers, r->ranges);
    print_choices(u, r, zeroed);
    if (r->added)
        printf("%d token%s added, ids %d to %d, ", r->added, r->added == 1 ? "" : "s",
               r->vocab - r->added, r->vocab - 1);
    printf("%lld parameters, ", (long long)r->parameters);
    if (u->link)
        printf("linked to %s\n", u->checkpoint);
    else
        printf("%.2f GB in %.2f s: %.2f GB/s, peak memory %.0f MB a rank\n",
               (double)r->bytes / 1e9, seconds, (double)r->bytes / 1e9 / seconds,
               peak / 1e6);
}

static int run(int argc, char **argv, struct comm *world, const struct log *log)
{
    struct options o = {0};
    struct upscale_options u;
    struct upscale_result result = {0};
    struct err err;
    double start = clock_s();
    int rc = read_options(&o, argc, argv, &u, &err);
    if (rc == 0) {
        leftovers_warn(log, u.output);
        rc = upscale(world, log, &u, &result, &err);
    }
    if (rc == 0) {
        double peak = (double)mem_peak_rss_bytes();
        comm_max_f64(world, &peak, 1);
        if (comm_root(world))
            print(&u, &result, options_text(&o, "--zero", NULL), clock_s() - start,
                  peak);
    }
    options_fini(&o);
    return rc ? verb_fail(&verb_upscale, world, &err) : 0;
}
