/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/json.h"
#include "src/cli/options.h"
#include "src/train/evaluate_checkpoint.h"
#include "src/train/precision.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct option eval_options[] = {
    {"--tokens", "SET.h5", "the token set, record set or set of pairs (required)"},
    {"--seq-len", "N",
     "inputs of a window; the default is the model's max positions, at most 2048. Of "
     "records: the longest allowed; the default is the set's longest"},
    {"--pipeline", "P", "pipeline stages; ranks / P replicas share the windows (1)"},
    {"--batch", "N", "windows or records of a micro-batch (8)"},
    {"--windows", "N", "only the first N windows, records or pairs"},
    {"--reference", "CKPT",
     "of a set of pairs: the model that log-ratios are to (required there)"},
    {"--loss", "NAME", "of pairs: the loss, as dpo.loss of a run file (sigmoid)"},
    {"--beta", "B", "of pairs: the factor of log-ratios, as dpo.beta (0.1)"},
    {"--precision", "fp32|bf16", "what to compute in (fp32)"},
    {"--json", NULL, "print one JSON object instead of lines"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_eval = {
    .name = "eval",
    .arguments = "CKPT --tokens SET.h5",
    .summary = "loss of a checkpoint on a token set, record set or set of pairs",
    .description =
        "Cuts the stream of tokens into windows of --seq-len inputs, the next token of "
        "each "
        "position as target; the last window may be short, so that every token but the "
        "first is predicted once. Of a record set each record is run alone, and the "
        "tokens that count (replies) are predicted. Of a set of pairs, with "
        "--reference, "
        "come the figures of preference tuning: loss, rewards (beta times the "
        "log-ratio "
        "of model and reference), the accuracy with its standard error (a pair is "
        "right "
        "if the chosen answer has the greater reward) and log-probabilities. Computes "
        "in fp32 unless "
        "--precision says otherwise. "
        "The figures have the same bits on any number of ranks and stages.",
    .examples =
        "dusk eval base.h5 --tokens valid.h5 --seq-len 512\n"
        "mpirun -n 4 dusk eval run/checkpoints/latest --tokens valid.h5 --pipeline 2 "
        "--json\n"
        "dusk eval dpo/checkpoints/latest --tokens pairs.valid.h5 --reference sft.h5",
    .options = eval_options,
    .mpi = true,
    .run = run};

static int read_preference(const struct options *o, struct evaluate_options *e,
                           struct err *err)
{
    struct preference_settings *p = &e->preference;
    const char *loss = options_text(o, "--loss", NULL);
    e->reference = options_text(o, "--reference", NULL);
    if (!e->reference && (loss || options_text(o, "--beta", NULL)))
        return err_set(err, ERR_USAGE, "--loss and --beta: expected with --reference");
    p->discopop_tau = 0.05;
    if (preference_find(loss ? loss : "sigmoid", &p->loss, err) ||
        options_double(o, "--beta", 0.1, 0, 1e9, &p->beta, err))
        return -1;
    return preference_check(p, err)
               ? err_prefix(err, "--loss %s", loss ? loss : "sigmoid")
               : 0;
}

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
    if (!e->tokens)
        return err_set(err, ERR_USAGE, "--tokens SET.h5 is required");
    return read_preference(o, e, err);
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

static void print_pair_lines(const struct evaluate_report *r)
{
    const struct pair_figures *v = &r->pairs;
    const double *mean = v->mean;
    printf("loss        %.6f\n", mean[PREFERENCE_METRIC_LOSS]);
    printf("accuracy    %.4f +- %.4f of %" PRId64 " pairs\n",
           mean[PREFERENCE_METRIC_REWARDS_ACCURACIES], v->accuracy_error, v->pairs);
    printf("margin      %.6f (rewards: chosen %.6f, rejected %.6f)\n",
           mean[PREFERENCE_METRIC_REWARDS_MARGINS],
           mean[PREFERENCE_METRIC_REWARDS_CHOSEN],
           mean[PREFERENCE_METRIC_REWARDS_REJECTED]);
    printf("log-probs   chosen %.4f, rejected %.4f nats an answer\n",
           mean[PREFERENCE_METRIC_LOGPS_CHOSEN],
           mean[PREFERENCE_METRIC_LOGPS_REJECTED]);
    printf("log-ratios  chosen %.6f, rejected %.6f nats a token\n",
           mean[PREFERENCE_METRIC_LOGRATIO_CHOSEN],
           mean[PREFERENCE_METRIC_LOGRATIO_REJECTED]);
    printf("speed       %.1f pairs/s (%.2f s, with both loads)\n",
           (double)v->pairs / r->run_s, r->run_s);
}

static void print_pair_json(const struct evaluate_report *r,
                            const struct evaluate_options *o)
{
    const struct pair_figures *v = &r->pairs;
    struct json j = {0};
    char key[64];
    json_begin(&j, NULL, '{');
    json_text(&j, "checkpoint", o->checkpoint);
    json_text(&j, "reference", o->reference);
    json_text(&j, "tokens", o->tokens);
    json_text(&j, "precision", precision_name(o->dtype));
    json_text(&j, "loss_type", preference_names[o->preference.loss]);
    json_double(&j, "beta", o->preference.beta);
    json_int(&j, "seq_len", r->seq_len);
    json_int(&j, "layers", r->layers);
    json_int(&j, "pairs", v->pairs);
    for (int i = 0; i < PREFERENCE_METRICS; i++) {
        snprintf(key, sizeof key, "eval_%s", preference_metric_names[i]);
        json_double(&j, key, v->mean[i]);
    }
    json_double(&j, "eval_rewards/accuracies_error", v->accuracy_error);
    json_double(&j, "run_s", r->run_s);
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
    if (!comm_root(world))
        return 0;
    if (e.reference && json)
        print_pair_json(&report, &e);
    else if (e.reference)
        print_pair_lines(&report);
    else if (json)
        print_json(&report, &e);
    else
        print_lines(&report);
    return 0;
}
