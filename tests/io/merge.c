/* SPDX-License-Identifier: Apache-2.0 */
#include "io/merge.h"

#include "io/ckpt_diff.h"
#include "tests/io/merge_sample.h"
#include "tests/support/facts.h"

static const char *const ab[] = {"a.h5", "b.h5"}, *const ba[] = {"b.h5", "a.h5"};

struct distance {
    double absolute;
    int64_t differing, elements;
    double steps; /* largest difference in bf16 steps of the value */
};

static struct distance compare(const char *name, const struct arrays *want)
{
    struct distance d = {0};
    struct ckpt *k = open_one(name);
    const struct model_shape *s = &ckpt_info(k)->shape;
    assert_int_equal(table_count(s), want->count);
    for (int i = 0; i < table_count(s); i++) {
        struct tensor t = table_at(s, i);
        char hf[96];
        tensor_hf_name(&t, hf, sizeof hf);
        const struct array *a = arrays_get(want, hf);
        assert_int_equal(a->elements, t.elements);
        assert_string_equal(a->dtype, dtype_name(ckpt_info(k)->dtype[t.role]));
        float *x = read_tensor(k, &t);
        for (int64_t e = 0; e < t.elements; e++) {
            double off = fabs((double)x[e] - (double)a->f32[e]);
            d.differing += memcmp(&x[e], &a->f32[e], sizeof *x) != 0;
            d.absolute = fmax(d.absolute, off);
            if (off > 0)
                d.steps = fmax(d.steps, off / ldexp(1, ilogbf(a->f32[e]) - 7));
        }
        d.elements += t.elements;
        free(x);
    }
    ckpt_close(k);
    return d;
}

static const enum dtype f32 = DTYPE_F32, bf16 = DTYPE_BF16;

/* Linear merges bit for bit. SLERP within 1e-6, in bf16 at most one rounding in a
 * thousand the other way: tests/oracle/README.md. */
static void equals_mergekit(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum merge_method method;
        double weight[2], t;
        bool equal, raw, base_b;
        const enum dtype *read, *written; /* NULL: as they come */
    } rows[] = {
        {"linear-0.5-0.5", MERGE_LINEAR, {0}, .equal = true},
        {"linear-0.5-0.5", MERGE_LINEAR, {0.5, 0.5}, .raw = true},
        {"linear-0.3-0.7", MERGE_LINEAR, {0.3, 0.7}, .raw = false},
        {"linear-0.3-0.7", MERGE_LINEAR, {0.3, 0.7}, .raw = true},
        {"linear-1-0.5", MERGE_LINEAR, {1, 0.5}, .raw = false},
        {"linear-1-0.5-raw", MERGE_LINEAR, {1, 0.5}, .raw = true},
        {"linear-0.3-0.7-bf16", MERGE_LINEAR, {0.3, 0.7}, .read = &bf16},
        {"linear-0.3-0.7-f32-out-bf16", MERGE_LINEAR, {0.3, 0.7}, .written = &bf16},
        {"slerp-0.5", MERGE_SLERP, {0}, .t = 0.5},
        {"slerp-0.25", MERGE_SLERP, {0}, .t = 0.25},
        {"slerp-0.25-base-b", MERGE_SLERP, {0}, .t = 0.25, .base_b = true},
        {"slerp-0.25-bf16", MERGE_SLERP, {0}, .t = 0.25, .read = &bf16},
        {"slerp-0.25-f32-out-bf16", MERGE_SLERP, {0}, .t = 0.25, .written = &bf16},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        import("merge/a", "a.h5", rows[r].read);
        import("merge/b", "b.h5", rows[r].read);
        struct merge_options o = {.models = 2,
                                  .output = "new.h5",
                                  .method = rows[r].method,
                                  .raw = rows[r].raw,
                                  .t = rows[r].t,
                                  .keep = !rows[r].written,
                                  .dtype = rows[r].written ? *rows[r].written : f32,
                                  .force = true};
        if (rows[r].method == MERGE_LINEAR && !rows[r].equal) {
            o.weight = rows[r].weight;
            o.weights = 2;
        }
        struct merge_result result;
        must_merge(rows[r].base_b ? ba : ab, o, &result);
        char place[128];
        snprintf(place, sizeof place, "merge/%s/expect.safetensors", rows[r].name);
        struct arrays *want = arrays_load(place);
        snprintf(place, sizeof place, "merge/%s/expect.json", rows[r].name);
        struct facts *facts = facts_load(place);
        struct distance d = compare("new.h5", want);
        if (comm_root(world))
            printf("%s%s: %lld of %lld elements differ, by %.3g, %.3g bf16 steps; %d "
                   "tensors along a line\n",
                   rows[r].name, rows[r].raw ? " raw" : "", (long long)d.differing,
                   (long long)d.elements, d.absolute, d.steps, result.lines);
        bool half = rows[r].read || rows[r].written;
        if (rows[r].method == MERGE_LINEAR)
            assert_int_equal(d.differing, 0);
        else if (half)
            assert_true(d.differing * 1000 <= d.elements && d.steps <= 1);
        else
            assert_true(d.absolute <= 1e-6);
        assert_int_equal(result.lines, facts_count(facts, "line"));
        assert_int_equal(result.parameters, d.elements);
        facts_destroy(facts);
        arrays_destroy(want);
        comm_barrier(world);
    }
}

