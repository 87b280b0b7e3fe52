/* SPDX-License-Identifier: Apache-2.0 */
/* What flows through one layer against transformers. */
#include "src/model/block.h"

#include "src/base/mem.h"
#include "src/model/rope.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model/oracle_model.h"

static const float *weight(const struct oracle_model *m, enum tensor_role r)
{
    return m->w + slab_find(&m->slab, r, 0, false)->weight_at;
}

static const float *embedding(const struct oracle_model *m, int32_t id)
{
    return m->w + slab_find(&m->slab, ROLE_EMBED_TOKENS, -1, false)->weight_at +
           (int64_t)id * m->shape.hidden;
}

static struct linear first_layers(const struct oracle_model *m, enum tensor_role r)
{
    const struct slab_entry *e = slab_find(&m->slab, r, 0, false);
    return (struct linear){.in = (int)e->tensor.cols,
                           .out = (int)e->tensor.rows,
                           .w = m->w + e->weight_at};
}

/* Columns [at, at + n) of x [rows, stride] are the array. */
static void expect_columns(struct oracle_model *m, const char *name, const float *x,
                           int stride, int at, int n)
{
    float *part = zeroed((int64_t)m->rows * n, sizeof *part);
    for (int t = 0; t < m->rows; t++)
        memcpy(part + t * n, x + t * stride + at, (size_t)n * sizeof *part);
    expect_array(m, name, part, LOGITS);
    free(part);
}

/* cos and sin of the oracle hold each half twice. */
static void check_angles(const struct oracle_model *m, const float *cosine,
                         const float *sine)
{
    const struct array *c = arrays_get(m->arrays, "layer0.cos");
    const struct array *s = arrays_get(m->arrays, "layer0.sin");
    int dim = m->shape.head_dim, half = dim / 2;
    double error = 0;
    for (int t = 0; t < m->length; t++)
        for (int i = 0; i < dim; i++) {
            int from = t * dim + i, at = t * half + i % half;
            error = worse(error, fabs((double)c->f32[from] - (double)cosine[at]));
            error = worse(error, fabs((double)s->f32[from] - (double)sine[at]));
        }
    expect_below("layer0.cos, sin", error, 2e-7);
}

static void check_before_rope(struct oracle_model *m, const struct gemm *g,
                              const struct block_params *p, const float *x)
{
    int hidden = m->shape.hidden, dim = m->shape.head_dim, stride = p->qkv.out;
    int q = m->shape.heads * dim, k = m->shape.kv_heads * dim;
    float *normed = zeroed((int64_t)m->rows * hidden, sizeof *normed);
    float *rstd = zeroed(m->rows, sizeof *rstd);
    float *y = zeroed((int64_t)m->rows * stride, sizeof *y);
    rmsnorm_forward(&p->norm1, m->rows, x, rstd, normed, NULL);
    expect_array(m, "layer0.input_layernorm", normed, LOGITS);
    linear_group_forward(g, &p->qkv, m->rows, normed, y);
    expect_columns(m, "layer0.q", y, stride, 0, q);
    expect_columns(m, "layer0.k", y, stride, q, k);
    expect_columns(m, "layer0.v", y, stride, q + k, k);
    free(normed);
    free(rstd);
    free(y);
}

static void check_kept(struct oracle_model *m, const struct block_context *c,
                       const struct block_params *p, const struct block_keep *keep,
                       const float *y)
{
    int dim = m->shape.head_dim, q = m->shape.heads * dim, k = m->shape.kv_heads * dim;
    int hidden = m->shape.hidden, ff = m->shape.ff;
    expect_columns(m, "layer0.q_rotated", keep->qkv, q + 2 * k, 0, q);
    expect_columns(m, "layer0.k_rotated", keep->qkv, q + 2 * k, q, k);
    expect_columns(m, "layer0.v", keep->qkv, q + 2 * k, q + k, k);
    expect_array(m, "layer0.heads", keep->heads, LOGITS);
    expect_array(m, "layer0.after_attention", keep->middle, LOGITS);
    expect_columns(m, "layer0.gate", keep->gate_up, 2 * ff, 0, ff);
    expect_columns(m, "layer0.up", keep->gate_up, 2 * ff, ff, ff);
    expect_array(m, "block.0", y, LOGITS);
    float *part = zeroed((int64_t)m->rows * hidden, sizeof *part);
    expect_array(m, "layer0.post_attention_layernorm", c->normed1, LOGITS);
    linear_forward(c->g, &p->o, m->rows, keep->heads, q, 0, DTYPE_F32, part, hidden);
    expect_array(m, "layer0.attention_out", part, LOGITS);
    linear_forward(c->g, &p->down, m->rows, c->act, ff, 0, DTYPE_F32, part, hidden);
    expect_array(m, "layer0.mlp_out", part, LOGITS);
    free(part);
}

static void first_layer_equals_transformers_inside(void **state)
{
    struct oracle_model m;
    model_init(&m, "tiny-llama-ropetheta", 0, false, DTYPE_F32, false, *state);
    const struct model_shape *s = &m.shape;
    struct block_dims d = {s->hidden,
                           s->ff,
                           (float)s->norm_eps,
                           {s->heads, s->kv_heads, s->head_dim, s->window, DTYPE_F32}};
    /* The slab joins these: the first tensor stands for the group. */
    struct block_params p = block_params_of(&d);
    assert_true(p.qkv.parts == 1 && p.gate_up.parts == 1);
    p.qkv.part[0].w = weight(&m, ROLE_Q_PROJ);
    p.gate_up.part[0].w = weight(&m, ROLE_GATE_PROJ);
    p.o = first_layers(&m, ROLE_O_PROJ);
    p.down = first_layers(&m, ROLE_DOWN_PROJ);
    p.norm1.w = weight(&m, ROLE_INPUT_LAYERNORM);
    p.norm2.w = weight(&m, ROLE_POST_ATTENTION_LAYERNORM);
    struct err err;
    struct arena a = {.base = mem_array(1 << 22, 1, &err)};
    struct block_keep keep;
    struct block_context c = {.g = *state};
    block_keep_lay_out(&keep, &a, &d, m.rows, true);
    block_context_lay_out(&c, &a, &d, m.rows, m.length, 1, true);
    float *cosine = arena_floats(&a, m.length * s->head_dim / 2);
    float *sine = arena_floats(&a, m.length * s->head_dim / 2);
    float *x = arena_floats(&a, (int64_t)m.rows * s->hidden);
    float *y = arena_floats(&a, (int64_t)m.rows * s->hidden);
    assert_true(a.base && a.used <= 1 << 22);
    for (int t = 0; t < m.rows; t++)
        memcpy(x + t * s->hidden, embedding(&m, m.ids[t]),
               (size_t)s->hidden * sizeof *x);
    rope_table(m.length, s->head_dim, s->rope_theta, cosine, sine);
    check_angles(&m, cosine, sine);
    check_before_rope(&m, *state, &p, x);
    c.cosine = cosine;
    c.sine = sine;
    block_forward(&c, &p, &keep, &m.layout, x, y);
    check_kept(&m, &c, &p, &keep, y);
    assert_int_equal(m.compared, 15);
    mem_free(a.base);
    model_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_layer_equals_transformers_inside),
    };
    int failed = cmocka_run_group_tests_name("ref", tests, create_ref, destroy_gemm);
    return failed +
           cmocka_run_group_tests_name("blis", tests, create_blis, destroy_gemm);
}
