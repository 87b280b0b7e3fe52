/* SPDX-License-Identifier: Apache-2.0 */
/* What flows through one layer against transformers. */
#include "src/model/block.h"

#include "src/base/mem.h"
#include "src/model/rmsnorm.h"
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
    return (struct linear){(int)e->tensor.cols, (int)e->tensor.rows,
                           m->w + e->weight_at, NULL};
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
    const struct {
        const char *name;
        const struct linear *linear;
    } rows[] = {{"layer0.q", &p->q}, {"layer0.k", &p->k}, {"layer0.v", &p->v}};
    int hidden = m->shape.hidden;
    float *normed = zeroed((int64_t)m->rows * hidden, sizeof *normed);
    float *rstd = zeroed(m->rows, sizeof *rstd);
    rmsnorm_forward(m->rows, hidden, x, p->norm1, (float)m->shape.norm_eps, rstd,
                    normed);
    expect_array(m, "layer0.input_layernorm", normed, LOGITS);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float *y = zeroed((int64_t)m->rows * rows[i].linear->out, sizeof *y);
        linear_forward(g, rows[i].linear, m->rows, normed, 0, y);
        expect_array(m, rows[i].name, y, LOGITS);
        free(y);
    }
    free(normed);
    free(rstd);
}

static void check_kept(struct oracle_model *m, const struct block_context *c,
                       const struct block_params *p, const struct block_keep *keep,
                       const float *y)
{
    const struct {
        const char *name;
        const float *got;
    } rows[] = {{"layer0.q_rotated", keep->q},
                {"layer0.k_rotated", keep->k},
                {"layer0.v", keep->v},
                {"layer0.heads", keep->heads},
                {"layer0.after_attention", keep->middle},
                {"layer0.gate", keep->gate},
                {"layer0.up", keep->up},
                {"block.0", y}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_array(m, rows[i].name, rows[i].got, LOGITS);
    int n = m->rows * m->shape.hidden;
    float *part = zeroed(n, sizeof *part);
    rmsnorm_again(m->rows, m->shape.hidden, keep->middle, p->norm2, keep->rstd2, part);
    expect_array(m, "layer0.post_attention_layernorm", part, LOGITS);
    linear_forward(c->g, &p->o, m->rows, keep->heads, 0, part);
    expect_array(m, "layer0.attention_out", part, LOGITS);
    linear_forward(c->g, &p->down, m->rows, c->act, 0, part);
    expect_array(m, "layer0.mlp_out", part, LOGITS);
    free(part);
}

static void first_layer_equals_transformers_inside(void **state)
{
    struct oracle_model m;
    model_init(&m, "tiny-llama-ropetheta", 0, false, *state);
    const struct model_shape *s = &m.shape;
    struct block_params p = {.q = first_layers(&m, ROLE_Q_PROJ),
                             .k = first_layers(&m, ROLE_K_PROJ),
                             .v = first_layers(&m, ROLE_V_PROJ),
                             .o = first_layers(&m, ROLE_O_PROJ),
                             .gate = first_layers(&m, ROLE_GATE_PROJ),
                             .up = first_layers(&m, ROLE_UP_PROJ),
                             .down = first_layers(&m, ROLE_DOWN_PROJ),
                             .norm1 = weight(&m, ROLE_INPUT_LAYERNORM),
                             .norm2 = weight(&m, ROLE_POST_ATTENTION_LAYERNORM)};
    struct block_dims d = {s->hidden,
                           s->ff,
                           (float)s->norm_eps,
                           {s->heads, s->kv_heads, s->head_dim, s->window, DTYPE_F32}};
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
