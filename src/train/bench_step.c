/* SPDX-License-Identifier: Apache-2.0 */
/* Training steps of a random model on random tokens, taken apart by kind of work. */
#include "src/train/bench.h"

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/base/rng.h"
#include "src/base/tally.h"
#include "src/train/engine.h"
#include "src/train/memory_plan.h"
#include "src/train/run_spec.h"
#include "src/train/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_STEPS = 2, LEAST_STEPS = 3 };

/* The parts of a step's seconds, on one rank; they add up to it. */
enum part { PRODUCTS, ATTENTION, OTHER, OPTIMIZER, WAITING, PARTS };
static const char *const part_names[PARTS] = {
    "matrix products", "attention", "other operations", "optimizer", "waiting"};

struct step {
    double seconds, part[PARTS];
};

struct run_step {
    struct bench *b;
    struct engine *engine;
    struct memory_plan plan;
    struct tally tally;
    struct batch *batches; /* [micro_batches] */
    double *nll;           /* [micro_batches][micro_batch] */
    int64_t counted;       /* of all replicas */
    int64_t t;
};

static int batches_init(struct run_step *r, struct err *err)
{
    const struct bench_size *z = &r->b->size;
    int windows = z->micro_batch, seq_len = z->seq_len;
    int replica = engine_grid(r->engine)->replica;
    r->batches = mem_array(z->micro_batches, sizeof *r->batches, err);
    r->nll = mem_array((int64_t)z->micro_batches * windows, sizeof *r->nll, err);
    int64_t n = (int64_t)windows * (seq_len + 1);
    int32_t *tokens = mem_array(n, sizeof *tokens, err);
    int failed = !r->batches || !r->nll || !tokens;
    for (int i = 0; !failed && i < z->micro_batches; i++) {
        uint64_t stream = (uint64_t)(replica * z->micro_batches + i);
        for (int64_t j = 0; j < n; j++)
            tokens[j] =
                (int32_t)(rng_u64(7, stream, (uint64_t)j) % (uint64_t)z->shape.vocab);
        failed = batch_init(&r->batches[i], windows * seq_len, windows, err);
        if (!failed)
            pretrain_fill(&r->batches[i], windows, seq_len, NULL, tokens);
    }
    mem_free(tokens);
    r->counted =
        (int64_t)z->micro_batches * windows * seq_len * engine_grid(r->engine)->data;
    return failed ? -1 : 0;
}

static void batches_fini(struct run_step *r)
{
    for (int i = 0; r->batches && i < r->b->size.micro_batches; i++)
        batch_fini(&r->batches[i]);
    mem_free(r->batches);
    mem_free(r->nll);
}

/* -1: the loss or the gradient is not finite. */
static int one_step(struct run_step *r, struct step *s)
{
    struct zero_step z = {
        .adamw = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1},
        .t = ++r->t,
        .lr = 1e-4,
        .clip = 1.0};
    double wait_s = 0, loss = 0;
    r->tally = (struct tally){0};
    comm_barrier(r->b->world);
    double begin = clock_s();
    engine_pass(r->engine, r->batches,
                &(struct engine_objective){.counted = r->counted}, r->nll, &wait_s);
    double passed = clock_s();
    for (int i = 0; i < r->b->size.micro_batches * r->b->size.micro_batch; i++)
        loss += r->nll[i];
    comm_sum_f64(r->b->world, &loss, 1);
    double agreed = clock_s(), products = r->tally.seconds[TALLY_GEMM];
    double attention = r->tally.seconds[TALLY_ATTENTION];
    double packed = r->tally.seconds[TALLY_PACKING]; /* in the pass */
    engine_update(r->engine, &z);
    double end = clock_s();
    s->seconds = end - begin;
    s->part[PRODUCTS] = products;
    s->part[ATTENTION] = attention;
    s->part[WAITING] = wait_s + (agreed - passed) + z.wait_s;
    double packing = r->tally.seconds[TALLY_PACKING] - packed;
    s->part[OPTIMIZER] = end - agreed - z.wait_s - packing;
    s->part[OTHER] = passed - begin - wait_s - products - attention + packing;
    return isfinite(loss) && z.finite ? 0 : -1;
}

/* Means over the ranks, the same on all. */
static void average(struct comm *world, struct step *s)
{
    double x[PARTS + 1] = {s->seconds};
    memcpy(x + 1, s->part, sizeof s->part);
    comm_sum_f64(world, x, PARTS + 1);
    s->seconds = x[0] / comm_size(world);
    for (int i = 0; i < PARTS; i++)
        s->part[i] = x[i + 1] / comm_size(world);
}

