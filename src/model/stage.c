/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/stage_parts.h"

#include "src/base/check.h"
#include "src/base/mem.h"
#include "src/model/element.h"
#include "src/model/rope.h"
#include "src/model/xent.h"

#include <omp.h>

static struct block_dims dims_of(const struct stage_spec *spec)
{
    const struct model_shape *m = spec->shape;
    return (struct block_dims){
        .hidden = m->hidden,
        .ff = m->ff,
        .eps = (float)m->norm_eps,
        .attention = {m->heads, m->kv_heads, m->head_dim, m->window, spec->dtype}};
}

static void lay_out_slot(struct slot *slot, struct arena *a,
                         const struct stage_spec *spec)
{
    int64_t rows = spec->max_rows, residual = rows * spec->shape->hidden;
    struct block_dims dims = dims_of(spec);
    enum dtype t = spec->dtype;
    bool training = spec->training;
    *slot = (struct slot){0};
    slot->y = arena_take(a, spec->layers, sizeof *slot->y);
    slot->keep = arena_take(a, spec->layers, sizeof *slot->keep);
    slot->stream = arena_take(a, spec->layers + 1, sizeof *slot->stream);
    if (training) {
        slot->segment_begin = arena_take(a, rows + 1, sizeof(int));
        slot->position = arena_take(a, rows, sizeof(int));
        slot->prefix = arena_take(a, rows, sizeof(int));
        slot->ids = arena_take(a, spec->embed ? rows : 0, sizeof(int32_t));
    }
    slot->embedded = spec->embed ? arena_elements(a, residual, t) : NULL;
    void *shared_y = training ? NULL : arena_elements(a, residual, t);
    struct block_keep keep;
    for (int l = 0; l < spec->layers; l++) {
        bool callers = l == spec->layers - 1 && !spec->head;
        void *y = !training ? shared_y
                  : callers ? NULL
                            : arena_elements(a, residual, t);
        if (training || l == 0)
            block_keep_lay_out(&keep, a, &dims, spec->max_rows, training);
        if (!a->base)
            continue;
        slot->y[l] = callers ? NULL : y;
        slot->keep[l] = keep;
    }
    if (spec->head) {
        slot->rstd = arena_floats(a, rows);
        slot->normed = arena_elements(a, residual, t);
        slot->dnormed = training ? arena_elements(a, residual, t) : NULL;
    }
}

static void lay_out_wait(struct wait *w, struct arena *a, const struct stage_spec *spec)
{
    struct block_dims dims = dims_of(spec);
    int64_t residual = (int64_t)spec->max_rows * dims.hidden;
    *w = (struct wait){0};
    w->dx = arena_take(a, spec->layers, sizeof *w->dx);
    w->dy = arena_take(a, spec->layers, sizeof *w->dy);
    w->left = arena_take(a, spec->layers, sizeof *w->left);
    for (int l = 0; l < spec->layers; l++) {
        struct block_left left;
        void *dx = l > 0 ? arena_elements(a, residual, spec->dtype) : NULL;
        block_left_lay_out(&left, a, &dims, spec->max_rows);
        if (!a->base)
            continue;
        w->dx[l] = dx;
        w->left[l] = left;
    }
}

/* The matrices of one layer, or those of the head. */
enum { LAYER_MATRICES = 2 * LINEAR_PARTS + 2 };

static int matrices_of(struct block_params *p, struct linear **list)
{
    int n = 0;
    for (int i = 0; i < p->qkv.parts; i++)
        list[n++] = &p->qkv.part[i];
    list[n++] = &p->o;
    for (int i = 0; i < p->gate_up.parts; i++)
        list[n++] = &p->gate_up.part[i];
    list[n++] = &p->down;
    return n;
}