/* Values and dtypes of two files, -0 and the layers' own dtypes included. */
static void must_equal(const char *a, const char *b)
{
    struct err err = {0};
    struct ckpt *x = open_one(a), *y = open_one(b);
    struct ckpt_diff d;
    assert_int_equal(ckpt_diff(x, y, NULL, NULL, &d, &err), 0);
    assert_null(d.shape);
    if (d.rows)
        fail_msg("%s and %s: %d of %d tensors differ", a, b, d.rows, d.compared);
    const struct ckpt_info *i = ckpt_info(x), *k = ckpt_info(y);
    for (int r = 0; r < ROLES; r++) {
        if (role_present(&i->shape, (enum tensor_role)r))
            assert_int_equal(i->dtype[r], k->dtype[r]);
        assert_int_equal(!i->layer_dtype[r], !k->layer_dtype[r]);
        if (i->layer_dtype[r])
            assert_memory_equal(i->layer_dtype[r], k->layer_dtype[r],
                                (size_t)i->shape.layers * sizeof(enum dtype));
    }
    assert_int_equal(i->files, k->files);
    ckpt_diff_fini(&d);
    ckpt_close(x);
    ckpt_close(y);
    comm_barrier(world);
}

/* Also with weights whose products round, values that are subnormal or -0, dtypes that
 * mix, a tied head. */
static void a_model_with_itself_is_itself(void **state)
{
    (void)state;
    static const char *const models[] = {"tiny-mistral", "tiny-mistral-bf16",
                                         "tiny-llama-ropetheta-f16", "hostile-llama",
                                         "tiny-llama-tied"};
    static const char *const same[] = {"a.h5", "a.h5", "a.h5"};
    static const double weight[] = {0.1, 0.23, 0.7};
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        import(models[m], "a.h5", NULL);
        struct merge_options o = {
            .models = 2, .output = "new.h5", .keep = true, .force = true};
        must_merge(same, o, NULL);
        must_equal("a.h5", "new.h5");
        o.models = o.weights = 3;
        o.weight = weight;
        must_merge(same, o, NULL);
        must_equal("a.h5", "new.h5");
        struct merge_result r;
        must_merge(same,
                   (struct merge_options){.models = 2,
                                          .output = "new.h5",
                                          .method = MERGE_SLERP,
                                          .t = 0.3,
                                          .keep = true,
                                          .force = true},
                   &r);
        must_equal("a.h5", "new.h5");
        assert_int_equal(r.lines, r.tensors);
    }
}

static void slerp_starts_at_a_and_ends_at_b(void **state)
{
    (void)state;
    import("merge/a", "a.h5", NULL);
    import("merge/b", "b.h5", NULL);
    for (int t = 0; t < 2; t++) {
        must_merge(ab,
                   (struct merge_options){.models = 2,
                                          .output = "new.h5",
                                          .method = MERGE_SLERP,
                                          .t = t,
                                          .keep = true,
                                          .force = true},
                   NULL);
        must_equal(ab[t], "new.h5");
    }
}

/* Three models of three dtypes, and SLERP, against the formulas in double: tensors of
 * more than one chunk, which ranks share. */
