/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/pair_logps.h"

#include <math.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/base/check.h"

enum { GROUPS = ENGINE_FORWARD_MICRO_BATCHES, DOUBLES = 4 };

/* One block of a replica: GROUPS micro-batches, every data-th of the block's. */
struct work {
    const struct pair_logps_spec *s;
    int words;
    int64_t *place;         /* [GROUPS * batch] in the block */
    int32_t *slots;         /* [GROUPS * batch][words] */
    struct pair_sums *sums; /* [GROUPS * batch] */
    struct record_tokens scratch;
};

int64_t pair_logps_block(const struct pair_logps_spec *s)
{
    return (int64_t)GROUPS * s->batch * engine_grid(s->engine)->data;
}

/* The places of this replica's pairs in a block of n. */
static int my_places(const struct work *w, int64_t n)
{
    const struct grid *g = engine_grid(w->s->engine);
    int mine = 0;
    for (int i = 0; i < GROUPS; i++)
        for (int j = 0; j < w->s->batch; j++) {
            int64_t k = ((int64_t)i * g->data + g->replica) * w->s->batch + j;
            if (k < n)
                w->place[mine++] = k;
        }
    return mine;
}

static int read_pairs(struct work *w, int64_t first, int n, struct err *err)
{
    const struct pair_logps_spec *s = w->s;
    if (engine_grid(s->engine)->stage > 0)
        return 0;
    for (int i = 0; i < n; i++) {
        int64_t k = first + w->place[i];
        if (data_set_read_pair(s->set, s->pair ? s->pair[k] : k, s->seq_len,
                               (struct pair_sums){0}, &w->scratch,
                               w->slots + (int64_t)i * w->words, err))
            return -1;
    }
    return 0;
}

static int run_block(struct work *w, int64_t first, int64_t n, struct pair_logps *logps,
                     struct err *err)
{
    const struct grid *g = engine_grid(w->s->engine);
    int mine = my_places(w, n);
    if (comm_agree(g->world, read_pairs(w, first, mine, err), err))
        return -1;
    comm_bcast(g->pipe_axis, w->slots,
               (size_t)mine * (size_t)w->words * sizeof *w->slots, 0);
    engine_forward_pairs(w->s->engine, mine, w->slots, w->sums);
    for (int i = 0; i < mine && engine_has_head(w->s->engine); i++) {
        struct pair_count count = pairs_count(w->slots + (int64_t)i * w->words);
        logps[w->place[i]] =
            (struct pair_logps){w->sums[i].chosen, w->sums[i].rejected,
                                (double)count.chosen, (double)count.rejected};
    }
    return 0;
}

static int run_blocks(struct work *w, int64_t first, int64_t n,
                      struct pair_logps *logps, struct err *err)
{
    int64_t block = pair_logps_block(w->s);
    for (int64_t done = 0; done < n; done += block) {
        int64_t here = n - done < block ? n - done : block;
        if (run_block(w, first + done, here, logps + done, err))
            return -1;
        if (w->s->shown &&
            w->s->shown(w->s->context, (double)(done + here), (double)n) &&
            done + here < n)
            return 1;
    }
    return 0;
}

int pair_logps(const struct pair_logps_spec *s, int64_t first, int64_t n,
               struct pair_logps *logps, struct err *err)
{
    struct comm *world = engine_grid(s->engine)->world;
    struct work w = {.s = s, .words = pairs_slot_words(s->seq_len)};
    int64_t room = (int64_t)GROUPS * s->batch;
    memset(logps, 0, (size_t)n * sizeof *logps);
    w.place = mem_array(room, sizeof *w.place, err);
    w.slots = mem_array(room * w.words, sizeof *w.slots, err);
    w.sums = mem_array(room, sizeof *w.sums, err);
    int failed = comm_agree(world, !w.place || !w.slots || !w.sums, err);
    if (!failed)
        failed = run_blocks(&w, first, n, logps, err);
    if (!failed)
        comm_sum_f64(world, &logps[0].chosen, DOUBLES * n);
    mem_free(w.place);
    mem_free(w.slots);
    mem_free(w.sums);
    record_tokens_fini(&w.scratch);
    return failed;
}

int pair_figures(const struct preference_settings *settings, int64_t n,
                 const struct pair_logps *policy, const struct pair_sums *reference,
                 struct pair_figures *figures, struct err *err)
{
    struct preference_stats stats;
    struct preference_step step = {.pairs = n};
    CHECK(n >= 1 && n <= INT32_MAX, "%lld pairs", (long long)n);
    if (preference_stats_init(&stats, (int)n, err))
        return -1;
    preference_stats_begin(&stats, (int)n);
    for (int64_t i = 0; i < n; i++)
        step.chosen_tokens += (int64_t)policy[i].chosen_tokens;
    for (int64_t i = 0; i < n; i++) {
        struct pair_sums r = reference ? reference[i] : (struct pair_sums){0};
        struct preference_pair pair = {
            .policy_chosen = policy[i].chosen,
            .policy_rejected = policy[i].rejected,
            .reference_chosen = r.chosen,
            .reference_rejected = r.rejected,
            .chosen_tokens = (int64_t)policy[i].chosen_tokens,
            .rejected_tokens = (int64_t)policy[i].rejected_tokens};
        struct preference_share share = preference_pair_share(settings, &step, &pair);
        preference_stats_put(&stats, (int)i, &pair, &share);
    }
    preference_stats_means(&stats, figures->mean);
    preference_stats_fini(&stats);
    double a = figures->mean[PREFERENCE_METRIC_REWARDS_ACCURACIES];
    figures->pairs = n;
    figures->accuracy_error = sqrt(a * (1 - a) / (double)n);
    return 0;
}
