/* SPDX-License-Identifier: Apache-2.0 */
/* What preference tuning asks of a stage: pairs that share their prompt's rows, and
 * losses whose factors follow from the losses. */
#include "src/model/stage.h"

#include "src/base/rng.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 2, BATCHES = 2, SEGMENTS = 6, MAX_ROWS = 1300, VOCAB = 61 };

static const struct model_shape shapes[] = {
    {.layers = LAYERS,
     .hidden = 24,
     .ff = 37,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 8,
     .vocab = VOCAB,
     .max_positions = MAX_ROWS,
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
     .vocab = VOCAB,
     .max_positions = MAX_ROWS,
     .window = 50,
     .rope_theta = 1e6,
     .norm_eps = 1e-6,
     .tied = true,
     .bos_id = -1,
     .eos_id = -1},
};
enum { SHAPES = sizeof shapes / sizeof *shapes, KINDS = 2 * SHAPES };

struct batch {
    struct rows rows;
    int begin[SEGMENTS + 1], prefix[SEGMENTS];
    int position[MAX_ROWS];
    int32_t ids[MAX_ROWS], target[MAX_ROWS];
};

static void batch_begin(struct batch *b)
{
    *b = (struct batch){.rows = {.segment_begin = b->begin, .position = b->position}};
}

/* Places [first, end) of a text of which the first `prompt` tokens are not learnt; the
 * token at a place: that of its own stream from the prompt's end on. */
struct text {
    int first, end, prompt;
    uint64_t prompt_stream, stream;
};

static int32_t token(const struct text *x, int place)
{
    uint64_t stream = place < x->prompt ? x->prompt_stream : x->stream;
    return (int32_t)(rng_u64(5, stream, (uint64_t)place) % VOCAB);
}

static void add_segment(struct batch *b, const struct text *x, int prefix)
{
    int row = b->rows.rows, s = b->rows.segments;
    assert_true(s < SEGMENTS && row + x->end - x->first <= MAX_ROWS);
    for (int place = x->first; place < x->end; place++, row++) {
        b->ids[row] = token(x, place);
        b->target[row] = place + 1 < x->prompt ? -1 : token(x, place + 1);
        b->position[row] = place;
    }
    b->prefix[s] = prefix;
    b->begin[s + 1] = row;
    b->rows.segments = s + 1;
    b->rows.rows = row;
}

/* Tokens of a prompt and two answers to it. */
static const struct pair {
    int prompt, chosen, rejected;
} pairs[BATCHES][SEGMENTS / 2] = {{{70, 40, 9}, {1, 5, 7}, {66, 1, 150}},
                                  {{130, 20, 33}, {2, 3, 1}}};

/* branched: the second answer's segment begins at the prompt's last token. */
static void fill_pairs(struct batch *b, int index, bool branched)
{
    batch_begin(b);
    for (int i = 0; i < SEGMENTS / 2 && pairs[index][i].prompt; i++) {
        struct pair p = pairs[index][i];
        uint64_t stream = (uint64_t)(100 * index + 10 * i);
        struct text chosen = {0, p.prompt + p.chosen - 1, p.prompt, stream, stream + 1};
        struct text rejected = {branched ? p.prompt - 1 : 0, p.prompt + p.rejected - 1,
                                p.prompt, stream, stream + 2};
        add_segment(b, &chosen, 0);
        add_segment(b, &rejected, rejected.first);
    }
    b->rows.prefix = branched ? b->prefix : NULL;
}

/* Three texts; holes: some rows are not counted. */
static void fill_texts(struct batch *b, int rows, bool holes)
{
    batch_begin(b);
    for (int s = 0, left = rows; s < 3 && left > 0; s++) {
        int n = s == 2 || left < 3 ? left : left / 3;
        struct text x = {0, n, 0, 0, 7 + (uint64_t)s};
        add_segment(b, &x, 0);
        left -= n;
    }
    for (int t = 0; holes && t < rows; t++)
        if (t % 7 > 3 || t == 2)
            b->target[t] = -100;
}

struct model {
    struct slab slab;
    struct stage *stage;
    float *weights, *grads;
    uint16_t *rounded; /* weights in bf16 */
};

