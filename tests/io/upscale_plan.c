/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of each layer, by the choices of an up-scaling. */
#include "io/upscale_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static int plan(struct upscale_plan *p, int layers, const char *ranges,
                const char *seam, const char *zero, double noise, struct err *err)
{
    struct layer_map map;
    struct upscale_choices c;
    assert_int_equal(layer_map_parse(&map, ranges, layers, err), 0);
    int rc = upscale_choices_read(&c, seam, zero, err);
    c.init_noise = noise;
    c.seed = 3;
    if (rc == 0)
        rc = upscale_plan_init(p, &map, &c, err);
    layer_map_fini(&map);
    return rc;
}

/* "2~1" is source layer 2 averaged with 1; "+" an inserted copy; "|" a joint. */
static void show(const struct upscale_plan *p, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int l = 0; l < p->layers && used < size; l++) {
        const struct upscale_layer *at = &p->layer[l];
        used += (size_t)snprintf(text + used, size - used, "%s%s%d",
                                 upscale_joint(p, l) ? "| " : "",
                                 at->inserted ? "+" : "", at->source);
        if (at->mean_with >= 0)
            used += (size_t)snprintf(text + used, size - used, "~%d", at->mean_with);
        used += (size_t)snprintf(text + used, size - used, " ");
    }
}

static void layers_are_paired_over_joints(void **state)
{
    (void)state;
    static const struct {
        int layers;
        const char *ranges, *seam, *want;
    } rows[] = {
        {4, "0:3,1:4", NULL, "0 1 2 | +1 +2 3 "},
        {4, "0:3,1:4", "mean:1", "0 1 2~0 | +1~3 +2 3 "},
        {8, "0:6,2:8", "mean:2", "0 1 2 3 4~0 5~1 | +2~6 +3~7 +4 +5 6 7 "},
        {8, "0:6,2:8", "mean:3", /* 3 and 4 have no counterpart on the other side */
         "0 1 2 3 4~0 5~1 | +2~6 +3~7 +4 +5 6 7 "},
        {8, "0:4,3:8", "mean:1", "0 1 2 3~2 | +3~4 4 5 6 7 "},
        {4, "0:2,2:4,1:4", "mean:2", "0 1 2 3~0 | +1 +2 +3 "},
        {6, "0:4,2:6,1:3", "mean:1", "0 1 2 3~1 | +2~4 +3 4 5~0 | +1 +2 "},
        {3, "0:1,0:2,2:3", "mean:1", "0 | +0~1 1 2 "},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct upscale_plan p;
        struct err err = {0};
        char text[256];
        if (plan(&p, rows[r].layers, rows[r].ranges, rows[r].seam, NULL, 0, &err) < 0)
            fail_msg("%s: %s", rows[r].ranges, err.text);
        show(&p, text, sizeof text);
        printf("%s %s: %s\n", rows[r].ranges, rows[r].seam ? rows[r].seam : "", text);
        assert_string_equal(text, rows[r].want);
        upscale_plan_fini(&p);
    }
}

/* Every counterpart continues the run on the other side of its joint. */
static void counterparts_continue_the_other_side(void **state)
{
    (void)state;
    int plans = 0, averaged = 0;
    for (int n = 2; n <= 12; n++)
        for (int m = 1; m < n; m++)
            for (int k = 1; k <= n - m; k++) {
                struct upscale_plan p;
                struct err err = {0};
                char ranges[32], seam[16];
                snprintf(ranges, sizeof ranges, "0:%d,%d:%d", n - m, m, n);
                snprintf(seam, sizeof seam, "mean:%d", k);
                if (plan(&p, n, ranges, n == 2 * m ? NULL : seam, NULL, 0, &err) < 0)
                    fail_msg("%s %s: %s", ranges, seam, err.text);
                int joint = n - m;
                for (int l = 0; l < p.layers && n != 2 * m; l++) {
                    int other = l < joint ? m - joint + l : l;
                    bool near = l < joint ? joint - l <= k : l - joint < k;
                    int want = near && other >= 0 && other < n ? other : -1;
                    assert_int_equal(p.layer[l].mean_with, want);
                    averaged += want >= 0;
                }
                plans++;
                upscale_plan_fini(&p);
            }
    printf("%d plans, %d averaged layers\n", plans, averaged);
    assert_true(averaged > 500);
}

static void zeros_and_noise_are_for_inserted_copies(void **state)
{
    (void)state;
    struct upscale_plan p;
    struct err err = {0};
    assert_int_equal(plan(&p, 4, "0:2,1:4,3:4", NULL, "down_proj,o_proj", 0.5, &err),
                     0);
    for (int l = 0; l < p.layers; l++)
        for (int r = 0; r < ROLES; r++) {
            enum tensor_role role = (enum tensor_role)r;
            bool inserted = l == 2 || l == 5;
            bool zero = role == ROLE_O_PROJ || role == ROLE_DOWN_PROJ;
            bool matrix = r >= ROLE_Q_PROJ && r <= ROLE_DOWN_PROJ;
            assert_int_equal(upscale_zeroed(&p, l, role), inserted && zero);
            assert_int_equal(upscale_noisy(&p, l, role), inserted && matrix && !zero);
            assert_int_equal(upscale_altered(&p, l, role), inserted && matrix);
        }
    upscale_plan_fini(&p);
}

