/* SPDX-License-Identifier: Apache-2.0 */
/* The oracle's records under its templates, and its packs, at (pipeline, data) = (1,1),
 * (2,1), (4,1), (2,2), (1,2), on 4 ranks: each record's and each pack's sum as TRL
 * computed it; the same bits of every layout; a step of packs is the step of their
 * records. */
#include "tests/train/oracle.h"

#include "src/objective/packing.h"
#include "tests/support/need.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN 1e-5 /* a record's sum, for each counted token */
#define PACK 3e-4  /* a pack's sum */
#define LOSS 1e-5  /* packed and not: of the step */
#define NORM 2e-4  /* the same, relative */
enum { SEQ_LEN = 704, SLOT = SEQ_LEN + 1, BATCH = 2, SAMPLES = 28, NAMES = 16 };

static const struct oracle_layout layouts[] = {
    {1, 1, SCHEDULE_1F1B, {0}, 1},  {2, 1, SCHEDULE_1F1B, {0}, 1},
    {4, 1, SCHEDULE_GPIPE, {0}, 1}, {2, 2, SCHEDULE_1F1B, {0}, 1},
    {1, 2, SCHEDULE_GPIPE, {0}, 2},
};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

/* Samples of one step: slots, those behind n empty. */
struct set {
    char name[48];
    int n;
    int64_t length[SAMPLES];
    int32_t slots[SAMPLES * SLOT];
    double nll[SAMPLES], limit[SAMPLES]; /* the oracle's sums; limit 0: it has none */
    int64_t counted;
};

struct step {
    double nll[SAMPLES], loss, norm;
    uint64_t moments; /* of all layouts of one data degree */
};

static uint8_t *bytes_of(const char *bits, int n)
{
    need((int)strlen(bits) == n ? bits : NULL, "mask", "another length than the ids");
    uint8_t *counted = need(calloc((size_t)n, 1), "mask", "no memory");
    for (int i = 0; i < n; i++)
        counted[i] = bits[i] == '1';
    return counted;
}

static void add_sample(struct set *s, int64_t n, const int32_t *id,
                       const uint8_t *counted, int64_t documents, const int64_t *end)
{
    need(s->n < SAMPLES && n <= SEQ_LEN ? s : NULL, s->name, "too many or too long");
    int32_t *slot = s->slots + s->n * SLOT;
    sft_store(slot, SEQ_LEN, n, id, counted, documents, end);
    s->length[s->n++] = n;
    s->counted += sft_counted(slot);
}

/* Records of one template, in the oracle's order; TRL's mask where it has its own. */
static struct set *read_records(const struct facts *f, const char *template)
{
    char place[128];
    struct set *s = need(calloc(1, sizeof *s), template, "no memory");
    snprintf(s->name, sizeof s->name, "%s", template);
    snprintf(place, sizeof place, "templates/%s/records", template);
    int records = facts_count(f, place);
    for (int i = 0; i < records; i++) {
        char key[192];
        int n;
        snprintf(key, sizeof key, "%s/%d/nll_sum", place, i);
        if (!facts_has(f, key))
            continue; /* refused by TRL: nothing counts */
        double nll = facts_double(f, key);
        snprintf(key, sizeof key, "%s/%d/ids", place, i);
        int32_t *id = facts_ints(f, key, &n);
        snprintf(key, sizeof key, "%s/%d/trl_mask", place, i);
        if (!facts_has(f, key))
            snprintf(key, sizeof key, "%s/%d/mask", place, i);
        uint8_t *counted = bytes_of(facts_string(f, key), n);
        add_sample(s, n, id, counted, 1, (int64_t[]){n});
        snprintf(key, sizeof key, "%s/%d/counted", place, i);
        int64_t known = facts_int(f, key), here = sft_counted(s->slots + i * SLOT);
        if (s->n == i + 1)
            need(known == here ? s : NULL, key, "differs");
        s->nll[s->n - 1] = nll;
        s->limit[s->n - 1] = TOKEN * (double)known;
        free(counted);
        free(id);
    }
    snprintf(place, sizeof place, "templates/%s/batch/counted", template);
    need(facts_int(f, place) == s->counted ? s : NULL, place, "differs");
    return s;
}

/* TRL's packs of whole documents, of which all tokens count. */
static struct set *read_packs(void)
{
    struct facts *f = facts_load("../align/pack_nll.json");
    struct set *s = need(calloc(1, sizeof *s), "packs", "no memory");
    int most = (int)facts_int(f, "max_length"), packs = facts_count(f, "packs");
    snprintf(s->name, sizeof s->name, "packs of %d", most);
    uint8_t counted[SEQ_LEN];
    memset(counted, 1, sizeof counted);
    for (int i = 0; i < packs; i++) {
        char place[64];
        int documents, n = 0;
        int32_t id[SEQ_LEN];
        int64_t end[SEQ_LEN];
        snprintf(place, sizeof place, "packs/%d", i);
        int32_t *document = facts_ints(f, place, &documents);
        for (int d = 0; d < documents; d++) {
            int length;
            snprintf(place, sizeof place, "tokens/%d", (int)document[d]);
            int32_t *tokens = facts_ints(f, place, &length);
            length = length < most ? length : most;
            memcpy(id + n, tokens, (size_t)length * sizeof *id);
            end[d] = n += length;
            free(tokens);
        }
        add_sample(s, n, id, counted, documents, end);
        snprintf(place, sizeof place, "counted/%d", i);
        need(facts_int(f, place) == sft_counted(s->slots + i * SLOT) ? s : NULL, place,
             "differs");
        snprintf(place, sizeof place, "nll/%d", i);
        s->nll[i] = facts_double(f, place);
        s->limit[i] = PACK;
        free(document);
    }
    facts_destroy(f);
    return s;
}