static void equals_the_formulas(void **state)
{
    (void)state;
    static const char *const names[] = {"a.h5", "b.h5", "c.h5"};
    static const double weight[] = {0.5, 1.25, -0.375};
    struct noise b = plain, c = plain;
    b.name = "b.h5", b.seed = 2, b.dtype = DTYPE_BF16;
    c.name = "c.h5", c.seed = 3, c.dtype = DTYPE_F16;
    make_noise(&plain);
    make_noise(&b);
    make_noise(&c);
    must_merge(names,
               (struct merge_options){.models = 3,
                                      .output = "mean.h5",
                                      .weight = weight,
                                      .weights = 3,
                                      .keep = true,
                                      .force = true},
               NULL);
    must_merge(names,
               (struct merge_options){.models = 2,
                                      .output = "slerp.h5",
                                      .method = MERGE_SLERP,
                                      .t = 0.7,
                                      .keep = true,
                                      .force = true},
               NULL);
    struct ckpt *in[3], *mean = open_one("mean.h5"), *slerp = open_one("slerp.h5");
    for (int m = 0; m < 3; m++)
        in[m] = open_one(names[m]);
    const struct model_shape *s = &ckpt_info(mean)->shape;
    double worst_mean = 0, worst_slerp = 0, total = weight[0] + weight[1] + weight[2];
    for (int i = 0; i < table_count(s); i++) {
        struct tensor t = table_at(s, i);
        float *x = read_tensor(in[0], &t), *y = read_tensor(in[1], &t);
        float *z = read_tensor(in[2], &t), *p = read_tensor(mean, &t);
        float *q = read_tensor(slerp, &t);
        double xx = 0, yy = 0, xy = 0;
        for (int64_t e = 0; e < t.elements; e++) {
            xx += (double)x[e] * (double)x[e];
            yy += (double)y[e] * (double)y[e];
            xy += (double)x[e] * (double)y[e];
        }
        double angle = acos(xy / sqrt(xx) / sqrt(yy));
        for (int64_t e = 0; e < t.elements; e++) {
            double m = (weight[0] * (double)x[e] + weight[1] * (double)y[e] +
                        weight[2] * (double)z[e]) /
                       total;
            double n = (sin(0.3 * angle) * (double)x[e] + sin(0.7 * angle) * y[e]) /
                       sin(angle);
            worst_mean = fmax(worst_mean, fabs(m - (double)p[e]));
            worst_slerp = fmax(worst_slerp, fabs(n - (double)q[e]));
        }
        free(x), free(y), free(z), free(p), free(q);
    }
    if (comm_root(world))
        printf("mean of three: %.3g; slerp: %.3g from double\n", worst_mean,
               worst_slerp);
    assert_true(worst_mean <= 2.4e-7 && worst_slerp <= 2.4e-7);
    for (int m = 0; m < 3; m++)
        ckpt_close(in[m]);
    ckpt_close(mean);
    ckpt_close(slerp);
    comm_barrier(world);
}

static void the_same_bytes_from_any_ranks(void **state)
{
    (void)state;
    struct noise b = plain;
    b.name = "b.h5", b.seed = 2, b.dtype = DTYPE_BF16;
    make_noise(&plain);
    make_noise(&b);
    for (int method = MERGE_LINEAR; method <= MERGE_SLERP; method++) {
        struct merge_options o = {.models = 2,
                                  .output = "all.h5",
                                  .method = (enum merge_method)method,
                                  .t = 0.4,
                                  .dtype = DTYPE_BF16,
                                  .force = true};
        must_merge(ab, o, NULL);
        if (comm_root(world)) {
            struct comm *many = world;
            world = comm_self();
            o.output = "one.h5";
            must_merge(ab, o, NULL);
            world = many;
            struct err err = {0};
            size_t n, m;
            char *x = file_read(in_folder("all.h5"), 1 << 28, &n, &err);
            char *y = file_read(in_folder("one.h5"), 1 << 28, &m, &err);
            printf("%d ranks: %zu bytes, 1 rank: %zu bytes\n", comm_size(world), n, m);
            assert_int_equal(n, m);
            assert_memory_equal(x, y, n);
            free(x);
            free(y);
        }
        comm_barrier(world);
    }
}

int main(int argc, char **argv)
{
    int code = merge_begin(&argc, &argv);
    if (code)
        return code;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_mergekit),
        cmocka_unit_test(a_model_with_itself_is_itself),
        cmocka_unit_test(slerp_starts_at_a_and_ends_at_b),
        cmocka_unit_test(equals_the_formulas),
        cmocka_unit_test(the_same_bytes_from_any_ranks),
    };
    code = cmocka_run_group_tests(tests, NULL, NULL);
    merge_end();
    return code;
}