/* The largest packed copy for an input gradient. */
static int64_t largest_backward_pack(const struct stage_spec *spec,
                                     const struct linear *head, const struct gemm *g)
{
    struct block_dims dims = dims_of(spec);
    struct block_params p = block_params_of(&dims);
    struct linear *list[LAYER_MATRICES + 1];
    int n = spec->layers > 0 ? matrices_of(&p, list) : 0;
    int64_t largest = spec->head ? linear_pack_backward_bytes(head, g) : 0;
    for (int i = 0; i < n; i++) {
        int64_t bytes = linear_pack_backward_bytes(list[i], g);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

/* Sizes of all parameters, and memory for the packed copies. */
static void lay_out_params(struct stage *s, struct arena *a,
                           const struct stage_spec *spec, const struct gemm *g)
{
    bool own = !spec->lender && spec->packing != STAGE_PACK_NONE;
    struct block_dims dims = dims_of(spec);
    struct linear head = {
        .in = dims.hidden, .out = spec->shape->vocab, .dtype = spec->dtype};
    enum linear_pack backward = LINEAR_PACK_NONE;
    void *shared = NULL;
    if (own && spec->training && spec->packing == STAGE_PACK_BOTH)
        backward = LINEAR_PACK_OWN;
    else if (own && spec->training && spec->dtype == DTYPE_BF16) {
        backward = LINEAR_PACK_SHARED;
        shared = arena_take(a, largest_backward_pack(spec, &head, g), 1);
    }
    s->params = arena_take(a, spec->layers, sizeof *s->params);
    for (int l = 0; l < spec->layers; l++) {
        struct linear *list[LAYER_MATRICES];
        struct block_params p = block_params_of(&dims);
        for (int i = 0, n = matrices_of(&p, list); i < n; i++)
            linear_pack_lay_out(list[i], a, g, own, backward, shared);
        if (a->base)
            s->params[l] = p;
    }
    s->head = head;
    if (spec->head)
        linear_pack_lay_out(&s->head, a, g, own, backward, shared);
}

/* Lays the stage's arrays out in the arena, itself first; only counts if that has no
 * base (s is then any struct stage). */
static void lay_out(struct stage *s, struct arena *a, const struct stage_spec *spec,
                    const struct gemm *g)
{
    const struct model_shape *m = spec->shape;
    int64_t rows = spec->max_rows, residual = rows * m->hidden;
    struct block_dims dims = dims_of(spec);
    int slots = spec->training ? spec->slots : 1;
    arena_take(a, 1, sizeof *s);
    lay_out_params(s, a, spec, g);
    s->slot = arena_take(a, slots, sizeof *s->slot);
    if (spec->layers > 0) {
        int64_t angles = (int64_t)m->max_positions * m->head_dim / 2;
        s->cosine = arena_floats(a, angles);
        s->sine = arena_floats(a, angles);
        block_context_lay_out(&s->context, a, &dims, spec->max_rows, spec->max_length,
                              omp_get_max_threads(), spec->training);
    }
    if (spec->training) {
        s->gradient[0] = arena_elements(a, residual, spec->dtype);
        s->gradient[1] = arena_elements(a, residual, spec->dtype);
    }
    if (spec->head) {
        enum xent_use use = !spec->training ? XENT_LOSS
                            : spec->weighed ? XENT_WEIGHED
                                            : XENT_AT_ONCE;
        s->logits = arena_take(a, xent_scratch_bytes(&s->head, spec->max_rows, use), 1);
        s->nll = arena_take(a, rows, sizeof *s->nll);
        s->scale = arena_floats(a, rows);
    }
    if (spec->head && spec->training) {
        s->row_scale = arena_floats(a, rows);
        s->norm_sums =
            arena_floats(a, rmsnorm_scratch_floats(m->hidden, spec->max_rows));
    }
    for (int i = 0; i < slots; i++) {
        struct slot one;
        lay_out_slot(&one, a, spec);
        if (a->base)
            s->slot[i] = one;
    }
    int waiting = spec->training ? spec->waiting : 0;
    s->wait = arena_take(a, waiting, sizeof *s->wait);
    for (int i = 0; i < waiting; i++) {
        struct wait one;
        lay_out_wait(&one, a, spec);
        if (a->base)
            s->wait[i] = one;
    }
}

int64_t stage_bytes(const struct stage_spec *spec, const struct gemm *gemm)
{
    struct stage any = {0};
    struct arena a = {0};
    lay_out(&any, &a, spec, gemm);
    return a.used;
}

/* The slab's arrays, while the parameters are looked up. */
struct source {
    const struct slab *slab;
    enum dtype dtype;
    const void *weights;
    float *grads;
};

static const struct slab_entry *entry_of(const struct source *from, enum tensor_role r,
                                         int layer, bool tied_head)
{
    const struct slab_entry *e = slab_find(from->slab, r, layer, tied_head);
    CHECK(e, "the slab lacks %s of layer %d", role_name(r), layer);
    return e;
}

/* Its gradient sum; NULL: none. */
static float *sum_of(const struct source *from, const struct slab_entry *e)
{
    return from->grads && !e->frozen ? from->grads + e->grad_at : NULL;
}

static void find_linear(const struct source *from, enum tensor_role r, int layer,
                        bool tied_head, struct linear *l)
{
    const struct slab_entry *e = entry_of(from, r, layer, tied_head);
    l->w = element_at(from->dtype, from->weights, e->weight_at);
    l->dw = sum_of(from, e);
}

/* The parts' places follow from those of the roles; joined parts from the first's. The
 * sums are found one by one: any of them may be frozen. */
static void find_group(const struct source *from, const enum tensor_role *role,
                       int roles, int layer, struct linear_group *group)
{
    int part = 0, left = 0, at = 0;
    for (int i = 0; i < roles; i++) {
        const struct slab_entry *e = entry_of(from, role[i], layer, false);
        int out = to_int(e->tensor.rows);
        if (left == 0) {
            struct linear *first = &group->part[part++];
            first->w = element_at(from->dtype, from->weights, e->weight_at);
            left = first->out;
        }
        if (sum_of(from, e))
            linear_group_add_sum(group, at, out, sum_of(from, e));
        left -= out;
        at += out;
    }
    CHECK(left == 0 && part == group->parts, "%d parts of %d", part, group->parts);
}

static void find_norm(const struct source *from, enum tensor_role r, int layer,
                      struct rmsnorm *n)
{
    const struct slab_entry *e = entry_of(from, r, layer, false);
    n->w = element_at(from->dtype, from->weights, e->weight_at);
    n->dw = sum_of(from, e);
}

static void find_params(struct stage *s, const struct source *from)
{
    static const enum tensor_role qkv[] = {ROLE_Q_PROJ, ROLE_K_PROJ, ROLE_V_PROJ};
    static const enum tensor_role gate_up[] = {ROLE_GATE_PROJ, ROLE_UP_PROJ};
    for (int i = 0; i < s->spec.layers; i++) {
        struct block_params *p = &s->params[i];
        int layer = s->spec.first_layer + i;
        find_group(from, qkv, 3, layer, &p->qkv);
        find_group(from, gate_up, 2, layer, &p->gate_up);
        find_linear(from, ROLE_O_PROJ, layer, false, &p->o);
        find_linear(from, ROLE_DOWN_PROJ, layer, false, &p->down);
        find_norm(from, ROLE_INPUT_LAYERNORM, layer, &p->norm1);
        find_norm(from, ROLE_POST_ATTENTION_LAYERNORM, layer, &p->norm2);
    }
    if (s->spec.embed) {
        struct linear table;
        find_linear(from, ROLE_EMBED_TOKENS, -1, false, &table);
        s->embed = table.w;
        s->dembed = table.dw;
    }
    if (s->spec.head) {
        s->norm = (struct rmsnorm){.dim = s->shape.hidden,
                                   .dtype = s->spec.dtype,
                                   .eps = (float)s->shape.norm_eps};
        find_norm(from, ROLE_NORM, -1, &s->norm);
        find_linear(from, s->shape.tied ? ROLE_EMBED_TOKENS : ROLE_LM_HEAD, -1,
                    s->shape.tied, &s->head);
    }
}

static int lowest_of(const struct stage *s)
{
    int l = 0, layers = s->spec.layers;
    if (s->spec.embed ? s->dembed != NULL : !s->spec.din_unused)
        return -1;
    while (l < layers && !block_trains(&s->params[l]))
        l++;
    return l == layers && !s->norm.dw ? layers + 1 : l;
}

/* Calls f for every matrix until it returns nonzero, which is returned. */
static int each_matrix(struct stage *s,
                       int (*f)(struct linear *l, struct gemm *g, struct err *err),
                       struct gemm *g, struct err *err)
{
    for (int l = 0; l < s->spec.layers; l++) {
        struct linear *list[LAYER_MATRICES];
        for (int i = 0, n = matrices_of(&s->params[l], list); i < n; i++)
            if (f(list[i], g, err))
                return -1;
    }
    return s->spec.head ? f(&s->head, g, err) : 0;
}

static int fill(struct linear *l, struct gemm *g, struct err *err)
{
    (void)g;
    (void)err;
    linear_pack_fill(l);
    return 0;
}

static int destroy(struct linear *l, struct gemm *g, struct err *err)
{
    (void)g;
    (void)err;
    linear_pack_destroy(l);
    return 0;
}

static void borrow_packs(struct stage *s, const struct stage *lender)
{
    CHECK(lender->spec.first_layer == s->spec.first_layer &&
              lender->spec.layers == s->spec.layers &&
              lender->spec.head == s->spec.head && lender->spec.dtype == s->spec.dtype,
          "packed copies of other layers");
    for (int l = 0; l < s->spec.layers; l++) {
        struct linear *to[LAYER_MATRICES], *from[LAYER_MATRICES];
        int n = matrices_of(&s->params[l], to);
        matrices_of(&lender->params[l], from);
        for (int i = 0; i < n; i++)
            linear_pack_borrow(to[i], from[i]);
    }
    linear_pack_borrow(&s->head, &lender->head);
}

/* Has gemm build now what the stage's products need. fp32's need nothing. */
static int prepare_products(struct stage *s, struct gemm *gemm, struct err *err)
{
    if (s->spec.dtype == DTYPE_F32)
        return 0;
    struct err first;
    gemm_bf16_rehearse(gemm, &first);
    if (!s->spec.lender)
        each_matrix(s, fill, NULL, NULL);
    stage_rehearse(s);
    gemm_bf16_rehearse(gemm, NULL);
    if (first.code == ERR_NONE)
        return 0;
    *err = first;
    return err_prefix(err, "model: products of %d rows", s->spec.max_rows);
}

struct stage *stage_create(const struct stage_spec *spec, const struct slab *slab,
                           const void *weights, float *grads, struct gemm *gemm,
                           struct err *err)
{
    CHECK(spec->layers > 0 || spec->embed || spec->head, "a stage with nothing in it");
    CHECK(grads || !spec->training, "training needs gradient sums");
    CHECK(spec->max_rows > 0 && spec->max_length > 0 && spec->slots > 0,
          "%d rows, %d long, %d slots", spec->max_rows, spec->max_length, spec->slots);
    CHECK(spec->waiting >= 0 && spec->waiting <= spec->slots, "%d of %d slots wait",
          spec->waiting, spec->slots);
    struct arena a = {.base = mem_array(stage_bytes(spec, gemm), 1, err)};
    if (!a.base) {
        err_prefix(err, "model: activations");
        return NULL;
    }
    struct stage *s = (struct stage *)(void *)a.base;
    lay_out(s, &a, spec, gemm);
    s->spec = *spec;
    s->shape = *spec->shape;
    s->spec.shape = &s->shape;
    s->context.g = gemm;
    s->context.cosine = s->cosine;
    s->context.sine = s->sine;
    if (spec->layers > 0)
        rope_table(s->shape.max_positions, s->shape.head_dim, s->shape.rope_theta,
                   s->cosine, s->sine);
    find_params(
        s, &(struct source){slab, spec->dtype, weights, spec->training ? grads : NULL});
    s->lowest = lowest_of(s);
    int failed = 0;
    if (spec->lender)
        borrow_packs(s, spec->lender);
    else
        failed = each_matrix(s, linear_pack_create, gemm, err);
    if (failed || prepare_products(s, gemm, err)) {
        stage_destroy(s);
        return NULL;
    }
    return s;
}

void stage_weights_changed(struct stage *s)
{
    if (s->spec.lender)
        return;
    each_matrix(s, fill, NULL, NULL);
    s->packed = true;
}

void stage_destroy(struct stage *s)
{
    if (!s)
        return;
    each_matrix(s, destroy, NULL, NULL);
    mem_free(s);
}
