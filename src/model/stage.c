/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/stage.h"

#include "src/base/check.h"
#include "src/base/mem.h"
#include "src/model/block.h"
#include "src/model/embed.h"
#include "src/model/rmsnorm.h"
#include "src/model/rope.h"
#include "src/model/xent.h"

#include <omp.h>
#include <string.h>

/* One micro-batch in flight. A stage that only runs forward has one slot, in which all
 * layers share their arrays. */
struct slot {
    struct rows rows; /* a copy in the arrays below, when training */
    int *segment_begin, *position;
    int32_t *ids;
    float *embedded;         /* [R, D], embedding stages */
    float **y;               /* [layers] outputs, [R, D] each; NULL: the caller's */
    struct block_keep *keep; /* [layers] */
    const float **stream;    /* [layers + 1] the residual stream as it ran */
    float *rstd;             /* [R], and below: head stages */
    float *normed, *dnormed; /* [R, D] */
};

struct stage {
    struct stage_spec spec;
    struct model_shape shape;
    struct block_context context;
    struct block_params *params; /* [layers] */
    const float *embed;
    float *dembed;
    struct linear head;
    const float *norm;
    float *dnorm;
    float *cosine, *sine;
    float *gradient[2]; /* [R, D], training */
    float *logits;      /* a chunk's, head stages */
    double *nll;        /* [R], head stages */
    struct slot *slot;
};

static struct block_dims dims_of(const struct model_shape *m)
{
    return (struct block_dims){
        .hidden = m->hidden,
        .ff = m->ff,
        .eps = (float)m->norm_eps,
        .attention = {m->heads, m->kv_heads, m->head_dim, m->window, DTYPE_F32}};
}

static void lay_out_slot(struct slot *slot, struct arena *a,
                         const struct stage_spec *spec)
{
    int64_t rows = spec->max_rows, residual = rows * spec->shape->hidden;
    struct block_dims dims = dims_of(spec->shape);
    bool training = spec->training;
    *slot = (struct slot){0};
    slot->y = arena_take(a, spec->layers, sizeof *slot->y);
    slot->keep = arena_take(a, spec->layers, sizeof *slot->keep);
    slot->stream = arena_take(a, spec->layers + 1, sizeof *slot->stream);
    if (training) {
        slot->segment_begin = arena_take(a, rows + 1, sizeof(int));
        slot->position = arena_take(a, rows, sizeof(int));
        slot->ids = arena_take(a, spec->embed ? rows : 0, sizeof(int32_t));
    }
    slot->embedded = spec->embed ? arena_floats(a, residual) : NULL;
    float *shared_y = training ? NULL : arena_floats(a, residual);
    struct block_keep keep;
    for (int l = 0; l < spec->layers; l++) {
        bool callers = l == spec->layers - 1 && !spec->head;
        float *y = !training ? shared_y : callers ? NULL : arena_floats(a, residual);
        if (training || l == 0)
            block_keep_lay_out(&keep, a, &dims, spec->max_rows, training);
        if (!a->base)
            continue;
        slot->y[l] = callers ? NULL : y;
        slot->keep[l] = keep;
    }
    if (spec->head) {
        slot->rstd = arena_floats(a, rows);
        slot->normed = arena_floats(a, residual);
        slot->dnormed = training ? arena_floats(a, residual) : NULL;
    }
}

/* Lays the stage's arrays out in the arena, itself first; only counts if that has no
 * base (s is then any struct stage). */
static void lay_out(struct stage *s, struct arena *a, const struct stage_spec *spec)
{
    const struct model_shape *m = spec->shape;
    int64_t rows = spec->max_rows, residual = rows * m->hidden;
    struct block_dims dims = dims_of(m);
    int slots = spec->training ? spec->slots : 1;
    arena_take(a, 1, sizeof *s);
    s->params = arena_take(a, spec->layers, sizeof *s->params);
    s->slot = arena_take(a, slots, sizeof *s->slot);
    if (spec->layers > 0) {
        int64_t angles = (int64_t)m->max_positions * m->head_dim / 2;
        s->cosine = arena_floats(a, angles);
        s->sine = arena_floats(a, angles);
        block_context_lay_out(&s->context, a, &dims, spec->max_rows, spec->max_length,
                              omp_get_max_threads(), spec->training);
    }
    if (spec->training) {
        s->gradient[0] = arena_floats(a, residual);
        s->gradient[1] = arena_floats(a, residual);
    }
    if (spec->head) {
        s->logits = arena_floats(a, xent_scratch_floats(m->vocab, spec->max_rows));
        s->nll = arena_take(a, rows, sizeof *s->nll);
    }
    for (int i = 0; i < slots; i++) {
        struct slot one;
        lay_out_slot(&one, a, spec);
        if (a->base)
            s->slot[i] = one;
    }
}

