/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_export.h"
#include "src/base/clock.h"
#include "src/base/leftovers.h"
#include "src/base/mem.h"
#include "src/cli/dtype_option.h"

static const char dtypes[] = "keep|f32|bf16|f16";
static const int64_t shard_bytes_default = 5000000000; /* Hugging Face's */

static const struct option export_options[] = {
    {"-o", "HFDIR", "the folder to write (required)"},
    {"--dtype", dtypes,
     "the type of the weights: as the checkpoint has them, narrowed back where import "
     "had to widen (keep, the default), or all in one type, rounded to nearest even"},
    {"--shard-bytes", "N",
     "most bytes of tensors in one file (5e9); a larger tensor has a file of its own"},
    {"--force", NULL, "replace HFDIR if it holds a model"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_export = {
    .name = "export",
    .arguments = "CKPT -o HFDIR",
    .summary = "make a Hugging Face model folder of a checkpoint",
    .description =
        "Writes config.json (for transformers 4 and 5), model.safetensors or shards "
        "with an index, and the tokenizer and generation files that the checkpoint "
        "carries. Import and then export with the same type gives every tensor byte "
        "for byte. CKPT is a file, or the folder of a training checkpoint.\n"
        "A model trained on records gets their chat template (chat_template in "
        "tokenizer_config.json) and the template's EOS (config.json, "
        "generation_config.json, and tokenizer_config.json for an added token).\n"
        "The folder appears under its name when it is complete. Several ranks share "
        "the work.",
    .examples = "dusk export solar.h5 -o SOLAR-again\n"
                "mpirun -n 2 dusk export run/checkpoints/latest -o out --dtype bf16",
    .options = export_options,
    .mpi = true,
    .run = run};

static int read_options(struct options *o, int argc, char **argv,
                        struct hf_export_options *h, struct err *err)
{
    if (options_read(o, &verb_export, argc, argv, 1, 1, err) ||
        dtype_option(o, dtypes, &h->keep, &h->dtype, err) ||
        options_int(o, "--shard-bytes", shard_bytes_default, 1, INT64_MAX,
                    &h->shard_bytes, err))
        return -1;
    h->checkpoint = o->arg[0];
    h->output = options_text(o, "-o", NULL);
    h->force = options_flag(o, "--force");
    return h->output ? 0 : err_set(err, ERR_USAGE, "-o HFDIR is required");
}

static int run(int argc, char **argv, struct comm *world, const struct log *log)
{
    struct options o = {0};
    struct hf_export_options h = {0};
    struct err err;
    double start_s = clock_s();
    int rc = read_options(&o, argc, argv, &h, &err);
    if (rc == 0) {
        leftovers_warn(log, h.output);
        rc = hf_export(world, log, &h, &err);
    }
    if (rc == 0) {
        double peak = (double)mem_peak_rss_bytes();
        comm_max_f64(world, &peak, 1);
        log_line(log, "export: %s is written (%.1f s, peak memory %.0f MB a rank)",
                 h.output, clock_s() - start_s, peak / 1e6);
    }
    options_fini(&o);
    return rc ? verb_fail(&verb_export, world, &err) : 0;
}
