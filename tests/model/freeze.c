/* SPDX-License-Identifier: Apache-2.0 */
/* With some tensors frozen, the gradients of the others have the bits that they have
 * with none frozen, whatever the split; no gradient is touched that nobody wants. */
#include "src/model/stage.h"

#include "src/base/rng.h"
#include "src/gemm/bf16.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 4, MAX_STAGES = 3, ROWS = 70, MAX_PATTERNS = 3 };

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
    const char *pattern[MAX_PATTERNS];
    bool untied; /* else for the tied shape too */
} freezes[] = {
    {{"model.embed_tokens.weight"}, false},
    {{"layers.0-1"}, false},
    {{"layers.2-3"}, false},
    {{"layers.0-1", "model.embed_tokens.weight"}, false},
    {{"layers.1", "layers.3", "*norm*"}, false},
    {{"*q_proj*"}, false},
    {{"*k_proj*", "*gate_proj*"}, false},
    {{"*v_proj*", "*up_proj*", "*down_proj*"}, false},
    {{"*self_attn*", "model.norm.weight"}, false},
    {{"layers.0-3", "model.embed_tokens.weight"}, false}, /* the final norm is left */
    {{"layers.0-3", "*embed*", "*.norm.weight"}, true},   /* the head */
    {{"layers.0-3", "model.norm.weight"}, false},         /* the embedding */
    {{"lm_head.weight"}, true},
};

static const struct {
    int stages, layers[MAX_STAGES];
} splits[] = {{1, {4}}, {2, {2, 2}}, {3, {1, 2, 1}}, {3, {0, 4, 0}}};

struct setting {
    const struct model_shape *shape;
    enum dtype dtype;
    struct gemm *gemm;
    struct freeze freeze;
};

struct part {
    struct slab slab;
    struct stage *stage;
    float *weights, *grads;
    uint16_t *rounded;
    void *out, *dout; /* [ROWS, D] what it hands on, and gets back */
};

static void *zeroed(int64_t n)
{
    void *p = calloc((size_t)n, sizeof(float));
    assert_non_null(p);
    return p;
}

static void part_init(struct part *p, const struct setting *as, int first, int layers,
                      bool embed, bool head)
{
    struct err err;
    const struct model_shape *s = as->shape;
    struct stage_spec spec = {.shape = s,
                              .first_layer = first,
                              .layers = layers,
                              .embed = embed,
                              .head = head,
                              .max_rows = ROWS,
                              .max_length = ROWS,
                              .slots = 1,
                              .training = true,
                              .dtype = as->dtype};
    spec.din_unused = !freeze_trains_before(&as->freeze, s, first);
    assert_int_equal(slab_init(&p->slab, s, first, layers, embed, head, &err), 0);
    slab_freeze(&p->slab, &as->freeze);
    p->weights = zeroed(p->slab.weights);
    p->rounded = zeroed(p->slab.weights);
    p->grads = zeroed(p->slab.grads);
    p->out = zeroed(ROWS * s->hidden);
    p->dout = zeroed(ROWS * s->hidden);
    for (int i = 0; i < p->slab.entries; i++) {
        const struct slab_entry *e = &p->slab.entry[i];
        for (int64_t k = 0; k < e->tensor.elements; k++) {
            double x = rng_normal(3, (uint64_t)e->tensor.index, (uint64_t)k);
            p->weights[e->weight_at + k] =
                (float)(e->tensor.ndim == 1 ? 1 + 0.2 * x : 0.25 * x);
        }
    }
    dtype_from_f32(DTYPE_BF16, p->weights, p->slab.weights, p->rounded);
    const void *weights = as->dtype == DTYPE_F32 ? (void *)p->weights : p->rounded;
    p->stage = stage_create(&spec, &p->slab, weights, p->grads, as->gemm, &err);
    assert_non_null(p->stage);
    stage_weights_changed(p->stage);
}

static void part_fini(struct part *p)
{
    stage_destroy(p->stage);
    slab_fini(&p->slab);
    free(p->weights);
    free(p->grads);
    free(p->rounded);
    free(p->out);
    free(p->dout);
}

/* Gradients by place in the table, the tied head's last; NULL: frozen. */
struct outcome {
    double nll;
    float *grad[1 + 9 * LAYERS + 3];
    int64_t sums;
};

static void gather(struct outcome *o, const struct model_shape *s, const struct part *p)
{
    o->sums += p->slab.grads;
    for (int i = 0; i < p->slab.entries; i++) {
        const struct slab_entry *e = &p->slab.entry[i];
        if (e->frozen)
            continue;
        int at = e->tied_head ? table_count(s) : e->tensor.index;
        o->grad[at] = zeroed(e->tensor.elements);
        memcpy(o->grad[at], p->grads + e->grad_at,
               (size_t)e->tensor.elements * sizeof(float));
    }
}

