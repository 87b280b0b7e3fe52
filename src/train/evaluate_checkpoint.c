/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/evaluate_checkpoint.h"

#include "src/base/clock.h"
#include "src/base/progress.h"
#include "src/gemm/bf16.h"
#include "src/train/weights.h"

enum { SEQ_LEN_MAX_DEFAULT = 2048 };

struct evaluator {
    struct comm *world;
    const struct log *log;
    const struct evaluate_options *o;
    struct ckpt *ckpt;
    struct data_set set;
    struct gemm *gemm;
    struct engine *engine;
    struct layer_map map;
    int seq_len;
};

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
    char tokenizer[33];
    ckpt_tokenizer_hash(info, tokenizer, sizeof tokenizer);
    if (data_set_open(&v->set, v->world, o->tokens, &info->shape, tokenizer, err))
        return -1;
    if (v->set.records && !o->seq_len) {
        int64_t longest = record_set_info(v->set.records)->longest;
        v->seq_len = longest < most ? (int)longest : most;
    }
    return data_set_fits(&v->set, v->seq_len, false, err);
}

static int build(struct evaluator *v, struct err *err)
{
    const struct model_shape *shape = &ckpt_info(v->ckpt)->shape;
    struct engine_spec spec = {.shape = *shape,
                               .pipeline = v->o->pipeline,
                               .seq_len = v->seq_len,
                               .batch = v->o->batch,
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
    if (comm_agree(v->world, layer_map_identity(&v->map, shape->layers, err), err))
        return -1;
    return weights_load(v->engine, v->ckpt, v->o->checkpoint, &v->map, false, err);
}

static void show(void *context, double done, double total)
{
    (void)total;
    progress_at(context, done);
}

int evaluate_checkpoint(struct comm *world, const struct log *log,
                        const struct evaluate_options *o,
                        struct evaluate_report *report, struct err *err)
{
    struct evaluator v = {.world = world, .log = log, .o = o};
    double start_s = clock_s();
    *report = (struct evaluate_report){0};
    int failed = open_inputs(&v, err) || build(&v, err);
    if (!failed) {
        double loaded_s = clock_s();
        struct progress p;
        bool records = v.set.records;
        int64_t windows = evaluate_samples(&v.set, v.seq_len);
        if (o->limit && o->limit < windows)
            windows = o->limit;
        progress_begin(&p, log, "eval", records ? "records" : "windows",
                       (double)windows, 1);
        failed = evaluate(v.engine, &v.set, v.seq_len, o->batch, o->limit, show, &p,
                          &report->result, err);
        if (!failed)
            progress_end(&p);
        report->seq_len = v.seq_len;
        report->records = records;
        report->layers = ckpt_info(v.ckpt)->shape.layers;
        report->load_s = loaded_s - start_s;
        report->run_s = clock_s() - loaded_s;
    }
    engine_destroy(v.engine);
    gemm_destroy(v.gemm);
    data_set_close(&v.set);
    ckpt_close(v.ckpt);
    layer_map_fini(&v.map);
    return failed ? -1 : 0;
}
