/* SPDX-License-Identifier: Apache-2.0 */
/* A stage's bits must not depend on threads, on slots or on the split of the layers. */
#include "src/model/stage.h"

#include "src/base/rng.h"

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
    b->rows = (struct rows){begins[index][n], n, begins[index], b->position};
    for (int s = 0; s < n; s++)
        for (int t = begins[index][s]; t < begins[index][s + 1]; t++) {
            uint64_t at = (uint64_t)(index * MAX_ROWS + t);
            b->position[t] = t - begins[index][s];
            b->ids[t] = (int32_t)(rng_u64(1, 1, at) % (uint64_t)vocab);
            b->target[t] =
                at % 5 == 3 ? -100 : (int32_t)(rng_u64(1, 2, at) % (uint64_t)vocab);
        }
}

struct part {
    struct slab slab;
    struct stage_spec spec;
    struct stage *stage;
    float *weights, *grads;
    float *out[BATCHES], *dout[BATCHES]; /* what it hands to the next stage */
};

static float *floats(int64_t n)
{
    float *p = calloc((size_t)n, sizeof *p);
    assert_non_null(p);
    return p;
}

/* Weights by place in the table, so that every split starts from the same model. */
static void part_init(struct part *p, const struct model_shape *s, int first,
                      int layers, bool embed, bool head, bool training, int slots,
                      struct gemm *g)
{
    struct err err;
    *p = (struct part){.spec = {.shape = s,
                                .first_layer = first,
                                .layers = layers,
                                .embed = embed,
                                .head = head,
                                .max_rows = MAX_ROWS,
                                .max_length = 90,
                                .slots = slots,
                                .training = training}};
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
    p->stage = stage_create(&p->spec, &p->slab, p->weights, training ? p->grads : NULL,
                            g, &err);
    assert_non_null(p->stage);
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
static struct outcome run(const struct model_shape *s, struct gemm *g,
                          const int *layers, int stages, const int *slots)
{
    struct part parts[MAX_STAGES];
    struct batch batch[BATCHES];
    struct outcome o = {0};
    for (int k = 0, first = 0; k < stages; first += layers[k++])
        part_init(&parts[k], s, first, layers[k], k == 0, k == stages - 1, true, 3, g);
    for (int b = 0; b < BATCHES; b++) {
        batch_init(&batch[b], b, s->vocab);
        struct stage_loss loss = {batch[b].target, 0.01f, o.nll[b], o.row_nll[b]};
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
    for (int i = 0; i < SHAPES; i++) {
        omp_set_num_threads(1);
        struct outcome first = run(&shapes[i], *state, whole, 1, in_order);
        print_message("shape %d: nll %.9g %.9g, %lld gradients\n", i, first.nll[0][0],
                      first.nll[1][0], (long long)first.grads);
        assert_true(first.nll[0][0] > 0 && isfinite(first.nll[0][0]));
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            omp_set_num_threads(rows[k].threads);
            struct outcome o =
                run(&shapes[i], *state, rows[k].layers, rows[k].stages, rows[k].slots);
            expect_same(&first, &o);
            free(o.grad);
        }
        free(first.grad);
    }
}

static void forward_only_gives_the_same_loss(void **state)
{
    omp_set_num_threads(2);
    for (int i = 0; i < SHAPES; i++) {
        struct outcome first = run(&shapes[i], *state, whole, 1, in_order);
        struct part p;
        struct batch batch;
        part_init(&p, &shapes[i], 0, LAYERS, true, true, false, 1, *state);
        for (int b = 0; b < BATCHES; b++) {
            double nll[MAX_SEGMENTS] = {0};
            batch_init(&batch, b, shapes[i].vocab);
            struct stage_loss loss = {batch.target, 1, nll, NULL};
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
    struct outcome first = run(&shapes[0], *state, whole, 1, in_order);
    struct part a, b;
    struct batch batch;
    double nll[MAX_SEGMENTS] = {0};
    part_init(&a, &shapes[0], 0, 1, true, false, false, 1, *state);
    part_init(&b, &shapes[0], 1, 3, false, true, false, 1, *state);
    batch_init(&batch, 0, shapes[0].vocab);
    struct stage_loss loss = {batch.target, 1, nll, NULL};
    stage_forward(a.stage, 0, &batch.rows, batch.ids, NULL, a.out[0], NULL);
    float *sent = floats(MAX_ROWS * shapes[0].hidden);
    memcpy(sent, a.out[0], sizeof(float) * (size_t)(MAX_ROWS * shapes[0].hidden));
    stage_forward(b.stage, 0, &batch.rows, NULL, a.out[0], NULL, &loss);
    assert_memory_equal(nll, first.nll[0], sizeof nll);
    assert_memory_equal(sent, a.out[0], /* `in` is only read */
                        sizeof(float) * (size_t)(MAX_ROWS * shapes[0].hidden));
    free(sent);
    part_fini(&a);
    part_fini(&b);
    free(first.grad);
}

static void logits_are_those_of_the_loss(void **state)
{
    struct part p;
    struct batch batch;
    double nll[MAX_SEGMENTS];
    float row_nll[MAX_ROWS], logits[3 * 61];
    part_init(&p, &shapes[0], 0, LAYERS, true, true, true, 2, *state);
    batch_init(&batch, 0, shapes[0].vocab);
    struct stage_loss loss = {batch.target, 1, nll, row_nll};
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
    for (int layer = 0; layer < LAYERS; layer++) {
        part_init(&p, &shapes[0], 0, LAYERS, true, true, true, 1, *state);
        const struct slab_entry *e = slab_find(&p.slab, ROLE_UP_PROJ, layer, false);
        p.weights[e->weight_at + 3] = NAN;
        batch_init(&batch, 0, shapes[0].vocab);
        struct stage_loss loss = {batch.target, 1, nll, NULL};
        stage_forward(p.stage, 0, &batch.rows, batch.ids, NULL, NULL, &loss);
        stage_backward(p.stage, 0, NULL, NULL);
        e = slab_find(&p.slab, ROLE_Q_PROJ, 0, false);
        print_message("NaN in layer %d: nll %g, gradient %g\n", layer, nll[0],
                      (double)p.grads[e->grad_at]);
        assert_true(isnan(nll[0]) && isnan(p.grads[e->grad_at]));
        part_fini(&p);
    }
}

/* stage_bytes is what stage_create takes from malloc, but for alignment. */
static void counts_its_bytes(void **state)
{
    for (int training = 0; training < 2; training++) {
        struct part p;
        struct err err;
        part_init(&p, &shapes[0], 1, 2, false, true, training, 3, *state);
        stage_destroy(p.stage);
        size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
        p.stage = stage_create(&p.spec, &p.slab, p.weights, p.grads, *state, &err);
        size_t taken = mallinfo2().uordblks + mallinfo2().hblkhd - before;
        int64_t bytes = stage_bytes(&p.spec, *state);
        print_message("bytes %lld, taken %zu\n", (long long)bytes, taken);
        if (taken) /* 0: another malloc, of a sanitizer or valgrind */
            assert_true((int64_t)taken >= bytes && (int64_t)taken < bytes + 8192);
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
        cmocka_unit_test(logits_are_those_of_the_loss),
        cmocka_unit_test(a_nan_weight_gives_a_nan_loss_and_gradient),
        cmocka_unit_test(counts_its_bytes),
    };
    const struct CMUnitTest blis[] = {
        cmocka_unit_test(has_the_same_bits_on_any_threads_slots_and_splits),
        cmocka_unit_test(forward_only_gives_the_same_loss),
        cmocka_unit_test(a_nan_weight_gives_a_nan_loss_and_gradient),
    };
    int failed = cmocka_run_group_tests(ref, create_ref, destroy_gemm);
    return failed + cmocka_run_group_tests(blis, create_blis, destroy_gemm);
}
