/* SPDX-License-Identifier: Apache-2.0 */
/* Plans against what creation takes, on whatever ranks it is started with; and the
 * refusal of what does not fit. */
#include "src/train/memory_plan.h"

#include "src/gemm/bf16.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed;

static void expect(int ok, const char *what, double found, double wanted)
{
    printf("%s: %s: %.0f, expected %.0f\n", ok ? "ok" : "FAIL", what, found, wanted);
    failed |= !ok;
}

static struct engine_spec spec_of(int pipeline, int data, enum dtype dtype, bool tied)
{
    return (struct engine_spec){.shape = {.layers = 4,
                                          .hidden = 256,
                                          .ff = 512,
                                          .heads = 8,
                                          .kv_heads = 4,
                                          .head_dim = 32,
                                          .vocab = 2048,
                                          .max_positions = 256,
                                          .rope_theta = 10000,
                                          .norm_eps = 1e-5,
                                          .tied = tied,
                                          .bos_id = -1,
                                          .eos_id = -1},
                                .pipeline = pipeline,
                                .data = data,
                                .seq_len = 128,
                                .batch = 2,
                                .micro_batches = 4,
                                .schedule = SCHEDULE_1F1B,
                                .dtype = dtype,
                                .training = true};
}

/* The parts that the engine takes are what it says, to the lists' few bytes. */
static void plan_is_what_creation_takes(struct comm *world, struct gemm *gemm,
                                        int pipeline, enum dtype dtype, bool tied,
                                        struct freeze freeze, enum schedule_kind kind)
{
    struct err err = {0};
    int ranks = comm_size(world);
    struct engine_spec spec = spec_of(pipeline, ranks / pipeline, dtype, tied);
    spec.freeze = freeze;
    spec.schedule = kind;
    struct memory_plan p;
    if (memory_plan(&spec, ranks, comm_rank(world), gemm, &p, &err)) {
        printf("FAIL: %s\n", err.text);
        failed = 1;
        return;
    }
    struct engine *e = engine_create(world, &spec, gemm, &err);
    if (!e) {
        printf("FAIL: %s\n", err.text);
        failed = 1;
        return;
    }
    int64_t planned = memory_plan_total(&p) - p.bytes[MEMORY_DATA] -
                      p.bytes[MEMORY_PROCESS] - gemm_bf16_workspace_bytes(gemm);
    int64_t taken = engine_bytes(e);
    char what[96];
    snprintf(what, sizeof what, "rank %d of pipeline %d x data %d, %s, %s%s%s",
             comm_rank(world), pipeline, ranks / pipeline, schedule_name(kind),
             dtype_name(dtype), tied ? ", tied" : "",
             freeze.patterns ? ", most frozen" : "");
    /* Slots are counted one by one, their small lists are rounded up together. */
    expect(llabs(planned - taken) <= 64 * (p.slots + p.waiting), what, (double)planned,
           (double)taken);
    engine_destroy(e);
}

/* Of three of four layers and the embedding no gradients, moments or masters; their
 * weights stay. */
static void frozen_tensors_take_less(struct gemm *gemm, struct freeze freeze,
                                     enum dtype dtype)
{
    struct err err = {0};
    struct engine_spec spec = spec_of(1, 1, dtype, false);
    struct memory_plan all, some;
    memory_plan(&spec, 1, 0, gemm, &all, &err);
    spec.freeze = freeze;
    memory_plan(&spec, 1, 0, gemm, &some, &err);
    int64_t trained =
        table_elements(&spec.shape) - freeze_count(&freeze, &spec.shape).elements;
    int64_t half = dtype == DTYPE_BF16 ? 2 : 0;
    const int64_t wanted[][2] = {
        {some.bytes[MEMORY_GRADIENTS], 4 * trained},
        {some.bytes[MEMORY_MOMENTS], 8 * trained},
        {some.bytes[MEMORY_MASTERS], half * trained},
        {some.bytes[MEMORY_WEIGHTS], all.bytes[MEMORY_WEIGHTS]}};
    for (int i = 0; i < 4; i++)
        expect(wanted[i][0] == wanted[i][1], "frozen", (double)wanted[i][0],
               (double)wanted[i][1]);
    expect(memory_plan_total(&some) < memory_plan_total(&all), "total, below",
           (double)memory_plan_total(&some), (double)memory_plan_total(&all));
}

/* Beside 1f1b, zb-h1 takes the activations of the micro-batches that it has more, and
 * what those behind their first half wait with. */
static void what_waits_is_planned(struct gemm *gemm)
{
    for (int stage = 0; stage < 4; stage++) {
        struct err err = {0};
        struct engine_spec spec = spec_of(4, 1, DTYPE_F32, false);
        struct memory_plan lean, zero;
        memory_plan(&spec, 4, stage, gemm, &lean, &err);
        spec.schedule = SCHEDULE_ZB_H1;
        memory_plan(&spec, 4, stage, gemm, &zero, &err);
        expect(zero.slots == 4 && lean.slots == 4 - stage, "slots", zero.slots, 4);
        expect(zero.waiting == stage + 1, "waiting", zero.waiting, stage + 1);
        /* One layer, so no gradient waits between layers: rows x (F + D) floats. */
        int64_t wait = 256 * (512 + 256) * (int64_t)sizeof(float);
        int64_t slot = lean.bytes[MEMORY_ACTIVATIONS] / lean.slots;
        int64_t more = zero.bytes[MEMORY_ACTIVATIONS] - 4 * slot;
        int64_t lists = 4 * 64 * zero.waiting; /* struct wait and its three lists */
        expect(more >= zero.waiting * wait && more <= zero.waiting * wait + lists,
               "what waits", (double)more, (double)(zero.waiting * wait));
    }
}

