/* SPDX-License-Identifier: Apache-2.0 */
/* What telling of a step's time costs, by figures and by a timeline of all steps: steps
 * of a random model on random tokens, with and without, in turn, in one process; the
 * median of the ratios of neighbours with its 95 % interval.
 * Usage: mpirun -n P tests/bench/accounting SIZE [pairs [micro_batch [micro_batches]]],
 * SIZE as in `dusk bench`; the ranks are the stages, the schedule is zb-h1. */
#include "src/train/account.h"

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/base/rng.h"
#include "src/train/bench.h"
#include "src/train/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { WARM_PAIRS = 3 };

struct trial {
    struct comm *world;
    struct bench_size size;
    struct engine *engine;
    struct account *account;
    struct batch *batches;
    double *nll;
    int64_t t;
};

static void need(const struct trial *r, int failed, struct err *err)
{
    if (!failed)
        return;
    if (comm_root(r->world))
        fprintf(stderr, "%s\n", err->text);
    comm_finish(r->world);
    exit(1);
}

static void fill(struct trial *r, struct err *err)
{
    const struct bench_size *z = &r->size;
    int64_t n = (int64_t)z->micro_batch * (z->seq_len + 1);
    int32_t *tokens = mem_array(n, sizeof *tokens, err);
    r->batches = mem_array(z->micro_batches, sizeof *r->batches, err);
    r->nll = mem_array((int64_t)z->micro_batches * z->micro_batch, sizeof *r->nll, err);
    need(r, !tokens || !r->batches || !r->nll, err);
    for (int i = 0; i < z->micro_batches; i++) {
        for (int64_t k = 0; k < n; k++)
            tokens[k] = (int32_t)(rng_u64(7, (uint64_t)i, (uint64_t)k) %
                                  (uint64_t)z->shape.vocab);
        need(r,
             batch_init(&r->batches[i], z->micro_batch * z->seq_len, z->micro_batch,
                        err),
             err);
        pretrain_fill(&r->batches[i], z->micro_batch, z->seq_len, NULL, tokens);
    }
    mem_free(tokens);
}

/* Rank 0's seconds from the ranks' agreement on a step to that on the next. */
static double one_step(struct trial *r, bool told)
{
    const struct bench_size *z = &r->size;
    struct account *a = told ? r->account : NULL;
    struct account_figures figures;
    struct zero_step update = {.adamw = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8},
                               .t = ++r->t,
                               .lr = 1e-5,
                               .clip = 1};
    struct engine_objective objective = {.counted = (int64_t)z->micro_batches *
                                                    z->micro_batch * z->seq_len};
    double wait_s = 0, loss = 0;
    int64_t agreed = 0;
    comm_sum_i64(r->world, &agreed, 1);
    double begin_s = clock_s();
    engine_set_trace(r->engine, account_trace(a));
    account_begin(a, r->t);
    double data_s = trace_now(account_trace(a));
    trace_add(account_trace(a), TRACE_DATA, -1, data_s);
    engine_pass(r->engine, r->batches, &objective, r->nll, &wait_s);
    double loss_s = trace_now(account_trace(a));
    comm_sum_f64(r->world, &loss, 1);
    trace_add(account_trace(a), TRACE_LOSS, -1, loss_s);
    engine_update(r->engine, &update);
    account_end(a, r->t, &update, begin_s, &figures);
    comm_sum_i64(r->world, &agreed, 1);
    return clock_s() - begin_s;
}

static void measure(struct trial *r, int pairs)
{
    struct err err;
    double *ratio = mem_array(pairs, sizeof *ratio, &err), on = 0, off = 0;
    need(r, !ratio, &err);
    for (int i = -WARM_PAIRS; i < pairs; i++) {
        double told, silent;
        if (i % 2) { /* what comes second changes in turn */
            told = one_step(r, true);
            silent = one_step(r, false);
        } else {
            silent = one_step(r, false);
            told = one_step(r, true);
        }
        if (i < 0)
            continue;
        ratio[i] = told / silent;
        on += told / pairs;
        off += silent / pairs;
    }
    struct bench_value v = bench_value_of(ratio, pairs); /* sorts them */
    int half = (int)(0.98 * sqrt(pairs));                /* 1.96 sqrt(n / 4) */
    int middle = pairs / 2, low = middle - half, high = middle + half;
    if (comm_root(r->world))
        printf("%d pairs, steps of %.2f ms with, %.2f ms without: with / without %.5f "
               "(95 %%: %.5f .. %.5f)\n",
               pairs, 1e3 * on, 1e3 * off, v.median, ratio[low > 0 ? low : 0],
               ratio[high < pairs ? high : pairs - 1]);
    mem_free(ratio);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct trial r = {.world = comm_start(&argc, &argv, &err)};
    if (!r.world) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const struct bench_size *size = bench_size_named(argc > 1 ? argv[1] : "toy");
    need(&r, size ? 0 : err_set(&err, ERR_USAGE, "no size %s", argv[1]), &err);
    r.size = *size;
    int pairs = argc > 2 ? atoi(argv[2]) : 100;
    pairs = pairs > 1 ? pairs : 2;
    r.size.micro_batch = argc > 3 ? atoi(argv[3]) : size->micro_batch;
    r.size.micro_batches = argc > 4 ? atoi(argv[4]) : size->micro_batches;
    struct gemm *gemm = engine_gemm(r.world, GEMM_LEVEL_ANY, &err);
    need(&r, !gemm, &err);
    struct engine_spec spec = {.shape = r.size.shape,
                               .pipeline = comm_size(r.world),
                               .data = 1,
                               .seq_len = r.size.seq_len,
                               .batch = r.size.micro_batch,
                               .micro_batches = r.size.micro_batches,
                               .schedule = SCHEDULE_ZB_H1,
                               .dtype = DTYPE_BF16,
                               .training = true};
    r.engine = engine_create(r.world, &spec, gemm, &err);
    need(&r, !r.engine, &err);
    struct account_spec told = {.every_step = true,
                                .timeline_from = 1,
                                .timeline_steps = 2 * (WARM_PAIRS + pairs),
                                .folder = "."};
    need(&r, account_create(&r.account, r.engine, &told, &err), &err);
    fill(&r, &err);
    weights_random(r.engine, 1, 0.02);
    measure(&r, pairs);
    account_destroy(r.account);
    engine_destroy(r.engine);
    for (int i = 0; i < r.size.micro_batches; i++)
        batch_fini(&r.batches[i]);
    mem_free(r.batches);
    mem_free(r.nll);
    gemm_destroy(gemm);
    comm_finish(r.world);
    return 0;
}