int64_t stage_bytes(const struct stage_spec *spec, const struct gemm *gemm)
{
    (void)gemm;
    struct stage any = {0};
    struct arena a = {0};
    lay_out(&any, &a, spec);
    return a.used;
}

/* The slab's arrays, while the parameters are looked up. */
struct source {
    const struct slab *slab;
    const float *weights;
    float *grads;
};

static const struct slab_entry *entry_of(const struct source *from, enum tensor_role r,
                                         int layer, bool tied_head)
{
    const struct slab_entry *e = slab_find(from->slab, r, layer, tied_head);
    CHECK(e, "the slab lacks %s of layer %d", role_name(r), layer);
    return e;
}

static struct linear linear_of(const struct source *from, enum tensor_role r, int layer,
                               bool tied_head)
{
    const struct slab_entry *e = entry_of(from, r, layer, tied_head);
    return (struct linear){.in = to_int(e->tensor.cols),
                           .out = to_int(e->tensor.rows),
                           .w = from->weights + e->weight_at,
                           .dw = from->grads ? from->grads + e->grad_at : NULL};
}

static const float *norm_of(const struct source *from, enum tensor_role r, int layer,
                            float **gradient)
{
    const struct slab_entry *e = entry_of(from, r, layer, false);
    *gradient = from->grads ? from->grads + e->grad_at : NULL;
    return from->weights + e->weight_at;
}

static void find_params(struct stage *s, const struct source *from)
{
    for (int i = 0; i < s->spec.layers; i++) {
        struct block_params *p = &s->params[i];
        int layer = s->spec.first_layer + i;
        p->q = linear_of(from, ROLE_Q_PROJ, layer, false);
        p->k = linear_of(from, ROLE_K_PROJ, layer, false);
        p->v = linear_of(from, ROLE_V_PROJ, layer, false);
        p->o = linear_of(from, ROLE_O_PROJ, layer, false);
        p->gate = linear_of(from, ROLE_GATE_PROJ, layer, false);
        p->up = linear_of(from, ROLE_UP_PROJ, layer, false);
        p->down = linear_of(from, ROLE_DOWN_PROJ, layer, false);
        p->norm1 = norm_of(from, ROLE_INPUT_LAYERNORM, layer, &p->dnorm1);
        p->norm2 = norm_of(from, ROLE_POST_ATTENTION_LAYERNORM, layer, &p->dnorm2);
    }
    if (s->spec.embed) {
        struct linear table = linear_of(from, ROLE_EMBED_TOKENS, -1, false);
        s->embed = table.w;
        s->dembed = table.dw;
    }
    if (s->spec.head) {
        s->norm = norm_of(from, ROLE_NORM, -1, &s->dnorm);
        s->head = s->shape.tied ? linear_of(from, ROLE_EMBED_TOKENS, -1, true)
                                : linear_of(from, ROLE_LM_HEAD, -1, false);
    }
}

struct stage *stage_create(const struct stage_spec *spec, const struct slab *slab,
                           const void *weights, float *grads, struct gemm *gemm,
                           struct err *err)
{
    CHECK(spec->dtype == DTYPE_F32, "activations of %s", dtype_name(spec->dtype));
    CHECK(spec->layers > 0 || spec->embed || spec->head, "a stage with nothing in it");
    CHECK(grads || !spec->training, "training needs gradient sums");
    CHECK(spec->max_rows > 0 && spec->max_length > 0 && spec->slots > 0,
          "%d rows, %d long, %d slots", spec->max_rows, spec->max_length, spec->slots);
    struct arena a = {.base = mem_array(stage_bytes(spec, gemm), 1, err)};
    if (!a.base) {
        err_prefix(err, "model: activations");
        return NULL;
    }
    struct stage *s = (struct stage *)(void *)a.base;
    lay_out(s, &a, spec);
    s->spec = *spec;
    s->shape = *spec->shape;
    s->spec.shape = &s->shape;
    s->context.g = gemm;
    s->context.cosine = s->cosine;
    s->context.sine = s->sine;
    if (spec->layers > 0)
        rope_table(s->shape.max_positions, s->shape.head_dim, s->shape.rope_theta,
                   s->cosine, s->sine);
    find_params(s, &(struct source){slab, weights, spec->training ? grads : NULL});
    return s;
}

void stage_destroy(struct stage *s)
{
    mem_free(s);
}

static struct slot *slot_at(const struct stage *s, int slot)
{
    CHECK(slot >= 0 && slot < s->spec.slots, "slot %d of %d", slot, s->spec.slots);
    return &s->slot[s->spec.training ? slot : 0];
}