static int by_seconds(const void *a, const void *b)
{
    double x = ((const struct step *)a)->seconds, y = ((const struct step *)b)->seconds;
    return (x > y) - (x < y);
}

/* Every step at least 3, for about 10 times the seconds of a row. */
static int sample_steps(struct run_step *r, struct step *steps, int *n, struct err *err)
{
    double spent = 0;
    *n = 0;
    for (int i = 0; *n < BENCH_SAMPLES; i++) {
        struct step s;
        int failed = one_step(r, &s);
        if (failed)
            err_set(err, ERR_NUMERIC, "bench step: loss or gradient is not finite");
        if (comm_agree(r->b->world, failed, err))
            return -1;
        average(r->b->world, &s);
        if (i < WARM_STEPS)
            continue;
        steps[(*n)++] = s;
        spent += s.seconds;
        if (*n >= LEAST_STEPS && spent >= 10 * r->b->seconds)
            break;
    }
    return 0;
}

static void rows(struct bench *b, const struct run_step *r, struct step *steps, int n,
                 double gemm_rate)
{
    double x[BENCH_SAMPLES];
    for (int i = 0; i < n; i++)
        x[i] = steps[i].seconds;
    qsort(steps, (size_t)n, sizeof *steps, by_seconds);
    const struct step *middle = &steps[(n - 1) / 2];
    struct bench_value s = bench_value_of(x, n);
    double tokens = (double)r->counted;
    double flops = bench_step_flops(&b->size.shape, b->size.seq_len, tokens);
    struct bench_value rate = bench_rate(s, flops * 1e-9);
    bench_add(b, "step", "s", s, -1, NULL);
    bench_add(b, "tokens", "1/s", bench_rate(s, tokens), -1, NULL);
    bench_add(b, "arithmetic", "GFLOP/s", rate, rate.median / gemm_rate, "gemm");
    for (int i = 0; i < PARTS; i++)
        bench_add(b, part_names[i], "ms", bench_one(middle->part[i] * 1e3),
                  middle->part[i] / middle->seconds, "step");
    bench_add(b, "peak memory of a rank", "GB",
              bench_one((double)mem_peak_rss_bytes() * 1e-9), -1, NULL);
    bench_add(b, "planned memory of a rank", "GB",
              bench_one((double)memory_plan_total(&r->plan) * 1e-9), -1, NULL);
}

static int measure(struct bench *b, bool bf16, struct err *err)
{
    const struct bench_size *z = &b->size;
    struct bench_value gemm;
    int failed = bench_product_rate(b, bf16, 1024, 4096, 4096, &gemm, err);
    if (comm_agree(b->world, failed, err))
        return -1;
    double gemm_rate = gemm.median;
    comm_sum_f64(b->world, &gemm_rate, 1);
    struct run_step r = {.b = b};
    struct engine_spec spec = {.shape = z->shape,
                               .pipeline = b->pipeline,
                               .split = b->split,
                               .split_n = b->split_n,
                               .seq_len = z->seq_len,
                               .batch = z->micro_batch,
                               .micro_batches = z->micro_batches,
                               .dtype = bf16 ? DTYPE_BF16 : DTYPE_F32,
                               .chunks = b->chunks,
                               .schedule = run_schedule_kind(b->schedule),
                               .schedule_file = b->schedule_file,
                               .schedule_text = b->schedule_text,
                               .training = true};
    spec.data = comm_size(b->world) / b->pipeline;
    if (memory_plan_admit(b->world, &spec, b->node_bytes, b->gemm, &r.plan, err))
        return -1;
    r.engine = engine_create(b->world, &spec, b->gemm, err);
    if (!r.engine)
        return -1;
    struct step steps[BENCH_SAMPLES];
    int n = 0;
    failed = comm_agree(b->world, batches_init(&r, err), err);
    if (!failed) {
        weights_random(r.engine, 1, 0.02);
        gemm_set_tally(b->gemm, &r.tally);
        failed = sample_steps(&r, steps, &n, err);
        gemm_set_tally(b->gemm, NULL);
    }
    if (!failed) {
        bench_title(b, "%s, %s, pipeline %d x data %d", z->name, bf16 ? "bf16" : "fp32",
                    b->pipeline, engine_grid(r.engine)->data);
        bench_add(b, "best product 1024x4096x4096", "GFLOP/s", gemm, -1, NULL);
        rows(b, &r, steps, n, gemm_rate);
    }
    batches_fini(&r);
    engine_destroy(r.engine);
    return failed;
}

int bench_step(struct bench *b, struct err *err)
{
    b->section = "step";
    if (b->fp32 && measure(b, false, err))
        return -1;
    return b->bf16 ? measure(b, true, err) : 0;
}