static void largest_and_sum(struct gemm *gemm)
{
    struct err err = {0};
    struct engine_spec spec = spec_of(2, 3, DTYPE_F32, false);
    int64_t sum = 0, each = 0, most = 0, quick;
    int64_t largest = memory_plan_largest(&spec, 6, gemm, &quick, &err);
    for (int r = 0; r < 6; r++) {
        struct memory_plan p;
        memory_plan(&spec, 6, r, gemm, &p, &err);
        each = memory_plan_total(&p);
        sum += each;
        most = each > most ? each : most;
    }
    expect(largest == most, "largest of 6 ranks", (double)largest, (double)most);
    expect(quick >= sum - sum / 100 && quick <= sum + sum / 100, "sum of 6 ranks",
           (double)quick, (double)sum);
    struct memory_plan p;
    expect(memory_plan(&spec, 5, 0, gemm, &p, &err) == -1 && err.code == ERR_USAGE,
           "5 ranks for 2 x 3", err.code, ERR_USAGE);
}

/* Refused with the change that fits; and what fits is admitted. */
/* What is kept of the steps' times: spans of the timeline's steps on every rank, and on
 * rank 0 once more for the others'. */
static void a_timeline_is_planned(struct gemm *gemm)
{
    enum { STEPS = 1000 };
    for (int rank = 0; rank < 4; rank++) {
        struct err err = {0};
        struct engine_spec spec = spec_of(4, 1, DTYPE_F32, false);
        struct memory_plan none, some;
        memory_plan(&spec, 4, rank, gemm, &none, &err);
        spec.accounting = true;
        spec.timeline_steps = STEPS;
        memory_plan(&spec, 4, rank, gemm, &some, &err);
        expect(none.bytes[MEMORY_TIMES] == 0, "times, of none",
               (double)none.bytes[MEMORY_TIMES], 0);
        /* An inner stage's 4 micro-batches: two computations, two receives, two sends
         * each; six spans besides; 24 bytes a span; some hundred bytes of lists. */
        double wanted = (rank ? 1 : 2) * 24.0 * STEPS * (4 * 6 + 6);
        double found = (double)some.bytes[MEMORY_TIMES];
        expect(found >= wanted && found < wanted + 4096, "times", found, wanted);
        expect(memory_plan_total(&some) - memory_plan_total(&none) ==
                   some.bytes[MEMORY_TIMES],
               "the rest as before", 0, 0);
    }
}

static void too_much_is_refused(struct comm *world, struct gemm *gemm)
{
    static const struct {
        double room; /* of what one micro-batch's window needs */
        const char *advice;
    } rows[] = {{0.5, "hosts"}, {1.02, "train.micro_batch: 1 would fit"}, {4, NULL}};
    struct err err = {0};
    struct engine_spec spec = spec_of(1, comm_size(world), DTYPE_F32, false);
    spec.seq_len = 256;
    spec.batch = 8;
    spec.micro_batches = 1;
    struct engine_spec small = spec;
    small.batch = 1;
    small.micro_batches = 8;
    int64_t needs = memory_plan_largest(&small, comm_size(world), gemm, NULL, &err) *
                    comm_size(world);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct memory_plan mine;
        struct engine_spec s = spec;
        int64_t node = (int64_t)(rows[i].room * (double)needs);
        err = (struct err){0};
        int refused = memory_plan_admit(world, &s, node, gemm, &mine, &err);
        printf("   %.2f: %s\n", rows[i].room, refused ? err.text : "admitted");
        expect(!refused == !rows[i].advice, "refused", refused,
               rows[i].advice ? -1 : 0);
        if (rows[i].advice)
            expect(strstr(err.text, rows[i].advice) != NULL && err.code == ERR_USAGE,
                   rows[i].advice, err.code, ERR_USAGE);
    }
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct comm *world = comm_start(&argc, &argv, &err);
    struct gemm *gemm = world ? engine_gemm(world, GEMM_LEVEL_ANY, &err) : NULL;
    if (!gemm) {
        fprintf(stderr, "FAIL: %s\n", err.text);
        return 1;
    }
    static char *patterns[] = {"layers.0-2", "model.embed_tokens.weight"};
    const struct freeze freezes[] = {{0, NULL}, {2, patterns}};
    for (int pipeline = 1; pipeline <= comm_size(world); pipeline *= 2)
        for (int tied = 0; tied < 2; tied++)
            for (int i = 0; i < 4; i++)
                for (int k = 0; k < 2; k++)
                    plan_is_what_creation_takes(
                        world, gemm, pipeline, i % 2 ? DTYPE_BF16 : DTYPE_F32, tied,
                        freezes[i / 2], k ? SCHEDULE_ZB_H1 : SCHEDULE_1F1B);
    frozen_tensors_take_less(gemm, freezes[1], DTYPE_F32);
    frozen_tensors_take_less(gemm, freezes[1], DTYPE_BF16);
    what_waits_is_planned(gemm);
    largest_and_sum(gemm);
    a_timeline_is_planned(gemm);
    too_much_is_refused(world, gemm);
    gemm_destroy(gemm);
    int64_t code = failed;
    comm_max_i64(world, &code, 1);
    comm_finish(world);
    return (int)code;
}
