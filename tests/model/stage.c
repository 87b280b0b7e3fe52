/* SPDX-License-Identifier: Apache-2.0 */
/* A stage's bits must not depend on threads, on slots or on the split of the layers. */
#include "src/model/stage.h"

#include "src/base/rng.h"
#include "src/gemm/bf16.h"

#include <malloc.h>
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 4, MAX_STAGES = 4, BATCHES = 2, MAX_SEGMENTS = 4, MAX_ROWS = 170 };

static const struct model_shape shapes[] = {
    {.layers = LAYERS,
     .hidden = 24,
     .ff = 37,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 8,
     .vocab = 61,
     .max_positions = 128,
     .window = 5,
     .rope_theta = 1e4,
     .norm_eps = 1e-5,
     .bos_id = -1,
     .eos_id = -1},
    {.layers = LAYERS,
     .hidden = 21,
     .ff = 40,
     .heads = 3,
     .kv_heads = 1,
     .head_dim = 6,
     .vocab = 50,
     .max_positions = 128,
     .rope_theta = 1e6,
     .norm_eps = 1e-6,
     .tied = true,
     .bos_id = -1,
     .eos_id = -1},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* The second batch has other segments, and fewer. */
static const int begins[BATCHES][MAX_SEGMENTS + 1] = {{0, 90, 91, 150, 170},
                                                      {0, 33, 100}};
static const int segments[BATCHES] = {4, 2};

struct batch {
    struct rows rows;
    int position[MAX_ROWS];
    int32_t ids[MAX_ROWS], target[MAX_ROWS];
};

static void batch_init(struct batch *b, int index, int vocab)
{
    int n = segments[index];
    b->rows = (struct rows){.rows = begins[index][n],
                            .segments = n,
                            .segment_begin = begins[index],
                            .position = b->position};
    for (int s = 0; s < n; s++)
        for (int t = begins[index][s]; t < begins[index][s + 1]; t++) {
            uint64_t at = (uint64_t)(index * MAX_ROWS + t);
            b->position[t] = t - begins[index][s];
            b->ids[t] = (int32_t)(rng_u64(1, 1, at) % (uint64_t)vocab);
            b->target[t] =
                at % 5 == 3 ? -100 : (int32_t)(rng_u64(1, 2, at) % (uint64_t)vocab);
        }
}

/* What all stages of a run have in common. */
struct setting {
    const struct model_shape *shape;
    enum dtype dtype;
    enum stage_packing packing;
    struct gemm *gemm;
};

struct part {
    struct slab slab;
    struct stage_spec spec;
    struct stage *stage;
    float *weights, *grads;
    uint16_t *rounded;                  /* weights in bf16 */
    void *out[BATCHES], *dout[BATCHES]; /* what it hands to the next stage */
};

static float *floats(int64_t n)
{
    float *p = calloc((size_t)n, sizeof *p);
    assert_non_null(p);
    return p;
}

static const void *weights_of(const struct part *p)
{
    return p->spec.dtype == DTYPE_F32 ? (const void *)p->weights : p->rounded;
}

/* Weights by place in the table, so that every split starts from the same model. */
static void part_init(struct part *p, const struct setting *as, int first, int layers,
                      bool embed, bool head, bool training, int slots,
                      const struct stage *lender)
{
    struct err err;
    const struct model_shape *s = as->shape;
    *p = (struct part){.spec = {.shape = s,
                                .first_layer = first,
                                .layers = layers,
                                .embed = embed,
                                .head = head,
                                .max_rows = MAX_ROWS,
                                .max_length = 90,
                                .slots = slots,
                                .training = training,
                                .dtype = as->dtype,
                                .packing = as->packing,
                                .lender = lender}};
    assert_int_equal(slab_init(&p->slab, s, first, layers, embed, head, &err), 0);
    p->weights = floats(p->slab.weights);
    p->grads = floats(p->slab.grads);
    for (int i = 0; i < p->slab.entries; i++) {
        const struct slab_entry *e = &p->slab.entry[i];
        for (int64_t k = 0; k < e->tensor.elements; k++) {
            double x = rng_normal(3, (uint64_t)e->tensor.index, (uint64_t)k);
            p->weights[e->weight_at + k] =
                (float)(e->tensor.ndim == 1 ? 1 + 0.2 * x : 0.25 * x);
        }
    }
    p->rounded = calloc((size_t)p->slab.weights, sizeof *p->rounded);
    assert_non_null(p->rounded);
    dtype_from_f32(DTYPE_BF16, p->weights, p->slab.weights, p->rounded);
    p->stage = stage_create(&p->spec, &p->slab, weights_of(p),
                            training ? p->grads : NULL, as->gemm, &err);
    assert_non_null(p->stage);
    stage_weights_changed(p->stage);
    for (int b = 0; b < BATCHES; b++) {
        p->out[b] = floats(MAX_ROWS * s->hidden);
        p->dout[b] = floats(MAX_ROWS * s->hidden);
    }
}

static void part_fini(struct part *p)
{
    stage_destroy(p->stage);
    slab_fini(&p->slab);
    free(p->weights);
    free(p->grads);
    free(p->rounded);
    for (int b = 0; b < BATCHES; b++) {
        free(p->out[b]);
        free(p->dout[b]);
    }
}

struct outcome {
    double nll[BATCHES][MAX_SEGMENTS];
    float row_nll[BATCHES][MAX_ROWS];
    int64_t grads;
    float *grad; /* table order, then the tied head's */
};

static void gather(struct outcome *o, const struct model_shape *s,
                   const struct part *parts, int stages)
{
    o->grad = floats(2 * table_elements(s));
    for (int i = 0; i <= table_count(s); i++)
        for (int k = 0; k < stages; k++)
            for (int j = 0; j < parts[k].slab.entries; j++) {
                const struct slab_entry *e = &parts[k].slab.entry[j];
                int place = e->tied_head ? table_count(s) : e->tensor.index;
                if (place != i)
                    continue;
                memcpy(o->grad + o->grads, parts[k].grads + e->grad_at,
                       (size_t)e->tensor.elements * sizeof(float));
                o->grads += e->tensor.elements;
            }
}

/* All micro-batches forward, then all backward, through `stages` stages. */
static struct outcome run(const struct setting *as, const int *layers, int stages,
                          const int *slots)
{
    const struct model_shape *s = as->shape;
    struct part parts[MAX_STAGES];
    struct batch batch[BATCHES];
    struct outcome o = {0};
    for (int k = 0, first = 0; k < stages; first += layers[k++])
        part_init(&parts[k], as, first, layers[k], k == 0, k == stages - 1, true, 3,
                  NULL);
    for (int b = 0; b < BATCHES; b++) {
        batch_init(&batch[b], b, s->vocab);
        struct stage_loss loss = {.target = batch[b].target,
                                  .grad_scale = 0.01f,
                                  .nll = o.nll[b],
                                  .row_nll = o.row_nll[b]};
        for (int k = 0; k < stages; k++)
            stage_forward(parts[k].stage, slots[b], &batch[b].rows,
                          k == 0 ? batch[b].ids : NULL,
                          k == 0 ? NULL : parts[k - 1].out[b],
                          k == stages - 1 ? NULL : parts[k].out[b],
                          k == stages - 1 ? &loss : NULL);
        memset(batch[b].position, 0xff, sizeof batch[b].position); /* not borrowed */
        memset(batch[b].ids, 0xff, sizeof batch[b].ids);
    }
    for (int b = 0; b < BATCHES; b++)
        for (int k = stages - 1; k >= 0; k--)
            stage_backward(parts[k].stage, slots[b],
                           k == stages - 1 ? NULL : parts[k].dout[b],
                           k == 0 ? NULL : parts[k - 1].dout[b]);
    gather(&o, s, parts, stages);
    for (int k = 0; k < stages; k++)
        part_fini(&parts[k]);
    return o;
}

static void expect_same(const struct outcome *a, const struct outcome *b)
{
    assert_memory_equal(a->nll, b->nll, sizeof a->nll);
    assert_memory_equal(a->row_nll, b->row_nll, sizeof a->row_nll);
    assert_int_equal(a->grads, b->grads);
    assert_memory_equal(a->grad, b->grad, (size_t)a->grads * sizeof(float));
}

/* The shapes in fp32, and in bf16 with all kinds of packing; false: not this one. */
enum { PACKINGS = 3, SETTINGS = SHAPES * (1 + PACKINGS) };

static bool setting_at(int index, struct gemm *g, struct setting *as)
{
    int kind = index / SHAPES;
    *as = (struct setting){.shape = &shapes[index % SHAPES],
                           .dtype = kind == 0 ? DTYPE_F32 : DTYPE_BF16,
                           .packing = kind == 0 ? STAGE_PACK_BOTH
                                                : (enum stage_packing)(kind - 1),
                           .gemm = g};
    return g && (kind < 2 || gemm_bf16_backend(g) != GEMM_REF); /* slow */
}

static const int whole[] = {LAYERS}, in_order[] = {0, 1};

static void has_the_same_bits_on_any_threads_slots_and_splits(void **state)
{
    static const struct {
        int threads, stages, layers[MAX_STAGES], slots[BATCHES];
    } rows[] = {
        {1, 1, {4}, {0, 1}},       {2, 1, {4}, {0, 1}},
        {3, 1, {4}, {2, 0}},       {1, 2, {2, 2}, {0, 1}},
        {2, 2, {3, 1}, {1, 2}},    {1, 3, {1, 2, 1}, {0, 1}},
        {3, 3, {0, 4, 0}, {0, 1}}, {2, 4, {1, 1, 1, 1}, {2, 1}},
    };
    struct setting as;
    for (int i = 0; i < SETTINGS; i++) {
        if (!setting_at(i, *state, &as))
            continue;
        omp_set_num_threads(1);
        struct outcome first = run(&as, whole, 1, in_order);
        print_message("setting %d: nll %.9g %.9g, %lld gradients\n", i, first.nll[0][0],
                      first.nll[1][0], (long long)first.grads);
        assert_true(first.nll[0][0] > 0 && isfinite(first.nll[0][0]));
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            omp_set_num_threads(rows[k].threads);
            struct outcome o = run(&as, rows[k].layers, rows[k].stages, rows[k].slots);
            expect_same(&first, &o);
            free(o.grad);
        }
        free(first.grad);
    }
}