static void begin_slot(const struct stage *s, struct slot *slot,
                       const struct rows *rows, const int32_t *ids)
{
    CHECK(rows->rows <= s->spec.max_rows, "a micro-batch of %d rows, %d planned",
          rows->rows, s->spec.max_rows);
    slot->rows = *rows;
    if (!s->spec.training)
        return;
    size_t n = (size_t)rows->rows;
    memcpy(slot->segment_begin, rows->segment_begin,
           ((size_t)rows->segments + 1) * sizeof *slot->segment_begin);
    memcpy(slot->position, rows->position, n * sizeof *slot->position);
    slot->rows.segment_begin = slot->segment_begin;
    slot->rows.position = slot->position;
    if (s->spec.embed)
        memcpy(slot->ids, ids, n * sizeof *ids);
}

static void head_forward(struct stage *s, struct slot *slot, const float *x,
                         const struct stage_loss *loss)
{
    const struct rows *rows = &slot->rows;
    rmsnorm_forward(rows->rows, s->shape.hidden, x, s->norm, (float)s->shape.norm_eps,
                    slot->rstd, slot->normed);
    xent(s->context.g, &s->head, rows->rows, slot->normed, loss->target,
         loss->grad_scale, s->logits, s->nll, slot->dnormed);
    for (int i = 0; i < rows->segments; i++) {
        double sum = 0;
        for (int t = rows->segment_begin[i]; t < rows->segment_begin[i + 1]; t++)
            sum += s->nll[t];
        loss->nll[i] = sum;
    }
    if (loss->row_nll)
        for (int t = 0; t < rows->rows; t++)
            loss->row_nll[t] = (float)s->nll[t];
}

void stage_forward(struct stage *s, int slot_index, const struct rows *rows,
                   const int32_t *ids, const void *in, void *out,
                   const struct stage_loss *loss)
{
    struct slot *slot = slot_at(s, slot_index);
    begin_slot(s, slot, rows, ids);
    const float *x = in;
    if (s->spec.embed) {
        bool only = s->spec.layers == 0 && !s->spec.head;
        float *embedded = only ? out : slot->embedded;
        embed_forward(rows->rows, s->shape.hidden, ids, s->embed, embedded);
        x = embedded;
    }
    slot->stream[0] = x;
    for (int l = 0; l < s->spec.layers; l++) {
        float *y = slot->y[l] ? slot->y[l] : out;
        block_forward(&s->context, &s->params[l], &slot->keep[l], &slot->rows, x, y);
        slot->stream[l + 1] = x = y;
    }
    if (s->spec.head)
        head_forward(s, slot, x, loss);
}

/* Through the final norm; returns the gradient of the last layer's output. */
static const float *head_backward(struct stage *s, struct slot *slot, float *din)
{
    int layers = s->spec.layers, rows = slot->rows.rows, dim = s->shape.hidden;
    const float *x = slot->stream[layers];
    float *dx = layers == 0 && !s->spec.embed ? din : s->gradient[0];
    rmsnorm_backward_input(rows, dim, slot->dnormed, x, s->norm, slot->rstd, NULL, dx);
    rmsnorm_backward_weight(rows, dim, slot->dnormed, x, slot->rstd, s->dnorm);
    return dx;
}

void stage_weights_changed(struct stage *s)
{
    (void)s;
}

void stage_backward(struct stage *s, int slot_index, const void *dout, void *din)
{
    struct slot *slot = slot_at(s, slot_index);
    CHECK(s->spec.training, "a backward pass of a stage that only runs forward");
    const float *dy = s->spec.head ? head_backward(s, slot, din) : dout;
    for (int l = s->spec.layers - 1; l >= 0; l--) {
        float *dx = l == 0 && !s->spec.embed ? din
                    : dy == s->gradient[0]   ? s->gradient[1]
                                             : s->gradient[0];
        const struct block_params *p = &s->params[l];
        const struct block_keep *keep = &slot->keep[l];
        const float *x = slot->stream[l];
        block_backward_input(&s->context, p, keep, &slot->rows, x, dy, dx);
        block_backward_weight(&s->context, p, keep, &slot->rows, x, dy);
        dy = dx;
    }
    if (s->spec.embed)
        embed_backward(slot->rows.rows, s->shape.hidden, slot->ids, dy, s->dembed);
}

void stage_logits(const struct stage *s, int slot, int row, int n, float *logits)
{
    CHECK(s->spec.head, "logits of a stage without head");
    const float *normed = slot_at(s, slot)->normed;
    linear_forward(s->context.g, &s->head, n, normed + (int64_t)row * s->shape.hidden,
                   0.0f, logits);
}

const void *stage_residual(const struct stage *s, int slot_index, int layer)
{
    const struct slot *slot = slot_at(s, slot_index);
    int l = layer - s->spec.first_layer;
    if (!s->spec.training || l < 0 || l > s->spec.layers)
        return NULL;
    return l == s->spec.layers ? slot->normed : slot->y[l];
}
