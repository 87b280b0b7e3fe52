/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/json.h"
#include "src/cli/options.h"
#include "src/train/evaluate_checkpoint.h"
#include "src/train/precision.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct option eval_options[] = {
    {"--tokens", "SET.h5", "the token or record set to predict (required)"},
    {"--seq-len", "N",
     "inputs of a window; the default is the model's max positions, at most 2048. Of "
     "records: the longest allowed; the default is the set's longest"},
    {"--pipeline", "P", "pipeline stages; ranks / P replicas share the windows (1)"},
    {"--batch", "N", "windows or records of a micro-batch (8)"},
    {"--windows", "N", "only the first N windows or records"},
    {"--precision", "fp32|bf16", "what to compute in (fp32)"},
    {"--json", NULL, "print one JSON object instead of lines"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_eval = {
    .name = "eval",
    .arguments = "CKPT --tokens SET.h5",
    .summary = "loss and perplexity of a checkpoint on a token or record set",
    .description =
        "Cuts the stream of tokens into windows of --seq-len inputs, the next token of "
        "each "
        "position as target; the last window may be short, so that every token but the "
        "first is predicted once. Of a record set each record is run alone, and the "
        "tokens that count (replies) are predicted. Computes in fp32 unless "
        "--precision says otherwise. "
        "The figures have the same bits on any number of ranks and stages.",
    .examples =
        "dusk eval base.h5 --tokens valid.h5 --seq-len 512\n"
        "mpirun -n 4 dusk eval run/checkpoints/latest --tokens valid.h5 --pipeline 2 "
        "--json",
    .options = eval_options,
    .mpi = true,
    .run = run};

static int read_numbers(const struct options *o, struct evaluate_options *e,
                        struct err *err)
{
    int64_t seq_len, pipeline, batch;
    if (options_int(o, "--seq-len", 0, 1, 1 << 24, &seq_len, err) ||
        options_int(o, "--pipeline", 1, 1, 65536, &pipeline, err) ||
        options_int(o, "--batch", 8, 1, 65536, &batch, err) ||
        options_int(o, "--windows", 0, 1, INT64_MAX, &e->limit, err))
        return -1;
    e->seq_len = (int)seq_len;
    e->pipeline = (int)pipeline;
    e->batch = (int)batch;
    e->checkpoint = o->arg[0];
    const char *precision = options_text(o, "--precision", "fp32");
    e->dtype = strcmp(precision, "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32;
    if (strcmp(precision, precision_name(e->dtype)) != 0)
        return err_set(err, ERR_USAGE, "--precision: expected fp32 or bf16, found %s",
                       precision);
    e->tokens = options_text(o, "--tokens", NULL);
    return e->tokens ? 0 : err_set(err, ERR_USAGE, "--tokens SET.h5 is required");
}

static void print_lines(const struct evaluate_report *r)
{
    const struct evaluation *v = &r->result;
    printf("loss        %.6f nats/token\n", v->loss);
    printf("perplexity  %.4f\n", v->perplexity);
    printf("nll sum     %.6f nats\n", v->nll_sum);
    printf("counted     %" PRId64 " tokens in %" PRId64 " %s %d\n", v->count,
           v->windows, r->records ? "records of at most" : "windows of", r->seq_len);
    printf("speed       %.0f tokens/s (%.2f s, and %.2f s to load)\n",
           (double)v->count / r->run_s, r->run_s, r->load_s);
}

static void print_json(const struct evaluate_report *r,
                       const struct evaluate_options *o)
{
    const struct evaluation *v = &r->result;
    struct json j = {0};
    json_begin(&j, NULL, '{');
    json_text(&j, "checkpoint", o->checkpoint);
    json_text(&j, "tokens", o->tokens);
    json_text(&j, "precision", precision_name(o->dtype));
    json_int(&j, "seq_len", r->seq_len);
    json_int(&j, "layers", r->layers);
    json_int(&j, r->records ? "records" : "windows", v->windows);
    json_double(&j, "nll_sum", v->nll_sum);
    json_int(&j, "count", v->count);
    json_double(&j, "loss", v->loss);
    json_double(&j, "perplexity", v->perplexity);
    json_double(&j, "load_s", r->load_s);
    json_double(&j, "run_s", r->run_s);
    json_double(&j, "tokens_per_s", (double)v->count / r->run_s);
    json_end(&j, '}');
    puts(j.text);
    json_fini(&j);
}

static int run(int argc, char **argv, struct comm *world, const struct log *log)
{
    struct err err = {0};
    struct options o;
    struct evaluate_options e = {0};
    struct evaluate_report report;
    if (options_read(&o, &verb_eval, argc, argv, 1, 1, &err))
        return verb_fail(&verb_eval, world, &err);
    int failed = read_numbers(&o, &e, &err) ||
                 evaluate_checkpoint(world, log, &e, &report, &err);
    bool json = options_flag(&o, "--json");
    options_fini(&o);
    if (failed)
        return verb_fail(&verb_eval, world, &err);
    if (comm_root(world)) {
        if (json)
            print_json(&report, &e);
        else
            print_lines(&report);
    }
    return 0;
}