static void model_init(struct model *m, int kind, bool training, struct gemm *gemm)
{
    struct err err;
    const struct model_shape *s = &shapes[kind % SHAPES];
    struct stage_spec spec = {.shape = s,
                              .layers = LAYERS,
                              .embed = true,
                              .head = true,
                              .max_rows = MAX_ROWS,
                              .max_length = MAX_ROWS,
                              .slots = BATCHES,
                              .training = training,
                              .weighed = training,
                              .dtype = kind < SHAPES ? DTYPE_F32 : DTYPE_BF16,
                              .packing = STAGE_PACK_BOTH};
    assert_int_equal(slab_init(&m->slab, s, 0, LAYERS, true, true, &err), 0);
    m->weights = calloc((size_t)m->slab.weights, sizeof *m->weights);
    m->rounded = calloc((size_t)m->slab.weights, sizeof *m->rounded);
    m->grads = calloc((size_t)m->slab.grads, sizeof *m->grads);
    assert_true(m->weights && m->rounded && m->grads);
    for (int i = 0; i < m->slab.entries; i++) {
        const struct slab_entry *e = &m->slab.entry[i];
        for (int64_t k = 0; k < e->tensor.elements; k++) {
            double x = rng_normal(3, (uint64_t)e->tensor.index, (uint64_t)k);
            m->weights[e->weight_at + k] =
                (float)(e->tensor.ndim == 1 ? 1 + 0.2 * x : 0.25 * x);
        }
    }
    dtype_from_f32(DTYPE_BF16, m->weights, m->slab.weights, m->rounded);
    m->stage = stage_create(&spec, &m->slab,
                            kind < SHAPES ? (const void *)m->weights : m->rounded,
                            training ? m->grads : NULL, gemm, &err);
    assert_non_null(m->stage);
    stage_weights_changed(m->stage);
}

static void model_fini(struct model *m)
{
    stage_destroy(m->stage);
    slab_fini(&m->slab);
    free(m->weights);
    free(m->rounded);
    free(m->grads);
}

/* Sets the factors of one micro-batch to `scale`, which may be NULL: that of segment s
 * is then the loss of the pair's other segment, by 1000. */
struct weighing {
    const float *scale;
    int segments, calls;
    double nll[SEGMENTS];
};

static void weigh(void *context, const double *nll, float *scale)
{
    struct weighing *w = context;
    w->calls++;
    memcpy(w->nll, nll, (size_t)w->segments * sizeof *nll);
    for (int s = 0; s < w->segments; s++)
        scale[s] = w->scale ? w->scale[s] : (float)(nll[s ^ 1] / 1000);
}

struct outcome {
    double nll[BATCHES][SEGMENTS];
    float *grad; /* as the model's grads; owned, NULL without training */
};

/* How the loss is weighed. */
struct factors {
    float grad_scale;
    bool weigh;
    const float *scale; /* [SEGMENTS] or NULL, as struct weighing */
};

/* All micro-batches forward, then all backward. What the caller gave is gone by then.
 */
static struct outcome run(struct model *m, const struct batch *given, int batches,
                          struct factors f, bool training)
{
    struct outcome o = {0};
    size_t bytes = (size_t)m->slab.grads * sizeof *m->grads;
    memset(m->grads, 0, bytes);
    for (int i = 0; i < batches; i++) {
        static struct batch b;
        b = given[i];
        b.rows.segment_begin = b.begin;
        b.rows.position = b.position;
        b.rows.prefix = b.rows.prefix ? b.prefix : NULL;
        struct weighing w = {.scale = f.scale, .segments = b.rows.segments};
        struct stage_loss loss = {.target = b.target,
                                  .grad_scale = f.weigh ? NAN : f.grad_scale,
                                  .nll = o.nll[i],
                                  .weigh = f.weigh ? weigh : NULL,
                                  .context = &w};
        stage_forward(m->stage, i, &b.rows, b.ids, NULL, NULL, &loss);
        assert_int_equal(w.calls, f.weigh);
        if (f.weigh)
            assert_memory_equal(w.nll, o.nll[i], (size_t)w.segments * sizeof *w.nll);
        memset(&b, 0xff, sizeof b);
    }
    if (!training)
        return o;
    for (int i = 0; i < batches; i++)
        stage_backward(m->stage, i, NULL, NULL);
    o.grad = malloc(bytes);
    assert_non_null(o.grad);
    memcpy(o.grad, m->grads, bytes);
    return o;
}

static void expect_same(const struct model *m, const struct outcome *a,
                        const struct outcome *b)
{
    assert_memory_equal(a->nll, b->nll, sizeof a->nll);
    assert_memory_equal(a->grad, b->grad, (size_t)m->slab.grads * sizeof(float));
}