static void forward_only_gives_the_same_loss(void **state)
{
    struct setting as;
    omp_set_num_threads(2);
    for (int i = 0; i < SETTINGS; i++) {
        if (!setting_at(i, *state, &as))
            continue;
        struct outcome first = run(&as, whole, 1, in_order);
        struct part p;
        struct batch batch;
        part_init(&p, &as, 0, LAYERS, true, true, false, 1, NULL);
        for (int b = 0; b < BATCHES; b++) {
            double nll[MAX_SEGMENTS] = {0};
            batch_init(&batch, b, as.shape->vocab);
            struct stage_loss loss = {
                .target = batch.target, .grad_scale = 1, .nll = nll};
            stage_forward(p.stage, 0, &batch.rows, batch.ids, NULL, NULL, &loss);
            assert_memory_equal(nll, first.nll[b], sizeof nll);
        }
        assert_null(stage_residual(p.stage, 0, 0));
        part_fini(&p);
        free(first.grad);
    }
}

static void forward_only_stages_hand_on(void **state)
{
    struct setting as;
    for (int i = 0; i < SETTINGS; i++) {
        if (!setting_at(i, *state, &as))
            continue;
        struct outcome first = run(&as, whole, 1, in_order);
        struct part a, b;
        struct batch batch;
        double nll[MAX_SEGMENTS] = {0};
        size_t bytes = dtype_bytes(as.dtype) * (size_t)(MAX_ROWS * as.shape->hidden);
        part_init(&a, &as, 0, 1, true, false, false, 1, NULL);
        part_init(&b, &as, 1, 3, false, true, false, 1, NULL);
        batch_init(&batch, 0, as.shape->vocab);
        struct stage_loss loss = {.target = batch.target, .grad_scale = 1, .nll = nll};
        stage_forward(a.stage, 0, &batch.rows, batch.ids, NULL, a.out[0], NULL);
        void *sent = malloc(bytes);
        assert_non_null(sent);
        memcpy(sent, a.out[0], bytes);
        stage_forward(b.stage, 0, &batch.rows, NULL, a.out[0], NULL, &loss);
        assert_memory_equal(nll, first.nll[0], sizeof nll);
        assert_memory_equal(sent, a.out[0], bytes); /* `in` is only read */
        free(sent);
        part_fini(&a);
        part_fini(&b);
        free(first.grad);
    }
}