static void the_function_is_kept_only_where_it_is(void **state)
{
    (void)state;
    static const struct {
        const char *ranges, *seam, *zero;
        bool kept;
    } rows[] = {{"0:2,1:4", NULL, "o_proj,down_proj", true},
                {"0:4,0:4", NULL, "o_proj,down_proj", true},
                {"0:1,0:1,0:4", NULL, "q_proj,o_proj,down_proj", true},
                {"0:2,1:4", NULL, "o_proj", false},
                {"0:2,1:4", NULL, "down_proj", false},
                {"0:2,1:4", "mean:1", "o_proj,down_proj", false},
                {"0:2,1:3", NULL, "o_proj,down_proj", false}, /* layer 3 is missing */
                {"0:2,3:4,2:4", NULL, "o_proj,down_proj", false}, /* 3 before 2 */
                {"0:2,1:4", NULL, NULL, false}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct upscale_plan p;
        struct err err = {0};
        if (plan(&p, 4, rows[r].ranges, rows[r].seam, rows[r].zero, 0, &err) < 0)
            fail_msg("%s", err.text);
        printf("%s %s: %d\n", rows[r].ranges, rows[r].zero ? rows[r].zero : "",
               upscale_keeps_function(&p));
        assert_int_equal(upscale_keeps_function(&p), rows[r].kept);
        upscale_plan_fini(&p);
    }
}

static void a_plan_comes_back_from_its_record(void **state)
{
    (void)state;
    struct upscale_plan p, q;
    struct err err = {0};
    struct ckpt_info info = {.shape = {.layers = 12}};
    char text[256], again[256], layers[] = "0:6,2:8";
    assert_int_equal(plan(&p, 9, layers, "mean:2", "down_proj,o_proj", 0.1, &err), 0);
    assert_int_equal(upscale_plan_record(&p, &info, &err), 0);
    printf("%s; %s; %s; %s; %d layers\n", info.seam, info.zero, info.init_noise,
           info.init_noise_seed, info.source_layers);
    assert_string_equal(info.seam, "mean:2");
    assert_string_equal(info.zero, "o_proj,down_proj");
    assert_string_equal(info.init_noise, "0.1");
    assert_string_equal(info.init_noise_seed, "3");
    assert_int_equal(info.source_layers, 9);
    info.layers = layers;
    assert_int_equal(upscale_plan_of(&q, &info, &err), 0);
    show(&p, text, sizeof text);
    show(&q, again, sizeof again);
    assert_string_equal(text, again);
    assert_memory_equal(&p.choices, &q.choices, sizeof p.choices);
    upscale_plan_fini(&q);
    char cut[] = "0:6,2:7";
    info.layers = cut;
    assert_int_equal(upscale_plan_of(&q, &info, &err), -1);
    printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_INPUT);
    info.layers = NULL;
    ckpt_info_clear_source(&info);
    /* A file from before all that: as many layers as it names. */
    info = (struct ckpt_info){.shape = {.layers = 12}, .layers = layers};
    assert_int_equal(upscale_plan_of(&q, &info, &err), 0);
    assert_int_equal(q.source_layers, 8);
    upscale_plan_fini(&q);
    upscale_plan_fini(&p);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *ranges, *seam, *zero;
        double noise;
        const char *message;
    } rows[] = {
        {"0:3,1:4", "mean", NULL, 0, "--seam: expected mean:K"},
        {"0:3,1:4", "mean:0", NULL, 0, "--seam: expected mean:K"},
        {"0:3,1:4", "mean:2x", NULL, 0, "found \"mean:2x\""},
        {"0:3,1:4", "mean:", NULL, 0, "--seam: expected mean:K"},
        {"0:3,1:4", "slerp:1", NULL, 0, "--seam: expected mean:K"},
        {"0:3,1:4", "mean:4", NULL, 0, "with K up to 3"},
        {"0:2,1:3,2:4", "mean:2", NULL, 0, "layers 2 to 3 of the result"},
        {"0:2,1:2,1:4", "mean:1", NULL, 0, "expected longer ranges"},
        {"0:4", "mean:1", NULL, 0, "without a joint"},
        {"0:2,2:4", "mean:1", NULL, 0, "without a joint"},
        {"2:4,0:2", "mean:1", NULL, 0, "has a counterpart"},
        {"0:3,1:4", NULL, "o_prj", 0, "did you mean o_proj?"},
        {"0:3,1:4", NULL, "", 0, "expected matrices of a layer"},
        {"0:3,1:4", NULL, "o_proj,", 0, "expected matrices of a layer"},
        {"0:3,1:4", NULL, "input_layernorm", 0, "expected matrices of a layer"},
        {"0:3,1:4", NULL, "lm_head", 0, "expected matrices of a layer"},
        {"0:4", NULL, "o_proj", 0, "--zero: no layer of the source comes twice"},
        {"2:4,0:2", NULL, NULL, 0.1, "--init-noise: no layer of the source"},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct upscale_plan p;
        struct err err = {0};
        assert_int_equal(plan(&p, 4, rows[r].ranges, rows[r].seam, rows[r].zero,
                              rows[r].noise, &err),
                         -1);
        printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(strstr(err.text, rows[r].message));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_are_paired_over_joints),
        cmocka_unit_test(counterparts_continue_the_other_side),
        cmocka_unit_test(zeros_and_noise_are_for_inserted_copies),
        cmocka_unit_test(the_function_is_kept_only_where_it_is),
        cmocka_unit_test(a_plan_comes_back_from_its_record),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
