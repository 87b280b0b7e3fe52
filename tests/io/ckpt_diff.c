/* SPDX-License-Identifier: Apache-2.0 */
#include "io/ckpt_diff.h"

#include "src/base/file.h"
#include "tests/io/ckpt_sample.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

static char folder[256];

static const char *in_folder(const char *name)
{
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

/* One value of the sample changed, in the stored set and tensor. */
struct change {
    int set, role, layer;
    int64_t at;
    float value;
};

static const float *changed(float *x, const struct change *c, int set,
                            const struct tensor *t, int64_t begin, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        x[k] = ckpt_sample_value(set, (int)t->role, t->layer, begin + k);
    if (c && c->set == set && c->role == (int)t->role && c->layer == t->layer &&
        c->at >= begin && c->at < begin + n)
        x[c->at - begin] = c->value;
    return x;
}

static void make(const char *path, bool optimizer, const struct change *c)
{
    struct err err = {0};
    struct ckpt_info info = ckpt_sample_info(optimizer);
    struct ckpt_writer *w = ckpt_create(comm_self(), path, false, true, &info, &err);
    if (!w)
        fail_msg("%s", err.text);
    float *x = malloc(CKPT_SAMPLE_PIECE * sizeof *x);
    for (int set = 0; set < (optimizer ? CKPT_SETS : 1); set++)
        for (int i = 0; i < table_count(&ckpt_sample_shape); i++) {
            struct tensor t = table_at(&ckpt_sample_shape, i);
            for (int64_t at = 0, n; at < t.elements; at += n) {
                n = t.elements - at < CKPT_SAMPLE_PIECE ? t.elements - at
                                                        : CKPT_SAMPLE_PIECE;
                assert_int_equal(ckpt_write(w, (enum ckpt_set)set, t.role, t.layer, at,
                                            n, changed(x, c, set, &t, at, n), &err),
                                 0);
            }
        }
    free(x);
    if (ckpt_commit(w, &err) < 0)
        fail_msg("%s", err.text);
}

static struct ckpt_diff compare(const char *a, const char *b)
{
    struct err err = {0};
    struct ckpt_diff d;
    struct ckpt *ka = ckpt_open(comm_self(), a, &err);
    struct ckpt *kb = ckpt_open(comm_self(), b, &err);
    if (!ka || !kb || ckpt_diff(ka, kb, NULL, NULL, &d, &err) < 0)
        fail_msg("%s", err.text);
    ckpt_close(ka);
    ckpt_close(kb);
    return d;
}

static void one_changed_element_is_found(void **state)
{
    (void)state;
    static const struct change rows[] = {
        {CKPT_MODEL, ROLE_EMBED_TOKENS, -1, 43199, 8},
        {CKPT_MODEL, ROLE_DOWN_PROJ, 3, 40000, -8},
        {CKPT_MODEL, ROLE_NORM, -1, 0, NAN},
        {CKPT_EXP_AVG, ROLE_Q_PROJ, 1, 5, 3},
        {CKPT_EXP_AVG_SQ, ROLE_LM_HEAD, -1, 32768, 1e-30f}};
    make(in_folder("a.h5"), true, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct change *c = &rows[i];
        make(in_folder("b.h5"), true, c);
        struct ckpt_diff d = compare(in_folder("a.h5"), in_folder("b.h5"));
        assert_int_equal(d.rows, 1);
        assert_int_equal(d.compared, CKPT_SETS * table_count(&ckpt_sample_shape));
        assert_true(d.optimizer);
        assert_null(d.shape);
        assert_int_equal(d.row[0].set, c->set);
        assert_int_equal(d.row[0].tensor.role, c->role);
        assert_int_equal(d.row[0].tensor.layer, c->layer);
        assert_int_equal(d.row[0].differing, 1);
        float was = ckpt_sample_value(c->set, c->role, c->layer, c->at);
        double by = fabs((double)was - (double)c->value), sum = 0;
        for (int64_t k = 0; k < d.row[0].tensor.elements; k++)
            sum += pow(ckpt_sample_value(c->set, c->role, c->layer, k), 2);
        printf("max %g, expected %g; relative %g, expected %g\n", d.row[0].max_abs, by,
               d.row[0].relative_l2, by / sqrt(sum));
        if (isnan(by)) {
            assert_true(isnan(d.row[0].max_abs));
            assert_true(isnan(d.row[0].relative_l2));
        } else {
            assert_true(d.row[0].max_abs == by);
            assert_true(fabs(d.row[0].relative_l2 * sqrt(sum) / by - 1) < 1e-12);
        }
        ckpt_diff_fini(&d);
    }
}

/* Two changes in two layers of a role: one line for both. */
static void sums_are_those_of_the_rows(void **state)
{
    (void)state;
    struct err err = {0};
    const struct change c = {CKPT_MODEL, ROLE_Q_PROJ, 1, 5, 3};
    make(in_folder("a.h5"), true, NULL);
    make(in_folder("b.h5"), true, &c);
    struct ckpt *a = ckpt_open(comm_self(), in_folder("a.h5"), &err);
    struct layer_map map;
    assert_int_equal(layer_map_parse(&map, "0:2,0:2", 4, &err), 0);
    struct ckpt_info info = ckpt_sample_info(false);
    info.layer_dtype[ROLE_UP_PROJ] = NULL;
    assert_int_equal(
        ckpt_link(comm_self(), in_folder("c.h5"), true, &info, a, &map, &err), 0);
    layer_map_fini(&map);
    ckpt_close(a);
    struct ckpt_diff d = compare(in_folder("a.h5"), in_folder("b.h5"));
    const struct ckpt_diff_sum *q = &d.sum[CKPT_MODEL][ROLE_Q_PROJ];
    assert_int_equal(q->tensors, 4);
    assert_int_equal(q->different, 1);
    assert_int_equal(q->differing, 1);
    assert_int_equal(q->elements, 4 * d.row[0].tensor.elements);
    assert_true(q->max_abs == d.row[0].max_abs);
    double whole = ckpt_diff_relative(q), one = d.row[0].relative_l2;
    printf("of one layer %g, of four %g\n", one, whole);
    assert_true(whole > 0 && whole < one); /* the same distance, of more */
    struct ckpt_diff_sum total = ckpt_diff_total(&d);
    assert_int_equal(total.tensors, d.compared);
    assert_int_equal(total.elements, d.elements);
    assert_int_equal(total.different, 1);
    ckpt_diff_fini(&d);
    /* Layers 2 and 3 became 0 and 1: squares of two rows in one sum. */
    d = compare(in_folder("a.h5"), in_folder("c.h5"));
    double square = 0, most = 0;
    int rows = 0;
    for (int i = 0; i < d.rows; i++) {
        if (d.row[i].tensor.role != ROLE_Q_PROJ)
            continue;
        double base = 0;
        for (int64_t k = 0; k < d.row[i].tensor.elements; k++)
            base += pow(
                ckpt_sample_value(CKPT_MODEL, ROLE_Q_PROJ, d.row[i].tensor.layer, k),
                2);
        square += d.row[i].relative_l2 * d.row[i].relative_l2 * base;
        most = fmax(most, d.row[i].max_abs);
        rows++;
    }
    q = &d.sum[CKPT_MODEL][ROLE_Q_PROJ];
    printf("%d rows: |a - b|^2 %.17g, their sum %.17g\n", rows, square,
           q->difference_2);
    assert_int_equal(rows, 2);
    assert_int_equal(q->different, 2);
    assert_true(fabs(q->difference_2 / square - 1) < 1e-12);
    assert_true(q->max_abs == most);
    ckpt_diff_fini(&d);
}

static void equal_ones_are_equal(void **state)
{
    (void)state;
    make(in_folder("a.h5"), true, NULL);
    make(in_folder("b.h5"), false, NULL);
    struct ckpt_diff d = compare(in_folder("a.h5"), in_folder("a.h5"));
    assert_int_equal(d.rows, 0);
    assert_int_equal(d.elements, CKPT_SETS * table_elements(&ckpt_sample_shape));
    ckpt_diff_fini(&d);
    d = compare(in_folder("a.h5"), in_folder("b.h5")); /* the model only */
    assert_int_equal(d.rows, 0);
    assert_false(d.optimizer);
    assert_int_equal(d.elements, table_elements(&ckpt_sample_shape));
    ckpt_diff_fini(&d);
}

static void other_layers_are_listed(void **state)
{
    (void)state;
    struct err err = {0};
    make(in_folder("a.h5"), false, NULL);
    struct ckpt *a = ckpt_open(comm_self(), in_folder("a.h5"), &err);
    struct layer_map map;
    assert_int_equal(layer_map_parse(&map, "0:4,3:4", 4, &err), 0);
    struct ckpt_info info = ckpt_sample_info(false);
    info.shape.layers = map.layers;
    info.layer_dtype[ROLE_UP_PROJ] = NULL;
    assert_int_equal(
        ckpt_link(comm_self(), in_folder("b.h5"), true, &info, a, &map, &err), 0);
    layer_map_fini(&map);
    ckpt_close(a);
    for (int swap = 0; swap < 2; swap++) {
        struct ckpt_diff d = compare(in_folder(swap ? "b.h5" : "a.h5"),
                                     in_folder(swap ? "a.h5" : "b.h5"));
        assert_string_equal(d.shape, "num_hidden_layers");
        assert_int_equal(d.rows, 9);
        for (int i = 0; i < d.rows; i++) {
            assert_int_equal(d.row[i].where, swap ? DIFF_ONLY_A : DIFF_ONLY_B);
            assert_int_equal(d.row[i].tensor.layer, 4);
        }
        ckpt_diff_fini(&d);
    }
}

static int make_folder(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/dusk-diff-XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    struct err err;
    return file_remove_tree(folder, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_changed_element_is_found),
        cmocka_unit_test(sums_are_those_of_the_rows),
        cmocka_unit_test(equal_ones_are_equal),
        cmocka_unit_test(other_layers_are_listed),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