/* The second stage owns no copies; the lender's follow new weights for both. */
static void a_lender_packs_for_both(void **state)
{
    struct setting as = {&shapes[0], DTYPE_BF16, STAGE_PACK_BOTH, *state};
    if (!*state)
        skip();
    struct part a, b;
    struct batch batch;
    double nll[2][MAX_SEGMENTS] = {{0}};
    part_init(&a, &as, 0, LAYERS, true, true, true, 1, NULL);
    part_init(&b, &as, 0, LAYERS, true, true, false, 1, a.stage);
    assert_true(stage_bytes(&b.spec, *state) < stage_bytes(&a.spec, *state));
    batch_init(&batch, 0, as.shape->vocab);
    for (int changed = 0; changed < 2; changed++) {
        struct stage_loss loss = {
            .target = batch.target, .grad_scale = 1, .nll = nll[changed]};
        stage_forward(b.stage, 0, &batch.rows, batch.ids, NULL, NULL, &loss);
        for (int64_t i = 0; i < a.slab.weights; i += 3)
            a.rounded[i] ^= 0x8000; /* the sign */
        memcpy(b.rounded, a.rounded, (size_t)a.slab.weights * sizeof *a.rounded);
        stage_weights_changed(a.stage);
    }
    print_message("nll %.9g, then %.9g\n", nll[0][0], nll[1][0]);
    assert_true(nll[0][0] != nll[1][0]);
    for (int64_t i = 0; i < a.slab.weights; i += 3)
        a.rounded[i] ^= 0x8000;
    stage_weights_changed(a.stage);
    struct stage_loss loss = {.target = batch.target, .grad_scale = 1, .nll = nll[0]};
    stage_forward(a.stage, 0, &batch.rows, batch.ids, NULL, NULL, &loss);
    assert_memory_equal(nll[0], nll[1], sizeof nll[0]);
    part_fini(&b);
    part_fini(&a);
}

