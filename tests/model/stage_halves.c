/* SPDX-License-Identifier: Apache-2.0 */
/* A backward pass in two halves gives the bits of one in whole, whatever comes between:
 * in other slots, with reused slots, on any split, in part frozen. */
#include "src/model/stage.h"

#include "src/base/rng.h"
#include "src/gemm/bf16.h"

#include <malloc.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    LAYERS = 4,
    MAX_STAGES = 3,
    BATCHES = 4,
    ROWS = 70,
    SLOTS = 3,
    WAITING = 3,
    MAX_PATTERNS = 3
};

/* q, k, v and gate, up lie together in the first, apart in the second. */
static const struct model_shape shapes[] = {
    {.layers = LAYERS,
     .hidden = 32,
     .ff = 40,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 8,
     .vocab = 61,
     .max_positions = 128,
     .rope_theta = 1e4,
     .norm_eps = 1e-5,
     .bos_id = -1,
     .eos_id = -1},
    {.layers = LAYERS,
     .hidden = 21,
     .ff = 37,
     .heads = 3,
     .kv_heads = 1,
     .head_dim = 6,
     .vocab = 50,
     .max_positions = 128,
     .window = 9,
     .rope_theta = 1e6,
     .norm_eps = 1e-6,
     .tied = true,
     .bos_id = -1,
     .eos_id = -1},
};

static const struct {
    int stages, layers[MAX_STAGES];
} splits[] = {{1, {4}}, {2, {3, 1}}, {3, {1, 2, 1}}, {3, {0, 4, 0}}};

/* F: forward, B: input gradient, W: weight gradient, A: all of the backward; of these
 * micro-batches, in slot micro-batch mod SLOTS. The first is what all must equal. */
static const char *const orders[] = {
    "F0A0F1A1F2A2F3A3",         "F0F1F2A0A1F3A2A3",         "F0B0W0F1B1W1F2B2W2F3B3W3",
    "F0F1F2B0B1W0F3B2B3W1W2W3", "F0F1B0F2B1B2W0F3W1B3W2W3", "F0F1F2B0W0A1F3A2B3W3",
};

static const struct {
    const char *pattern[MAX_PATTERNS];
} freezes[] = {
    {{NULL}},
    {{"layers.0-1", "model.embed_tokens.weight"}},
    {{"*q_proj*", "*gate_proj*"}},
    {{"*v_proj*", "*up_proj*", "*down_proj*"}},
    {{"*self_attn*", "*mlp*"}},
    {{"layers.0-3", "model.embed_tokens.weight"}},
    {{"layers.0-3", "model.norm.weight"}},
};

struct setting {
    const struct model_shape *shape;
    enum dtype dtype;
    struct gemm *gemm;
    struct freeze freeze;
};

struct part {
    struct slab slab;
    struct stage_spec spec;
    struct stage *stage;
    float *weights, *grads;
    uint16_t *rounded;
    void *out[BATCHES], *dout[BATCHES]; /* [ROWS, D] what it hands on, and gets back */
};

static void *zeroed(int64_t n)
{
    void *p = calloc((size_t)n, sizeof(float));
    assert_non_null(p);
    return p;
}

static const void *weights_of(const struct part *p)
{
    return p->spec.dtype == DTYPE_F32 ? (const void *)p->weights : p->rounded;
}

