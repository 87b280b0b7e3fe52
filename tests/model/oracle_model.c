/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/oracle_model.h"

#include "src/base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void *zeroed(int64_t n, size_t size)
{
    void *p = calloc((size_t)n, size);
    assert_non_null(p);
    return p;
}

static char *file_of(const char *folder, const char *name)
{
    struct err err;
    char *path = mem_printf(&err, "%s/%s", folder, name);
    assert_non_null(path);
    return path;
}

static int config_int(const struct facts *c, const char *key, int otherwise)
{
    return facts_has(c, key) ? (int)facts_int(c, key) : otherwise;
}

static struct model_shape shape_of(const char *folder, int window)
{
    char *path = file_of(folder, "config.json");
    struct facts *c = facts_load(path);
    free(path);
    int hidden = config_int(c, "hidden_size", 0);
    int heads = config_int(c, "num_attention_heads", 0);
    struct model_shape s = {.layers = config_int(c, "num_hidden_layers", 0),
                            .hidden = hidden,
                            .ff = config_int(c, "intermediate_size", 0),
                            .heads = heads,
                            .kv_heads = config_int(c, "num_key_value_heads", 0),
                            .head_dim = config_int(c, "head_dim", hidden / heads),
                            .vocab = config_int(c, "vocab_size", 0),
                            .max_positions =
                                config_int(c, "max_position_embeddings", 0),
                            .window = window,
                            .norm_eps = facts_double(c, "rms_norm_eps"),
                            .bos_id = -1,
                            .eos_id = -1};
    s.rope_theta = facts_has(c, "rope_theta")
                       ? facts_double(c, "rope_theta")
                       : facts_double(c, "rope_parameters/rope_theta");
    facts_destroy(c);
    return s;
}

void model_init(struct oracle_model *m, const char *folder, int window, bool tied,
                enum dtype dtype, bool round, struct gemm *g)
{
    struct err err;
    char name[128];
    *m = (struct oracle_model){.shape = shape_of(folder, window)};
    m->shape.tied = tied;
    char *json = file_of(folder, "expect.json");
    char *tensors = file_of(folder, "expect.safetensors");
    m->expect = facts_load(json);
    m->arrays = arrays_load(tensors);
    m->weights = arrays_load_model(folder);
    free(json);
    free(tensors);
    assert_int_equal(
        slab_init(&m->slab, &m->shape, 0, m->shape.layers, true, true, &err), 0);
    m->w = zeroed(m->slab.weights, sizeof *m->w);
    m->grads = zeroed(m->slab.grads, sizeof *m->grads);
    for (int i = 0; i < m->slab.entries; i++) {
        const struct slab_entry *e = &m->slab.entry[i];
        tensor_hf_name(&e->tensor, name, sizeof name);
        const struct array *a = arrays_get(m->weights, name);
        assert_int_equal(a->elements, e->tensor.elements);
        memcpy(m->w + e->weight_at, a->f32, (size_t)a->elements * sizeof *m->w);
    }
    m->rounded = zeroed(m->slab.weights, sizeof(uint16_t));
    dtype_from_f32(DTYPE_BF16, m->w, m->slab.weights, m->rounded);
    if (round)
        dtype_to_f32(DTYPE_BF16, m->rounded, m->slab.weights, m->w);
    int n;
    m->ids = facts_ints(m->expect, "ids", &n);
    m->rows = n;
    m->segments = facts_count(m->expect, "ids");
    m->length = n / m->segments;
    m->begin = zeroed(m->segments + 1, sizeof *m->begin);
    m->position = zeroed(n, sizeof *m->position);
    m->target = zeroed(n, sizeof *m->target);
    m->row_nll = zeroed(n, sizeof *m->row_nll);
    m->nll = zeroed(m->segments, sizeof *m->nll);
    for (int s = 0; s <= m->segments; s++)
        m->begin[s] = s * m->length;
    for (int t = 0; t < n; t++)
        m->position[t] = t % m->length;
    m->layout = (struct rows){.rows = n,
                              .segments = m->segments,
                              .segment_begin = m->begin,
                              .position = m->position};
    struct stage_spec spec = {.shape = &m->shape,
                              .layers = m->shape.layers,
                              .embed = true,
                              .head = true,
                              .max_rows = n,
                              .max_length = m->length,
                              .slots = 1,
                              .training = true,
                              .dtype = dtype};
    const void *w = dtype == DTYPE_F32 ? m->w : m->rounded;
    m->stage = stage_create(&spec, &m->slab, w, m->grads, g, &err);
    assert_non_null(m->stage);
    stage_weights_changed(m->stage);
}

