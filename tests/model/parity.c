/* SPDX-License-Identifier: Apache-2.0 */
/* The model against transformers: everything that tests/oracle/model holds for one
 * micro-batch. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model/oracle_model.h"

static void check_forward(struct oracle_model *m)
{
    const struct model_shape *s = &m->shape;
    float *logits = zeroed((int64_t)m->rows * s->vocab, sizeof *logits);
    char name[64];
    for (int l = 0; l < s->layers; l++) {
        snprintf(name, sizeof name, "block.%d", l);
        expect_array(m, name, stage_residual(m->stage, 0, l), LOGITS);
    }
    expect_array(m, "final_norm", stage_residual(m->stage, 0, s->layers), LOGITS);
    stage_logits(m->stage, 0, 0, m->rows, logits);
    expect_array(m, "logits", logits, LOGITS);
    expect_array(m, "logits_f32_run", logits, LOGITS);
    free(logits);
    float *ce = zeroed(m->rows, sizeof *ce); /* without each segment's last row */
    for (int t = 0, k = 0; t < m->rows; t++)
        if (t % m->length < m->length - 1)
            ce[k++] = m->row_nll[t];
    expect_array(m, "token_ce", ce, LOGITS);
    expect_array(m, "token_ce_f32_run", ce, LOGITS);
    free(ce);
}

static double norm_of(int64_t n, const float *x)
{
    double sum = 0;
    for (int64_t k = 0; k < n; k++)
        sum += (double)x[k] * (double)x[k];
    return sqrt(sum);
}

static double largest_of(const struct array *a)
{
    double largest = 0;
    for (int64_t k = 0; k < a->elements; k++)
        largest = fmax(largest, fabs((double)a->f32[k]));
    return largest;
}

/* Each gradient against grad.NAME if `whole`, and its L2 norm against the fact l2/NAME,
 * relative; what the oracle lacks is skipped. */
static void check_gradients(struct oracle_model *m, bool whole, const char *l2)
{
    double error = 0, error_l2 = 0;
    int before = m->compared;
    for (int i = 0; i < m->slab.entries; i++) {
        const struct slab_entry *e = &m->slab.entry[i];
        char name[128] = "grad.", place[256];
        if (e->tied_head)
            continue;
        tensor_hf_name(&e->tensor, name + 5, sizeof name - 5);
        snprintf(place, sizeof place, "%s/%s", l2, name + 5);
        float *got = model_gradient(m, e);
        const struct array *a = whole ? arrays_find(m->arrays, name) : NULL;
        if (a)
            error = worse(error, difference(a->elements, got, a->f32) / largest_of(a));
        if (facts_has(m->expect, place))
            error_l2 = worse(error_l2, fabs(norm_of(e->tensor.elements, got) /
                                                facts_double(m->expect, place) -
                                            1));
        m->compared += (a != NULL) + facts_has(m->expect, place);
        free(got);
    }
    if (m->compared == before)
        return;
    print_message("  %d tensors:\n", m->compared - before);
    expect_below("gradients, largest error", error, GRADIENT);
    expect_below("gradients' L2, relative", error_l2, GRADIENT);
}

/* compared: arrays, numbers and gradients that each must be checked against. */
static const struct {
    const char *folder;
    int window;
    bool tied;
    int compared;
} models[] = {
    {"tiny-mistral", 0, false, 87},         {"tiny-mistral-bf16", 0, false, 43},
    {"tiny-llama-tied", 0, true, 47},       {"tiny-mistral-window", 8, false, 49},
    {"tiny-llama-ropetheta", 0, false, 49}, {"tiny-llama-ropetheta-f16", 0, false, 2},
    {"hostile-llama", 0, false, 2},         {"upscale/small-m1", 0, false, 2},
    {"upscale/small-ranges", 0, false, 2},
};

static void equals_transformers(void **state)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct oracle_model m;
        model_init(&m, models[i].folder, models[i].window, models[i].tied, DTYPE_F32,
                   false, *state);
        print_message("%s\n", models[i].folder);
        double loss = model_forward(&m, "ids");
        expect_fact(&m, "loss", loss, LOSS);
        expect_fact(&m, "loss_f32_run", loss, LOSS);
        check_forward(&m);
        stage_backward(m.stage, 0, NULL, NULL);
        check_gradients(&m, true, "grad_l2_f32_run");
        if (facts_has(m.expect, "labels_masked")) {
            loss = model_forward(&m, "labels_masked");
            expect_fact(&m, "loss_masked", loss, LOSS);
            expect_fact(&m, "loss_masked_f32_run", loss, LOSS);
            stage_backward(m.stage, 0, NULL, NULL);
            check_gradients(&m, false, "grad_masked_l2");
        }
        print_message("  %d comparisons, %d expected\n", m.compared,
                      models[i].compared);
        assert_int_equal(m.compared, models[i].compared);
        model_fini(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_transformers),
    };
    int failed = cmocka_run_group_tests_name("ref", tests, create_ref, destroy_gemm);
    return failed +
           cmocka_run_group_tests_name("blis", tests, create_blis, destroy_gemm);
}