static void logits_are_those_of_the_loss(void **state)
{
    struct setting as = {&shapes[0], DTYPE_F32, STAGE_PACK_BOTH, *state};
    struct part p;
    struct batch batch;
    double nll[MAX_SEGMENTS];
    float row_nll[MAX_ROWS], logits[3 * 61];
    part_init(&p, &as, 0, LAYERS, true, true, true, 2, NULL);
    batch_init(&batch, 0, shapes[0].vocab);
    struct stage_loss loss = {
        .target = batch.target, .grad_scale = 1, .nll = nll, .row_nll = row_nll};
    stage_forward(p.stage, 1, &batch.rows, batch.ids, NULL, NULL, &loss);
    stage_logits(p.stage, 1, 40, 3, logits);
    for (int i = 0; i < 3; i++) {
        double sum = 0;
        int target = batch.target[40 + i];
        for (int j = 0; j < 61; j++)
            sum += exp((double)logits[i * 61 + j]);
        double expect = target < 0 ? 0 : log(sum) - (double)logits[i * 61 + target];
        print_message("row %d: %.7f, from the logits %.7f\n", 40 + i,
                      (double)row_nll[40 + i], expect);
        assert_true(fabs((double)row_nll[40 + i] - expect) < 1e-5);
    }
    assert_non_null(stage_residual(p.stage, 1, 0));
    assert_non_null(stage_residual(p.stage, 1, LAYERS));
    assert_null(stage_residual(p.stage, 1, LAYERS + 1));
    part_fini(&p);
}