void model_fini(struct oracle_model *m)
{
    stage_destroy(m->stage);
    slab_fini(&m->slab);
    facts_destroy(m->expect);
    arrays_destroy(m->arrays);
    arrays_destroy(m->weights);
    void *all[] = {m->w,      m->grads,   m->ids, m->begin,  m->position,
                   m->target, m->row_nll, m->nll, m->rounded};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

double model_forward(struct oracle_model *m, const char *key)
{
    int n, counted = 0;
    int32_t *labels = facts_ints(m->expect, key, &n);
    for (int t = 0; t < m->rows; t++) {
        bool last = t % m->length == m->length - 1;
        m->target[t] = last ? -100 : labels[t + 1];
        counted += m->target[t] >= 0;
    }
    free(labels);
    memset(m->grads, 0, (size_t)m->slab.grads * sizeof *m->grads);
    struct stage_loss loss = {.target = m->target,
                              .grad_scale = 1.0f / (float)counted,
                              .nll = m->nll,
                              .row_nll = m->row_nll};
    stage_forward(m->stage, 0, &m->layout, m->ids, NULL, NULL, &loss);
    double sum = 0;
    for (int s = 0; s < m->segments; s++)
        sum += m->nll[s];
    return sum / counted;
}

float *model_gradient(const struct oracle_model *m, const struct slab_entry *e)
{
    float *sum = zeroed(e->tensor.elements, sizeof *sum);
    for (int i = 0; i < m->slab.entries; i++)
        if (m->slab.entry[i].tensor.index == e->tensor.index)
            for (int64_t k = 0; k < e->tensor.elements; k++)
                sum[k] += m->grads[m->slab.entry[i].grad_at + k];
    return sum;
}

double worse(double a, double b)
{
    return isnan(a) || a > b ? a : b;
}

double difference(int64_t n, const float *a, const float *b)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = worse(largest, fabs((double)a[i] - (double)b[i]));
    return largest;
}

void expect_below(const char *what, double error, double tolerance)
{
    print_message("  %-32s %.2e of %.0e\n", what, error, tolerance);
    assert_true(error <= tolerance);
}

void expect_array(struct oracle_model *m, const char *name, const float *got,
                  double tolerance)
{
    const struct array *a = arrays_find(m->arrays, name);
    if (!a)
        return;
    m->compared++;
    expect_below(name, difference(a->elements, got, a->f32), tolerance);
}

void expect_fact(struct oracle_model *m, const char *place, double got,
                 double tolerance)
{
    if (!facts_has(m->expect, place))
        return;
    m->compared++;
    expect_below(place, fabs(got - facts_double(m->expect, place)), tolerance);
}

int create_ref(void **state)
{
    struct err err;
    *state = gemm_create(GEMM_REF, GEMM_LEVEL_GENERIC, &err);
    return *state ? 0 : -1;
}

int create_blis(void **state)
{
    struct err err;
    *state = gemm_create(GEMM_BLIS, gemm_level_here(), &err);
    return *state ? 0 : -1;
}

int create_onednn(void **state)
{
    struct err err;
    *state = gemm_create(GEMM_ONEDNN, gemm_level_here(), &err);
    return 0;
}

int destroy_gemm(void **state)
{
    gemm_destroy(*state);
    return 0;
}
