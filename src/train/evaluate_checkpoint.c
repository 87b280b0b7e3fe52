/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/evaluate_checkpoint.h"

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/base/progress.h"
#include "src/gemm/bf16.h"
#include "src/train/weights.h"

#include <string.h>

enum { SEQ_LEN_MAX_DEFAULT = 2048 };

struct evaluator {
    struct comm *world;
    const struct log *log;
    const struct evaluate_options *o;
    struct ckpt *ckpt, *reference;
    struct data_set set;
    struct gemm *gemm;
    struct engine *engine;
    struct layer_map map;
    int seq_len;
};

/* A reference must give its probabilities to the same ids. */
static int open_reference(struct evaluator *v, struct err *err)
{
    const char *path = v->o->reference;
    v->reference = ckpt_open(v->world, path, err);
    if (!v->reference)
        return -1;
    const struct ckpt_info *info = ckpt_info(v->ckpt), *other = ckpt_info(v->reference);
    struct model_shape shape = other->shape;
    shape.bos_id = info->shape.bos_id;
    shape.eos_id = info->shape.eos_id;
    const char *field = shape_difference(&shape, &info->shape);
    if (field)
        return err_set(err, ERR_INPUT, "%s: the reference has another %s than %s", path,
                       field, v->o->checkpoint);
    char ours[TOKENIZER_HASH_ROOM], theirs[TOKENIZER_HASH_ROOM];
    int failed = ckpt_tokenizer_hash(info, ours, sizeof ours, err) ||
                 ckpt_tokenizer_hash(other, theirs, sizeof theirs, err);
    if (comm_agree(v->world, failed, err))
        return -1;
    if (strcmp(ours, theirs) != 0)
        return err_set(
            err, ERR_INPUT, "%s: the reference's tokenizer is %s, that of %s is %s",
            path, *theirs ? theirs : "none", v->o->checkpoint, *ours ? ours : "none");
    return 0;
}

static int open_inputs(struct evaluator *v, struct err *err)
{
    const struct evaluate_options *o = v->o;
    v->ckpt = ckpt_open(v->world, o->checkpoint, err);
    if (!v->ckpt)
        return -1;
    const struct ckpt_info *info = ckpt_info(v->ckpt);
    int most = info->shape.max_positions;
    if (o->seq_len > most)
        return err_set(err, ERR_USAGE,
                       "--seq-len is %d, but %s has at most %d positions", o->seq_len,
                       o->checkpoint, most);
    v->seq_len = most < SEQ_LEN_MAX_DEFAULT ? most : SEQ_LEN_MAX_DEFAULT;
    if (o->seq_len)
        v->seq_len = o->seq_len;
    char tokenizer[TOKENIZER_HASH_ROOM];
    int failed = ckpt_tokenizer_hash(info, tokenizer, sizeof tokenizer, err);
    if (comm_agree(v->world, failed, err))
        return err_prefix(err, "%s", o->checkpoint);
    if (data_set_open(&v->set, v->world, o->tokens, &info->shape, tokenizer,
                      o->reference, err))
        return -1;
    if (v->set.records && !o->seq_len) {
        int64_t longest = record_set_info(v->set.records)->longest;
        v->seq_len = longest < most ? (int)longest : most;
    }
    if (data_set_fits(&v->set, v->seq_len, false, err))
        return -1;
    return o->reference ? open_reference(v, err) : 0;
}

static int build(struct evaluator *v, struct err *err)
{
    const struct model_shape *shape = &ckpt_info(v->ckpt)->shape;
    struct engine_spec spec = {.shape = *shape,
                               .pipeline = v->o->pipeline,
                               .seq_len = v->seq_len,
                               .batch = v->o->batch,
                               .pairs = v->o->reference,
                               .sharing = true,
                               .dtype = v->o->dtype};
    v->gemm = engine_gemm(v->world, GEMM_LEVEL_ANY, err);
    if (!v->gemm)
        return -1;
    if (v->o->dtype == DTYPE_BF16 && !gemm_bf16_fast(v->gemm))
        log_warning(v->log, "bf16 by %s is slower than fp32 here",
                    gemm_bf16_name(v->gemm));
    v->engine = engine_create(v->world, &spec, v->gemm, err);
    if (!v->engine)
        return -1;
    return comm_agree(v->world, layer_map_identity(&v->map, shape->layers, err), err);
}

