/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/file.h"
#include "src/base/suggest.h"
#include "src/cli/options.h"
#include "src/gemm/bf16.h"
#include "src/train/bench.h"
#include "src/train/bench_report.h"
#include "src/train/engine.h"
#include "src/train/precision.h"
#include "src/train/run_spec.h"

static const struct option bench_options[] = {
    {"--size", "slice|small|toy|tiny",
     "the model whose shapes are measured (small): slice is two layers of the 7B's "
     "width, tiny is for trying the command"},
    {"--run", "RUN.yaml",
     "model, batch, pipeline and precision of a run instead of a size"},
    {"--precision", "fp32|bf16|both",
     "both where this CPU multiplies bf16 by itself, else fp32; with --run, the run's"},
    {"--pipeline", "P", "stages of `step` (1, or the run's); the ranks are P x data"},
    {"--seconds", "S", "for each row, about (0.3)"},
    {"--folder", "DIR", "what `disk` writes to (.)"},
    {"--disk-bytes", "N", "of each rank's file in `disk` (256M)"},
    {"--memory-bytes", "N",
     "of each of three arrays in `memory` (256M), and most of an array in `net`"},
    {"--stages", "P", "of `schedule` (the ranks)"},
    {"--micro-batches", "M", "of `schedule` (4 P)"},
    {"--op-ms", "MS", "that an operation of `schedule` sleeps (20)"},
    {"--schedule", "NAME|all",
     "of `schedule`: gpipe, 1f1b, interleaved, zb-h1, zb-v (all)"},
    {"--json", "FILE", "write the rows for machines, - for standard output"},
    {"--no-profile", NULL, "do not save this machine's profile"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_bench = {
    .name = "bench",
    .arguments = "[gemm|memory|ops|step|net|disk|schedule...]",
    .summary = "measure this machine, and training steps on it",
    .description =
        "Without a section, all of them but disk and schedule.\n"
        "gemm: matrix products over the model's shapes, forward and both gradients, "
        "in each precision and by each backend, beside what stays in registers. "
        "memory: copy, triad and an update in place. ops: every other operation, in "
        "GB/s beside copy. "
        "step: "
        "whole training steps of a size or a run file, random weights and tokens, "
        "taken apart by kind of work; "
        "the share of the best product is the figure of merit. net: messages and "
        "collectives between ranks (under mpirun or srun). disk: writes with sync, "
        "reads. schedule: each pipeline schedule by the program's own runner, with "
        "operations that sleep, so that more ranks than cores time truly: a step "
        "beside "
        "the ideal of its table, and the bubble (step - operations) beside 1f1b's.\n"
        "Rows are medians with quartiles. FLOPs of a step are 6 a token for each "
        "parameter of a matrix, the head's included and the embedding's not, and 6 x "
        "layers x length x hidden for attention; what is computed again counts "
        "nothing.\n"
        "The rows are saved in ~/.cache/dusk/HOST, one file a section.",
    .examples = "dusk bench step --size toy\n"
                "srun dusk bench step --run run.yaml\n"
                "mpirun -n 2 dusk bench net step --pipeline 2 --json bench.json\n"
                "mpirun --oversubscribe -n 8 dusk bench schedule --stages 8 "
                "--micro-batches 32\n"
                "BLIS_ARCH_TYPE=3 dusk bench gemm --precision fp32",
    .options = bench_options,
    .mpi = true,
    .run = run};

static const struct section {
    const char *name;
    int (*run)(struct bench *b, struct err *err);
    bool asked; /* runs only when named */
} sections[] = {{"gemm", bench_gemm, false},       {"memory", bench_memory, false},
                {"ops", bench_ops, false},         {"step", bench_step, false},
                {"net", bench_net, false},         {"disk", bench_disk, true},
                {"schedule", bench_schedule, true}};
enum { SECTIONS = sizeof sections / sizeof *sections };

static int check_sections(const struct options *o, struct err *err)
{
    for (int i = 0; i < o->args; i++) {
        struct suggest s = suggest_for(o->arg[i]);
        bool known = false;
        for (int k = 0; k < SECTIONS; k++) {
            known = known || strcmp(o->arg[i], sections[k].name) == 0;
            suggest_try(&s, sections[k].name);
        }
        if (!known)
            return err_set(err, ERR_USAGE,
                           "no section \"%.40s\"%s%s%s; there are gemm, memory, ops, "
                           "step, net, disk and schedule",
                           o->arg[i], s.best ? ": did you mean " : "",
                           s.best ? s.best : "", s.best ? "?" : "");
    }
    return 0;
}

/* unsaid: "fp32", "bf16" or "both", where --precision is not given. */
static int read_precision(struct bench *b, const struct options *o, const char *unsaid,
                          struct err *err)
{
    const char *text = options_text(o, "--precision", unsaid);
    b->fp32 = strcmp(text, "fp32") == 0 || strcmp(text, "both") == 0;
    b->bf16 = strcmp(text, "bf16") == 0 || strcmp(text, "both") == 0;
    return b->fp32 || b->bf16
               ? 0
               : err_set(err, ERR_USAGE,
                         "--precision: expected fp32, bf16 or both, found \"%.40s\"",
                         text);
}

static int read_pipeline(struct bench *b, const struct options *o, int unsaid,
                         int layers, struct err *err)
{
    int64_t pipeline = 0;
    int failed = options_int(o, "--pipeline", unsaid, 1, layers, &pipeline, err);
    b->pipeline = (int)pipeline;
    return failed;
}

static int read_size(struct bench *b, const struct options *o, struct err *err)
{
    const char *name = options_text(o, "--size", "small");
    const struct bench_size *size = bench_size_named(name);
    if (!size)
        return err_set(err, ERR_USAGE,
                       "--size: expected slice, small, toy or tiny, found \"%.40s\"",
                       name);
    b->size = *size;
    b->schedule = RUN_1F1B;
    bool native = gemm_bf16_native() && gemm_bf16_built();
    return read_pipeline(b, o, 1, size->shape.layers, err) ||
           read_precision(b, o, native ? "both" : "fp32", err);
}

/* The same of the run file. Collective. */
static int read_run(struct bench *b, const struct options *o, const char *path,
                    struct run *run, struct err *err)
{
    struct model_shape shape = {0};
    struct engine_spec spec;
    if (options_text(o, "--size", NULL))
        return err_set(err, ERR_USAGE, "expected one of --size and --run");
    if (run_share(b->world, path, NULL, 0, run, err))
        return -1;
    int failed = comm_root(b->world) ? run_model_shape(run, &shape, err) : 0;
    if (comm_agree(b->world, failed, err))
        return -1;
    comm_bcast(b->world, &shape, sizeof shape, 0);
    if (read_pipeline(b, o, run->parallel.pipeline, shape.layers, err))
        return -1;
    if (b->pipeline != run->parallel.pipeline)
        run->parallel.data = run->parallel.split_n = 0;
    run->parallel.pipeline = b->pipeline;
    if (run_share_schedule(b->world, run, &b->schedule_text, err) ||
        run_engine_spec(run, &shape, comm_size(b->world), b->schedule_text, &spec, err))
        return -1;
    b->size = (struct bench_size){.name = run->run.name,
                                  .shape = shape,
                                  .seq_len = spec.seq_len,
                                  .micro_batch = spec.batch,
                                  .micro_batches = spec.micro_batches};
    b->schedule = run->parallel.schedule;
    b->chunks = run_chunks(run);
    b->schedule_file = run->parallel.schedule_file;
    b->node_bytes = (int64_t)(run->parallel.node_gb * 1e9);
    b->split = run->parallel.split;
    b->split_n = run->parallel.split_n;
    return read_precision(b, o, precision_name(precision_of(run)), err);
}

static int read_schedule(struct bench *b, const struct options *o, struct err *err)
{
    enum { STAGES_MAX = 4096, MICRO_BATCHES_MAX = 1 << 16 };
    static const char *const names[] = {"all",         "gpipe", "1f1b",
                                        "interleaved", "zb-h1", "zb-v"};
    int64_t stages, micro_batches;
    double op_ms;
    if (options_int(o, "--stages", comm_size(b->world), 1, STAGES_MAX, &stages, err) ||
        options_int(o, "--micro-batches", 4 * stages, 1, MICRO_BATCHES_MAX,
                    &micro_batches, err) ||
        options_double(o, "--op-ms", 20, 0.001, 60000, &op_ms, err))
        return -1;
    b->stages = (int)stages;
    b->micro_batches = (int)micro_batches;
    b->op_s = 1e-3 * op_ms;
    b->only_schedule = options_text(o, "--schedule", "all");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(b->only_schedule, names[i]) == 0)
            return 0;
    return err_set(err, ERR_USAGE,
                   "--schedule: expected gpipe, 1f1b, interleaved, zb-h1, zb-v or all, "
                   "found \"%.40s\"",
                   b->only_schedule);
}

static int read_options(struct bench *b, const struct options *o, struct run *run,
                        struct err *err)
{
    const char *path = options_text(o, "--run", NULL);
    b->folder = options_text(o, "--folder", ".");
    bool failed = check_sections(o, err) ||
                  (path ? read_run(b, o, path, run, err) : read_size(b, o, err));
    if (failed || read_schedule(b, o, err) ||
        options_int(o, "--disk-bytes", 256000000, 1, INT64_MAX / 2, &b->disk_bytes,
                    err) ||
        options_int(o, "--memory-bytes", 256000000, 1, (int64_t)1 << 40,
                    &b->array_bytes, err) ||
        options_double(o, "--seconds", 0.3, 0, 3600, &b->seconds, err))
        return -1;
    return 0;
}

static bool wanted(const struct options *o, const struct section *s)
{
    for (int i = 0; i < o->args; i++)
        if (strcmp(o->arg[i], s->name) == 0)
            return true;
    return o->args == 0 && !s->asked;
}

static int write_json(const struct bench *b, const char *path, struct err *err)
{
    struct json j = {0};
    int failed = 0;
    bench_json(b, NULL, &j);
    if (strcmp(path, "-") == 0)
        puts(j.text);
    else
        failed = file_write_atomic(path, j.text, strlen(j.text), err);
    json_fini(&j);
    return failed;
}

/* Rank 0 */
static int report(const struct bench *b, const struct options *o, struct err *err)
{
    const char *json = options_text(o, "--json", NULL);
    char *folder = NULL;
    int failed = 0;
    if (!json || strcmp(json, "-") != 0)
        bench_print(b, stdout);
    if (json)
        failed = write_json(b, json, err);
    if (!failed && !options_flag(o, "--no-profile"))
        failed = bench_save_profile(b, &folder, err);
    if (folder && !failed)
        log_line(b->log, "saved in %s", folder);
    free(folder);
    return failed;
}

static int bench(struct bench *b, const struct options *o, struct err *err)
{
    b->gemm = engine_gemm(b->world, GEMM_LEVEL_ANY, err);
    if (!b->gemm)
        return -1;
    int failed = 0;
    for (int i = 0; !failed && i < SECTIONS; i++)
        if (wanted(o, &sections[i])) {
            log_line(b->log, "measuring %s", sections[i].name);
            failed = sections[i].run(b, err);
        }
    if (!failed)
        failed = comm_agree(b->world, comm_root(b->world) ? report(b, o, err) : 0, err);
    gemm_destroy(b->gemm);
    bench_fini(b);
    return failed;
}

static int run(int argc, char **argv, struct comm *world, const struct log *log)
{
    struct options o = {0};
    struct bench b = {.world = world, .log = log};
    struct run of = {0};
    struct err err;
    int failed = options_read(&o, &verb_bench, argc, argv, 0, -1, &err) ||
                 read_options(&b, &o, &of, &err) || bench(&b, &o, &err);
    run_fini(&of);
    options_fini(&o);
    return failed ? verb_fail(&verb_bench, world, &err) : 0;
}
