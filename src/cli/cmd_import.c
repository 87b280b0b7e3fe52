/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_import.h"
#include "src/base/clock.h"
#include "src/base/leftovers.h"
#include "src/base/mem.h"
#include "src/cli/dtype_option.h"

static const char dtypes[] = "keep|f32|bf16";

static const struct option import_options[] = {
    {"-o", "CKPT", "the checkpoint to write (required)"},
    {"--dtype", dtypes,
     "how weights are stored: as they come (keep, the default), or all in one type, "
     "rounded to nearest even"},
    {"--ignore-extra", NULL,
     "drop tensors that do not belong to the model instead of refusing them"},
    {"--force", NULL, "replace CKPT if it exists"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_import = {
    .name = "import",
    .arguments = "HFDIR -o CKPT",
    .summary = "make a checkpoint of a Hugging Face model folder",
    .description =
        "Reads config.json (Llama and Mistral classes, written by transformers 4 or "
        "5), one safetensors file or shards with an index, in F32, BF16 or F16, and "
        "writes one HDF5 file. Tokenizer and generation files travel inside it and "
        "come back with export. The folder is checked whole before a byte is written. "
        "A model whose arithmetic dusk does not compute (scaled RoPE, biases, "
        "quantised weights, ...) is refused by the name of its key.\n"
        "With keep, the layers of one kind take the widest type among them, each "
        "layer's own is recorded, and export narrows it back exactly. NaN and "
        "infinities in weights are named in warnings.\n"
        "Several ranks share the work; memory does not grow with the model. CKPT "
        "appears under its name when it is complete; what a killed import left, "
        "CKPT.tmp-*, is named by the next one.",
    .examples = "dusk import Mistral-7B-v0.1 -o base.h5\n"
                "srun -n 16 dusk import SOLAR-10.7B-v1.0 -o solar.h5",
    .options = import_options,
    .mpi = true,
    .run = run};

static int read_options(struct options *o, int argc, char **argv,
                        struct hf_import_options *h, struct err *err)
{
    if (options_read(o, &verb_import, argc, argv, 1, 1, err) ||
        dtype_option(o, dtypes, &h->keep, &h->dtype, err))
        return -1;
    h->folder = o->arg[0];
    h->output = options_text(o, "-o", NULL);
    h->ignore_extra = options_flag(o, "--ignore-extra");
    h->force = options_flag(o, "--force");
    return h->output ? 0 : err_set(err, ERR_USAGE, "-o CKPT is required");
}

static int run(int argc, char **argv, struct comm *world, const struct log *log)
{
    struct options o = {0};
    struct hf_import_options h = {0};
    struct err err;
    double start_s = clock_s();
    int rc = read_options(&o, argc, argv, &h, &err);
    if (rc == 0) {
        leftovers_warn(log, h.output);
        rc = hf_import(world, log, &h, &err);
    }
    if (rc == 0) {
        double peak = (double)mem_peak_rss_bytes();
        comm_max_f64(world, &peak, 1);
        log_line(log, "import: %s is written (%.1f s, peak memory %.0f MB a rank)",
                 h.output, clock_s() - start_s, peak / 1e6);
    }
    options_fini(&o);
    return rc ? verb_fail(&verb_import, world, &err) : 0;
}