/* Largest difference of a tensor's gradients over their largest, the worst tensor's. */
static double worst_gradient(const struct model *m, const float *a, const float *b,
                             const char **name)
{
    double worst = 0;
    for (int i = 0; i < m->slab.entries; i++) {
        const struct slab_entry *e = &m->slab.entry[i];
        double error = 0, largest = 0;
        for (int64_t k = e->grad_at; k < e->grad_at + e->tensor.elements; k++) {
            error = fmax(error, fabs((double)a[k] - (double)b[k]));
            largest = fmax(largest, fabs((double)b[k]));
            assert_true(isfinite(a[k]) && isfinite(b[k]));
        }
        assert_true(largest > 0);
        if (error / largest >= worst) {
            worst = error / largest;
            *name = role_name(e->tensor.role);
        }
    }
    return worst;
}

static void expect_near(const struct model *m, const struct outcome *a,
                        const struct outcome *b, double nll, double gradient)
{
    const char *name = "";
    double error = 0;
    for (int i = 0; i < BATCHES; i++)
        for (int s = 0; s < SEGMENTS; s++)
            error = fmax(error, fabs(a->nll[i][s] - b->nll[i][s]) /
                                    fmax(fabs(b->nll[i][s]), 1));
    double worst = worst_gradient(m, a->grad, b->grad, &name);
    print_message("losses %.1e of %.0e, gradients %.1e of %.0e (%s)\n", error, nll,
                  worst, gradient, name);
    assert_true(error <= nll && worst <= gradient);
}

static const struct factors weighed = {.weigh = true}, plainly = {.grad_scale = 0.01f};

static void a_branch_equals_its_rows_in_full(void **state)
{
    static struct batch branched[BATCHES], full[BATCHES];
    for (int i = 0; i < BATCHES; i++) {
        fill_pairs(&branched[i], i, true);
        fill_pairs(&full[i], i, false);
        assert_true(branched[i].rows.rows < full[i].rows.rows);
    }
    for (int kind = 0; kind < KINDS; kind++) {
        struct model m;
        bool single = kind < SHAPES;
        model_init(&m, kind, true, *state);
        for (int w = 0; w < 2; w++) {
            omp_set_num_threads(1);
            struct outcome a = run(&m, branched, BATCHES, w ? weighed : plainly, true);
            struct outcome b = run(&m, full, BATCHES, w ? weighed : plainly, true);
            print_message("kind %d, nll %.9g %.9g: ", kind, a.nll[0][0], a.nll[0][1]);
            assert_true(a.nll[0][0] > 0 && a.nll[1][3] > 0);
            expect_near(&m, &a, &b, single ? 1e-6 : 5e-3, single ? 1e-5 : 3e-2);
            for (int threads = 2; threads <= 3; threads++) {
                omp_set_num_threads(threads);
                struct outcome c =
                    run(&m, branched, BATCHES, w ? weighed : plainly, true);
                expect_same(&m, &a, &c);
                free(c.grad);
            }
            free(a.grad);
            free(b.grad);
        }
        model_fini(&m);
    }
}

/* Logits of 512 rows fit in a chunk, four chunks in a bf16 group. */
static void equal_factors_give_the_bits_of_one(void **state)
{
    static const int counts[] = {1, 30, 512, 513, MAX_ROWS};
    static const float scale[SEGMENTS] = {0.01f, 0.01f, 0.01f, 0.01f, 0.01f, 0.01f};
    struct factors constant = {.weigh = true, .scale = scale};
    static struct batch b[BATCHES];
    for (int kind = 0; kind < KINDS; kind++) {
        struct model m;
        model_init(&m, kind, true, *state);
        for (size_t i = 0; i < 2 * sizeof counts / sizeof *counts; i++) {
            fill_texts(&b[0], counts[i / 2], i % 2);
            fill_pairs(&b[1], 0, true);
            omp_set_num_threads(i % 3 ? 2 : 1);
            struct outcome x = run(&m, b, BATCHES, plainly, true);
            struct outcome y = run(&m, b, BATCHES, constant, true);
            assert_true(x.nll[1][0] > 0);
            expect_same(&m, &x, &y);
            free(x.grad);
            free(y.grad);
        }
        model_fini(&m);
    }
}

/* Adds the gradients by the losses of one segment alone, by its factor. */
static void add_alone(struct model *m, const struct batch *b, int segment, float factor,
                      float *sum)
{
    static struct batch alone;
    alone = *b;
    for (int t = 0; t < b->rows.rows; t++)
        if (t < b->begin[segment] || t >= b->begin[segment + 1])
            alone.target[t] = -1;
    struct outcome o = run(m, &alone, 1, (struct factors){.grad_scale = factor}, true);
    for (int64_t i = 0; i < m->slab.grads; i++)
        sum[i] += o.grad[i];
    free(o.grad);
}