static void a_nan_weight_gives_a_nan_loss_and_gradient(void **state)
{
    struct part p;
    struct batch batch;
    double nll[MAX_SEGMENTS];
    struct setting as;
    for (int i = 0; i < SETTINGS * LAYERS; i++) {
        int layer = i % LAYERS;
        if (!setting_at(i / LAYERS, *state, &as) || as.shape != &shapes[0])
            continue;
        part_init(&p, &as, 0, LAYERS, true, true, true, 1, NULL);
        const struct slab_entry *e = slab_find(&p.slab, ROLE_UP_PROJ, layer, false);
        p.weights[e->weight_at + 3] = NAN;
        p.rounded[e->weight_at + 3] = 0x7fc0;
        stage_weights_changed(p.stage);
        batch_init(&batch, 0, as.shape->vocab);
        struct stage_loss loss = {.target = batch.target, .grad_scale = 1, .nll = nll};
        stage_forward(p.stage, 0, &batch.rows, batch.ids, NULL, NULL, &loss);
        stage_backward(p.stage, 0, NULL, NULL);
        e = slab_find(&p.slab, ROLE_Q_PROJ, 0, false);
        print_message("NaN in layer %d, %s: nll %g, gradient %g\n", layer,
                      dtype_name(as.dtype), nll[0], (double)p.grads[e->grad_at]);
        assert_true(isnan(nll[0]) && isnan(p.grads[e->grad_at]));
        part_fini(&p);
    }
}

/* stage_bytes is what stage_create takes from malloc, but for alignment and the few
 * words about each packed copy. */
static void counts_its_bytes(void **state)
{
    struct setting as;
    for (int i = 0; i < 2 * SETTINGS; i++) {
        struct part p;
        struct err err;
        if (!setting_at(i / 2, *state, &as))
            continue;
        part_init(&p, &as, 1, 2, false, true, i % 2, 3, NULL);
        stage_destroy(p.stage);
        size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
        p.stage = stage_create(&p.spec, &p.slab, weights_of(&p), p.grads, *state, &err);
        size_t taken = mallinfo2().uordblks + mallinfo2().hblkhd - before;
        int64_t bytes = stage_bytes(&p.spec, *state);
        print_message("bytes %lld, taken %zu\n", (long long)bytes, taken);
        if (taken) /* 0: another malloc, of a sanitizer or valgrind */
            assert_true((int64_t)taken >= bytes && (int64_t)taken < bytes + 16384);
        part_fini(&p);
    }
}

static int create_ref(void **state)
{
    struct err err;
    *state = gemm_create(GEMM_REF, GEMM_LEVEL_GENERIC, &err);
    return *state ? 0 : -1;
}

static int create_blis(void **state)
{
    struct err err;
    *state = gemm_create(GEMM_BLIS, gemm_level_here(), &err);
    return *state ? 0 : -1;
}

/* NULL where there is none. */
static int create_onednn(void **state)
{
    struct err err;
    *state = gemm_create(GEMM_ONEDNN, gemm_level_here(), &err);
    return 0;
}

static int destroy_gemm(void **state)
{
    gemm_destroy(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest ref[] = {
        cmocka_unit_test(has_the_same_bits_on_any_threads_slots_and_splits),
        cmocka_unit_test(forward_only_gives_the_same_loss),
        cmocka_unit_test(forward_only_stages_hand_on),
        cmocka_unit_test(a_lender_packs_for_both),
        cmocka_unit_test(logits_are_those_of_the_loss),
        cmocka_unit_test(a_nan_weight_gives_a_nan_loss_and_gradient),
        cmocka_unit_test(counts_its_bytes),
    };
    const struct CMUnitTest fast[] = {
        cmocka_unit_test(has_the_same_bits_on_any_threads_slots_and_splits),
        cmocka_unit_test(forward_only_gives_the_same_loss),
        cmocka_unit_test(a_lender_packs_for_both),
        cmocka_unit_test(a_nan_weight_gives_a_nan_loss_and_gradient),
    };
    int failed = cmocka_run_group_tests(ref, create_ref, destroy_gemm);
    failed += cmocka_run_group_tests(fast, create_blis, destroy_gemm);
    return failed + cmocka_run_group_tests(fast, create_onednn, destroy_gemm);
}