/* The records of a set in packs of SEQ_LEN. A slot's words are copied as they are. */
static struct set *pack(const struct set *from)
{
    struct err err = {0};
    struct packing p;
    struct set *s = need(calloc(1, sizeof *s), "pack", "no memory");
    int32_t length[SAMPLES];
    snprintf(s->name, sizeof s->name, "%.32s, packed", from->name);
    for (int i = 0; i < from->n; i++)
        length[i] = (int32_t)from->length[i];
    int failed = packing_init(&p, length, from->n, SEQ_LEN, &err);
    need(failed ? NULL : s, "pack", err.text);
    for (int i = 0; i < p.packs; i++) {
        int32_t *slot = s->slots + i * SLOT;
        for (int k = p.pack_begin[i]; k < p.pack_begin[i + 1]; k++) {
            const int32_t *record = from->slots + p.document[k] * SLOT;
            memcpy(slot + 1 + slot[0], record + 1, (size_t)record[0] * sizeof *slot);
            slot[0] += record[0];
        }
        s->length[i] = slot[0];
    }
    s->n = p.packs;
    s->counted = from->counted;
    packing_fini(&p);
    return s;
}

/* One step with rate 0 on an engine whose moments are zero. */
static struct step run_step(struct comm *c, struct engine *e, const struct set *s,
                            struct batch *batches)
{
    const struct grid *g = engine_grid(e);
    int mine = SAMPLES / g->data, segments = engine_segments(e);
    int64_t key[SAMPLES];
    int32_t order[SAMPLES], slots[SAMPLES * SLOT];
    struct step step = {0};
    sft_order(SAMPLES, BATCH, g->data, s->length, key, order);
    for (int i = 0; i < mine; i++)
        memcpy(slots + i * SLOT, s->slots + order[g->replica * mine + i] * SLOT,
               SLOT * sizeof *slots);
    for (int i = 0; i < mine / BATCH; i++)
        sft_fill(&batches[i], BATCH, SEQ_LEN, slots + i * BATCH * SLOT);
    double *nll = need(calloc((size_t)(mine / BATCH * segments), sizeof *nll), s->name,
                       "no memory");
    double wait_s = 0;
    engine_pass(e, batches, &(struct engine_objective){.counted = s->counted}, nll,
                &wait_s);
    for (int i = 0; i < mine / BATCH && g->stage == g->pipeline - 1; i++)
        for (int k = 0; k < batches[i].rows.segments; k++) {
            int place = g->replica * mine + i * BATCH + batches[i].sample[k];
            step.nll[order[place]] += nll[i * segments + k];
        }
    comm_sum_f64(c, step.nll, SAMPLES);
    for (int i = 0; i < SAMPLES; i++)
        step.loss += step.nll[i];
    step.loss /= (double)s->counted;
    struct zero_step z = {.adamw = {.beta1 = 0.0, .beta2 = 0.0, .eps = 1e-8}, .t = 1};
    engine_update(e, &z);
    step.norm = z.norm;
    step.moments = oracle_state_hash(c, e);
    free(nll);
    return step;
}

static void check_sums(const struct set *s, const double *nll, double *worst)
{
    for (int i = 0; i < s->n; i++)
        if (s->limit[i] > 0)
            oracle_within(s->name, fabs(nll[i] - s->nll[i]), s->limit[i], worst);
}

/* Each record alone, as evaluation runs them. */
static void check_forward(struct comm *c, struct engine *e, const struct set *s,
                          double *worst)
{
    const struct grid *g = engine_grid(e);
    double nll[SAMPLES] = {0};
    engine_forward_records(e, s->n, s->slots, nll);
    if (g->stage < g->pipeline - 1 || g->replica > 0)
        memset(nll, 0, sizeof nll);
    comm_sum_f64(c, nll, SAMPLES);
    check_sums(s, nll, worst);
}

/* Two steps of the same records, as they are and packed. */
static void check_packed(const struct set *s, const struct step *alone,
                         const struct step *packed, double *worst)
{
    oracle_within(s->name, fabs(alone->loss - packed->loss), LOSS, &worst[0]);
    oracle_within(s->name, fabs(alone->norm - packed->norm) / alone->norm, NORM,
                  &worst[1]);
}