static void factors_are_each_segments_own(void **state)
{
    static const float scale[SEGMENTS] = {0.02f, -0.03f, 0.0f, -0.0f, -0.25f, 0.125f};
    static struct batch b;
    fill_pairs(&b, 0, true);
    for (int kind = 0; kind < SHAPES; kind++) {
        struct model m;
        const char *name = "";
        model_init(&m, kind, true, *state);
        float *sum = calloc((size_t)m.slab.grads, sizeof *sum);
        assert_non_null(sum);
        for (int s = 0; s < b.rows.segments; s++)
            if (scale[s] != 0)
                add_alone(&m, &b, s, scale[s], sum);
        struct factors own = {.weigh = true, .scale = scale};
        struct outcome o = run(&m, &b, 1, own, true);
        double worst = worst_gradient(&m, o.grad, sum, &name);
        print_message("kind %d: %.1e (%s)\n", kind, worst, name);
        assert_true(worst <= 1e-5);
        free(o.grad);
        free(sum);
        model_fini(&m);
    }
}

static void factors_of_zero_give_exact_zeros(void **state)
{
    static const float scale[SEGMENTS] = {0.0f, -0.0f, 0.0f, -0.0f, -0.0f, 0.0f};
    static struct batch b;
    fill_pairs(&b, 0, true);
    for (int kind = 0; kind < KINDS; kind++) {
        struct model m;
        model_init(&m, kind, true, *state);
        struct factors none = {.weigh = true, .scale = scale};
        struct outcome o = run(&m, &b, 1, none, true);
        for (int64_t i = 0; i < m.slab.grads; i++)
            assert_true(o.grad[i] == 0);
        free(o.grad);
        model_fini(&m);
    }
}

/* Rows with a target here are the ones without there: their gradients add up to those
 * of all rows. */
static void holes_leave_the_other_rows_alone(void **state)
{
    static struct batch all, some, rest;
    fill_texts(&all, MAX_ROWS, false);
    fill_texts(&some, MAX_ROWS, true);
    fill_texts(&rest, MAX_ROWS, false);
    for (int t = 0; t < MAX_ROWS; t++)
        if (some.target[t] >= 0)
            rest.target[t] = -1;
    for (int kind = 0; kind < SHAPES; kind++) {
        struct model m;
        model_init(&m, kind, true, *state);
        struct outcome a = run(&m, &all, 1, plainly, true);
        struct outcome b = run(&m, &some, 1, plainly, true);
        struct outcome c = run(&m, &rest, 1, plainly, true);
        for (int64_t i = 0; i < m.slab.grads; i++)
            b.grad[i] += c.grad[i];
        for (int s = 0; s < SEGMENTS; s++)
            b.nll[0][s] += c.nll[0][s];
        print_message("kind %d: ", kind);
        expect_near(&m, &b, &a, 1e-6, 1e-5);
        free(a.grad);
        free(b.grad);
        free(c.grad);
        model_fini(&m);
    }
}

/* The factors' call is made, with the same losses, and changes nothing. */
static void forward_only_stages_collect_too(void **state)
{
    static struct batch b[BATCHES];
    for (int i = 0; i < BATCHES; i++)
        fill_pairs(&b[i], i, true);
    for (int kind = 0; kind < KINDS; kind++) {
        struct model training, forward;
        model_init(&training, kind, true, *state);
        model_init(&forward, kind, false, *state);
        struct outcome x = run(&training, b, BATCHES, weighed, true);
        struct outcome y = run(&forward, b, BATCHES, weighed, false);
        struct outcome z = run(&forward, b, BATCHES, plainly, false);
        assert_memory_equal(x.nll, y.nll, sizeof x.nll);
        assert_memory_equal(x.nll, z.nll, sizeof x.nll);
        free(x.grad);
        model_fini(&training);
        model_fini(&forward);
    }
}

static int create_gemm(void **state)
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_branch_equals_its_rows_in_full),
        cmocka_unit_test(equal_factors_give_the_bits_of_one),
        cmocka_unit_test(factors_are_each_segments_own),
        cmocka_unit_test(factors_of_zero_give_exact_zeros),
        cmocka_unit_test(holes_leave_the_other_rows_alone),
        cmocka_unit_test(forward_only_stages_collect_too),
    };
    return cmocka_run_group_tests(tests, create_gemm, destroy_gemm);
}