static int load(struct evaluator *v, struct ckpt *k, const char *path, struct err *err)
{
    return weights_load(v->engine, k, path, &v->map, false, err);
}

static int show(void *context, double done, double total)
{
    (void)total;
    progress_at(context, done);
    return 0;
}

/* Windows, records or pairs that are run. */
static int64_t samples(const struct evaluator *v)
{
    int64_t n = evaluate_samples(&v->set, v->seq_len);
    return v->o->limit && v->o->limit < n ? v->o->limit : n;
}

/* Of one model: loads it and runs the pairs in blocks. */
static int model_logps(struct evaluator *v, struct ckpt *k, const char *path,
                       struct pair_logps *logps, struct err *err)
{
    struct pair_logps_spec spec = {.engine = v->engine,
                                   .set = &v->set,
                                   .seq_len = v->seq_len,
                                   .batch = v->o->batch};
    int64_t n = samples(v), block = pair_logps_block(&spec);
    struct progress p;
    if (load(v, k, path, err))
        return -1;
    progress_begin(&p, v->log, "eval", "pairs", (double)n, 1);
    for (int64_t done = 0; done < n; done += block) {
        int64_t here = n - done < block ? n - done : block;
        if (pair_logps(&spec, done, here, logps + done, err))
            return -1;
        progress_at(&p, (double)(done + here));
    }
    progress_end(&p);
    return 0;
}

static int run_pairs(struct evaluator *v, struct pair_figures *figures, struct err *err)
{
    const struct evaluate_options *o = v->o;
    int64_t n = samples(v);
    struct pair_logps *policy = mem_array(n, sizeof *policy, err);
    struct pair_logps *reference = mem_array(n, sizeof *reference, err);
    struct pair_sums *sums = mem_array(n, sizeof *sums, err);
    int failed = comm_agree(v->world, !policy || !reference || !sums, err) ||
                 model_logps(v, v->reference, o->reference, reference, err) ||
                 model_logps(v, v->ckpt, o->checkpoint, policy, err);
    for (int64_t i = 0; !failed && i < n; i++)
        sums[i] = (struct pair_sums){reference[i].chosen, reference[i].rejected};
    failed =
        failed ||
        comm_agree(v->world,
                   pair_figures(&o->preference, n, policy, sums, figures, err), err);
    mem_free(policy);
    mem_free(reference);
    mem_free(sums);
    return failed ? -1 : 0;
}

static int run_samples(struct evaluator *v, struct evaluation *result, struct err *err)
{
    struct progress p;
    progress_begin(&p, v->log, "eval", v->set.records ? "records" : "windows",
                   (double)samples(v), 1);
    if (evaluate(v->engine, &v->set, v->seq_len, v->o->batch, v->o->limit, show, &p,
                 result, err))
        return -1;
    progress_end(&p);
    return 0;
}

int evaluate_checkpoint(struct comm *world, const struct log *log,
                        const struct evaluate_options *o,
                        struct evaluate_report *report, struct err *err)
{
    struct evaluator v = {.world = world, .log = log, .o = o};
    double start_s = clock_s();
    *report = (struct evaluate_report){0};
    int failed = open_inputs(&v, err) || build(&v, err);
    if (!failed && !o->reference)
        failed = load(&v, v.ckpt, o->checkpoint, err);
    if (!failed) {
        double loaded_s = clock_s();
        failed = o->reference ? run_pairs(&v, &report->pairs, err)
                              : run_samples(&v, &report->result, err);
        report->seq_len = v.seq_len;
        report->records = v.set.records;
        report->layers = ckpt_info(v.ckpt)->shape.layers;
        report->load_s = loaded_s - start_s;
        report->run_s = clock_s() - loaded_s;
    }
    engine_destroy(v.engine);
    gemm_destroy(v.gemm);
    data_set_close(&v.set);
    ckpt_close(v.ckpt);
    ckpt_close(v.reference);
    layer_map_fini(&v.map);
    return failed ? -1 : 0;
}