static void run_layout(struct comm *world, const struct oracle_layout *l,
                       const struct oracle_model *m, struct gemm *gemm,
                       struct set *const *sets, int n, int pairs,
                       struct step (*first)[NAMES * 2])
{
    struct err err = {0};
    struct comm *c = oracle_ranks(world, l);
    if (!c)
        return;
    omp_set_num_threads(l->threads);
    int micro_batches = SAMPLES / BATCH / l->data;
    int segments = sft_max_segments(BATCH, SEQ_LEN, true);
    struct engine *e =
        oracle_engine(c, m, l, gemm, SEQ_LEN, BATCH, micro_batches, segments);
    struct batch batches[SAMPLES / BATCH];
    for (int i = 0; i < micro_batches; i++) {
        int failed = batch_init(&batches[i], BATCH * SEQ_LEN, segments, &err);
        need(failed ? NULL : batches, "batches", err.text);
    }
    double sums = 0, forward = 0, packed[2] = {0};
    for (int i = 0; i < n; i++) {
        struct step step = run_step(c, e, sets[i], batches);
        struct step *same = &first[l->data][i];
        check_sums(sets[i], step.nll, &sums);
        if (i % 2 && i < pairs) /* the packs of the records before */
            check_packed(sets[i], &first[l->data][i - 1], &step, packed);
        else if (i < pairs)
            check_forward(c, e, sets[i], &forward);
        if (same->norm == 0)
            *same = step;
        if (comm_root(world)) {
            need(!memcmp(same, &step, sizeof step) ? c : NULL, sets[i]->name,
                 "bits differ from the first layout of this data degree");
            need(!memcmp(first[1][i].nll, step.nll, sizeof step.nll) ? c : NULL,
                 sets[i]->name, "sums differ from those of one rank");
        }
    }
    if (comm_root(world))
        printf("%-40s %d sets; of their limits: sums %.2g, each alone %.2g, packed "
               "losses %.2g, norms %.2g\n",
               oracle_describe(l), n, sums, forward, packed[0], packed[1]);
    for (int i = 0; i < micro_batches; i++)
        batch_fini(&batches[i]);
    engine_destroy(e);
    comm_free(c);
}

/* One more row for each of the oracle's added tokens. */
static void grow(struct oracle_model *m)
{
    static const char *const names[][2] = {
        {"model.embed_tokens.weight", "chatml_added.embed_tokens_rows_512_513"},
        {"lm_head.weight", "chatml_added.lm_head_rows_512_513"}};
    struct arrays *rows = arrays_load("../align/sft_added_rows.safetensors");
    for (int i = 0; i < 2; i++) {
        struct array *old = (struct array *)arrays_get(m->weights, names[i][0]);
        const struct array *new = arrays_get(rows, names[i][1]);
        int64_t elements = old->elements + new->elements;
        old->f32 = need(realloc(old->f32, (size_t)elements * sizeof *old->f32),
                        names[i][0], "no memory");
        memcpy(old->f32 + old->elements, new->f32,
               (size_t) new->elements * sizeof *new->f32);
        old->elements = elements;
        old->dim[0] += new->dim[0];
        m->shape.vocab = (int)old->dim[0];
    }
    arrays_destroy(rows);
}

int main(int argc, char **argv)
{
    static const char *const templates[] = {"solar",  "solar_eos",        "chatml",
                                            "zephyr", "llama2",           "mistral",
                                            "alpaca", "plain_completion", "plain_text"};
    static struct step first[3][NAMES * 2]; /* by data degree */
    enum { TEMPLATES = sizeof templates / sizeof *templates };
    static struct step first_added[3][NAMES * 2];
    struct set *sets[2 * TEMPLATES + 1], *added[2];
    struct err err = {0};
    int n = 0;
    struct comm *world = comm_start(&argc, &argv, &err);
    need(world, "MPI", err.text);
    need(comm_size(world) == 4 ? world : NULL, "ranks", "this test wants 4");
    struct gemm *gemm = engine_gemm(world, GEMM_LEVEL_ANY, &err);
    need(gemm, "gemm", err.text);
    struct oracle_model model = oracle_load("../align/ref");
    struct facts *f = facts_load("../align/sft_records.json");
    for (int i = 0; i < TEMPLATES; i++) {
        sets[n++] = read_records(f, templates[i]);
        sets[n] = pack(sets[n - 1]);
        n++;
    }
    sets[n++] = read_packs();
    added[0] = read_records(f, "chatml_added");
    added[1] = pack(added[0]);
    facts_destroy(f);
    for (int i = 0; i < LAYOUTS; i++)
        run_layout(world, &layouts[i], &model, gemm, sets, n, n - 1, first);
    grow(&model);
    for (int i = 0; i < LAYOUTS; i++)
        run_layout(world, &layouts[i], &model, gemm, added, 2, 2, first_added);
    if (comm_root(world))
        printf("PASS\n");
    for (int i = 0; i < n; i++)
        free(sets[i]);
    for (int i = 0; i < 2; i++)
        free(added[i]);
    oracle_free(&model);
    gemm_destroy(gemm);
    comm_finish(world);
    return 0;
}