static void outcome_fini(struct outcome *o)
{
    for (size_t i = 0; i < sizeof o->grad / sizeof *o->grad; i++)
        free(o->grad[i]);
}

/* One micro-batch forward and backward. A gradient that is not wanted is not sent: in
 * its place lies what was there, 0xff in every byte. */
static struct outcome run(const struct setting *as, int stages, const int *layers)
{
    static const int begin[] = {0, 31, ROWS};
    const struct model_shape *s = as->shape;
    struct part part[MAX_STAGES];
    struct outcome o = {0};
    int position[ROWS];
    int32_t ids[ROWS], target[ROWS];
    size_t bytes = (size_t)(ROWS * s->hidden) * dtype_bytes(as->dtype);
    double nll[2];
    for (int t = 0; t < ROWS; t++) {
        position[t] = t < begin[1] ? t : t - begin[1];
        ids[t] = (int32_t)(rng_u64(1, 1, (uint64_t)t) % (uint64_t)s->vocab);
        target[t] = (int32_t)(rng_u64(1, 2, (uint64_t)t) % (uint64_t)s->vocab);
    }
    struct rows rows = {
        .rows = ROWS, .segments = 2, .segment_begin = begin, .position = position};
    struct stage_loss loss = {.target = target, .grad_scale = 0.01f, .nll = nll};
    for (int k = 0, first = 0; k < stages; first += layers[k++]) {
        bool head = k == stages - 1;
        part_init(&part[k], as, first, layers[k], k == 0, head);
        memset(part[k].dout, 0xff, bytes);
        stage_forward(part[k].stage, 0, &rows, k == 0 ? ids : NULL,
                      k == 0 ? NULL : part[k - 1].out, head ? NULL : part[k].out,
                      head ? &loss : NULL);
    }
    for (int k = stages - 1; k >= 0; k--)
        stage_backward(part[k].stage, 0, k == stages - 1 ? NULL : part[k].dout,
                       k == 0 ? NULL : part[k - 1].dout);
    o.nll = nll[0] + nll[1];
    for (int k = 0; k < stages; k++) {
        gather(&o, s, &part[k]);
        part_fini(&part[k]);
    }
    return o;
}

/* Trained tensors that were compared. */
static int compare(const struct setting *as, const struct outcome *want,
                   const struct outcome *o)
{
    int n = 0;
    assert_true(o->nll == want->nll);
    for (int i = 0; i <= table_count(as->shape); i++) {
        bool head = i == table_count(as->shape);
        struct tensor t = table_at(as->shape, head ? 0 : i);
        bool trained = want->grad[i] && !freeze_holds(&as->freeze, &t);
        char label[64];
        tensor_label(&t, label, sizeof label);
        if (trained != (o->grad[i] != NULL))
            fail_msg("%s: trained %d, expected %d", label, !trained, trained);
        if (!trained)
            continue;
        n++;
        if (memcmp(o->grad[i], want->grad[i], (size_t)t.elements * sizeof(float)) != 0)
            fail_msg("%s: its gradient differs", label);
    }
    return n;
}

static void trained_gradients_are_those_of_the_whole(void **state)
{
    for (int i = 0; i < 4; i++) {
        struct setting as = {.shape = &shapes[i % 2],
                             .dtype = i < 2 ? DTYPE_F32 : DTYPE_BF16,
                             .gemm = *state};
        struct outcome whole = run(&as, 1, splits[0].layers);
        assert_true(whole.nll > 0);
        for (size_t k = 0; k < sizeof freezes / sizeof *freezes; k++) {
            char *pattern[MAX_PATTERNS], text[MAX_PATTERNS][64];
            struct err err;
            as.freeze = (struct freeze){0, pattern};
            for (int p = 0; p < MAX_PATTERNS && freezes[k].pattern[p]; p++)
                pattern[as.freeze.patterns++] = strcpy(text[p], freezes[k].pattern[p]);
            if (freezes[k].untied && as.shape->tied)
                continue;
            assert_int_equal(freeze_check(&as.freeze, as.shape, &err), 0);
            for (size_t j = 0; j < sizeof splits / sizeof *splits; j++) {
                struct outcome o = run(&as, splits[j].stages, splits[j].layers);
                int n = compare(&as, &whole, &o);
                print_message("%s, %s, split %zu: %d tensors, %lld of %lld sums\n",
                              dtype_name(as.dtype), pattern[0], j, n, (long long)o.sums,
                              (long long)whole.sums);
                assert_true(n > 0 && o.sums < whole.sums);
                outcome_fini(&o);
            }
            as.freeze = (struct freeze){0};
        }
        outcome_fini(&whole);
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
        cmocka_unit_test(trained_gradients_are_those_of_the_whole),
    };
    return cmocka_run_group_tests(tests, create, destroy);
}