static void part_init(struct part *p, const struct setting *as, int first, int layers,
                      bool embed, bool head, int waiting)
{
    struct err err;
    const struct model_shape *s = as->shape;
    *p = (struct part){.spec = {.shape = s,
                                .first_layer = first,
                                .layers = layers,
                                .embed = embed,
                                .head = head,
                                .max_rows = ROWS,
                                .max_length = ROWS,
                                .slots = SLOTS,
                                .waiting = waiting,
                                .training = true,
                                .dtype = as->dtype}};
    p->spec.din_unused = !freeze_trains_before(&as->freeze, s, first);
    assert_int_equal(slab_init(&p->slab, s, first, layers, embed, head, &err), 0);
    slab_freeze(&p->slab, &as->freeze);
    p->weights = zeroed(p->slab.weights);
    p->rounded = zeroed(p->slab.weights);
    p->grads = zeroed(p->slab.grads);
    for (int i = 0; i < p->slab.entries; i++) {
        const struct slab_entry *e = &p->slab.entry[i];
        for (int64_t k = 0; k < e->tensor.elements; k++) {
            double x = rng_normal(3, (uint64_t)e->tensor.index, (uint64_t)k);
            p->weights[e->weight_at + k] =
                (float)(e->tensor.ndim == 1 ? 1 + 0.2 * x : 0.25 * x);
        }
    }
    dtype_from_f32(DTYPE_BF16, p->weights, p->slab.weights, p->rounded);
    p->stage =
        stage_create(&p->spec, &p->slab, weights_of(p), p->grads, as->gemm, &err);
    assert_non_null(p->stage);
    stage_weights_changed(p->stage);
    for (int b = 0; b < BATCHES; b++) {
        p->out[b] = zeroed(ROWS * s->hidden);
        p->dout[b] = zeroed(ROWS * s->hidden);
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

struct pipe {
    const struct setting *as;
    int stages;
    struct part part[MAX_STAGES];
    double nll[BATCHES][2];
};

/* Micro-batches of two segments, of 70, 63, 56 and 49 rows. */
static void forward(struct pipe *p, int b)
{
    int n = ROWS - 7 * b, begin[] = {0, 31, n}, position[ROWS];
    int32_t ids[ROWS], target[ROWS];
    uint64_t vocab = (uint64_t)p->as->shape->vocab;
    for (int t = 0; t < n; t++) {
        uint64_t at = (uint64_t)(b * ROWS + t);
        position[t] = t < begin[1] ? t : t - begin[1];
        ids[t] = (int32_t)(rng_u64(1, 1, at) % vocab);
        target[t] = (int32_t)(rng_u64(1, 2, at) % vocab);
    }
    struct rows rows = {
        .rows = n, .segments = 2, .segment_begin = begin, .position = position};
    struct stage_loss loss = {.target = target, .grad_scale = 0.01f, .nll = p->nll[b]};
    for (int k = 0; k < p->stages; k++) {
        bool head = k == p->stages - 1;
        stage_forward(p->part[k].stage, b % SLOTS, &rows, k == 0 ? ids : NULL,
                      k == 0 ? NULL : p->part[k - 1].out[b],
                      head ? NULL : p->part[k].out[b], head ? &loss : NULL);
    }
}

static void backward(struct pipe *p, int b,
                     void (*f)(struct stage *s, int slot, const void *dout, void *din))
{
    for (int k = p->stages - 1; k >= 0; k--)
        f(p->part[k].stage, b % SLOTS, k == p->stages - 1 ? NULL : p->part[k].dout[b],
          k == 0 ? NULL : p->part[k - 1].dout[b]);
}

static void weight(struct pipe *p, int b)
{
    for (int k = 0; k < p->stages; k++)
        stage_backward_weight(p->part[k].stage, b % SLOTS);
}

/* Nothing that micro-batch b travelled in is read again. */
static void forget(struct pipe *p, int b)
{
    size_t bytes = (size_t)(ROWS * p->as->shape->hidden) * dtype_bytes(p->as->dtype);
    for (int k = 0; k < p->stages; k++) {
        memset(p->part[k].out[b], 0xff, bytes);
        memset(p->part[k].dout[b], 0xff, bytes);
    }
}

static void run(struct pipe *p, const struct setting *as, int stages, const int *layers,
                const char *order)
{
    *p = (struct pipe){.as = as, .stages = stages};
    int waiting = strchr(order, 'B') ? WAITING : 0;
    for (int k = 0, first = 0; k < stages; first += layers[k++])
        part_init(&p->part[k], as, first, layers[k], k == 0, k == stages - 1, waiting);
    for (const char *at = order; *at; at += 2) {
        int b = at[1] - '0';
        if (*at == 'F')
            forward(p, b);
        else if (*at == 'B')
            backward(p, b, stage_backward_input);
        else if (*at == 'A')
            backward(p, b, stage_backward);
        else
            weight(p, b);
        if (*at == 'A' || *at == 'W')
            forget(p, b);
    }
}

static void fini(struct pipe *p)
{
    for (int k = 0; k < p->stages; k++)
        part_fini(&p->part[k]);
}

static void read_freeze(struct freeze *f, int k, char *pattern[MAX_PATTERNS],
                        char text[MAX_PATTERNS][64])
{
    *f = (struct freeze){0, pattern};
    for (int i = 0; i < MAX_PATTERNS && freezes[k].pattern[i]; i++)
        pattern[f->patterns++] = strcpy(text[i], freezes[k].pattern[i]);
}

static void halves_give_the_bits_of_the_whole(void **state)
{
    char *pattern[MAX_PATTERNS], text[MAX_PATTERNS][64];
    int compared = 0;
    int64_t sums = 0;
    for (int i = 0; i < 4; i++)
        for (int f = 0; f < (int)(sizeof freezes / sizeof *freezes); f++)
            for (size_t j = 0; j < sizeof splits / sizeof *splits; j++) {
                struct setting as = {.shape = &shapes[i % 2],
                                     .dtype = i < 2 ? DTYPE_F32 : DTYPE_BF16,
                                     .gemm = *state};
                struct pipe whole;
                if (f > 0 && (j != 2 || (i != 0 && i != 3)))
                    continue;
                read_freeze(&as.freeze, f, pattern, text);
                omp_set_num_threads(1);
                run(&whole, &as, splits[j].stages, splits[j].layers, orders[0]);
                omp_set_num_threads(2);
                for (size_t o = 1; o < sizeof orders / sizeof *orders; o++) {
                    struct pipe p;
                    run(&p, &as, splits[j].stages, splits[j].layers, orders[o]);
                    assert_memory_equal(p.nll, whole.nll, sizeof p.nll);
                    for (int k = 0; k < p.stages; k++) {
                        const struct part *a = &whole.part[k], *b = &p.part[k];
                        size_t bytes = (size_t)a->slab.grads * sizeof(float);
                        sums += a->slab.grads;
                        if (memcmp(a->grads, b->grads, bytes) != 0)
                            fail_msg("shape %d, freeze %d, split %zu, %s: the "
                                     "gradients of stage %d differ",
                                     i, f, j, orders[o], k);
                    }
                    compared++;
                    fini(&p);
                }
                assert_true(whole.nll[0][0] > 0);
                fini(&whole);
            }
    print_message("%d runs, %lld gradient sums\n", compared, (long long)sums);
}

static int64_t elements(int64_t n, enum dtype t)
{
    return (n * (int64_t)dtype_bytes(t) + 63) / 64 * 64;
}

/* What one more micro-batch waits with: of each layer the activation and the gradients
 * of its middle and output, but for the last one's output, which arrives or waits in
 * the slot; and all of it is what malloc gives. */
static void what_waits_is_counted(void **state)
{
    for (int i = 0; i < 2; i++) {
        enum dtype t = i ? DTYPE_BF16 : DTYPE_F32;
        struct setting as = {.shape = &shapes[0], .dtype = t, .gemm = *state};
        struct part p;
        struct err err;
        part_init(&p, &as, 1, 2, false, true, 2);
        struct stage_spec less = p.spec;
        less.waiting = 1;
        int64_t bytes = stage_bytes(&p.spec, *state);
        int64_t one = bytes - stage_bytes(&less, *state);
        int64_t act = elements(ROWS * shapes[0].ff, t);
        int64_t residual = elements(ROWS * shapes[0].hidden, t);
        int64_t want = 2 * (act + residual) + residual;
        print_message("%s: %lld bytes wait, expected %lld and lists\n", dtype_name(t),
                      (long long)one, (long long)want);
        assert_true(one >= want && one <= want + 512);
        stage_destroy(p.stage);
        size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
        p.stage = stage_create(&p.spec, &p.slab, weights_of(&p), p.grads, *state, &err);
        size_t taken = mallinfo2().uordblks + mallinfo2().hblkhd - before;
        if (taken) /* 0: another malloc, of a sanitizer or valgrind */
            assert_true((int64_t)taken >= bytes && (int64_t)taken < bytes + 16384);
        part_fini(&p);
    }
}

static int create(void **state)
{
    struct err err;
    *state = gemm_create(GEMM_OWN, gemm_level_here(), &err);
    return *state ? 0 : -1;
}

static int destroy(void **state)
{
    gemm_destroy(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_give_the_bits_of_the_whole),
        cmocka_unit_test(what_waits_is_counted),
    };
    return cmocka_run_group_tests(tests, create, destroy);
}
