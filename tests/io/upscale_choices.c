/* SPDX-License-Identifier: Apache-2.0 */
/* Layers of an up-scaled model that are no copies, against their definitions in
 * double: averaged over a joint, zeroed, noisy. */
#include "io/upscale.h"

#include "io/hf_chunks.h"
#include "tests/io/merge_sample.h"

#include <unistd.h>

/* A model of noise whose matrices of ff x hidden ranks share: 147,456 elements, two
 * chunks. up_proj is F32 but for layer 1, which was BF16. */
static const struct model_shape wide_shape = {.arch = ARCH_LLAMA,
                                              .layers = 4,
                                              .hidden = 48,
                                              .ff = 3072,
                                              .heads = 4,
                                              .kv_heads = 2,
                                              .head_dim = 12,
                                              .vocab = 100,
                                              .max_positions = 128,
                                              .rope_theta = 1e4,
                                              .norm_eps = 1e-5,
                                              .bos_id = 1,
                                              .eos_id = 2};

static void make_wide(const char *name, enum dtype dtype)
{
    struct err err = {0};
    static enum dtype own[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F32, DTYPE_F32};
    struct noise values = {.seed = 9};
    struct ckpt_info info = {.shape = wide_shape};
    for (int r = 0; r < ROLES; r++)
        info.dtype[r] = r == ROLE_UP_PROJ ? DTYPE_F32 : dtype;
    info.layer_dtype[ROLE_UP_PROJ] = own;
    struct ckpt_writer *w =
        ckpt_create(world, in_folder(name), false, true, &info, &err);
    float *x = malloc(PIECE * sizeof *x);
    uint16_t narrow[PIECE];
    for (int i = 0; w && comm_root(world) && i < table_count(&info.shape); i++) {
        struct tensor t = table_at(&info.shape, i);
        for (int64_t at = 0; at < t.elements; at += PIECE) {
            int64_t n = t.elements - at < PIECE ? t.elements - at : PIECE;
            fill(&values, &t, at, n, x);
            if (t.role == ROLE_UP_PROJ && t.layer == 1) {
                dtype_from_f32(DTYPE_BF16, x, n, narrow);
                dtype_to_f32(DTYPE_BF16, narrow, n, x);
            }
            assert_int_equal(ckpt_write(w, CKPT_MODEL, t.role, t.layer, at, n, x, &err),
                             0);
        }
    }
    free(x);
    if (!w || ckpt_commit(w, &err) < 0)
        fail_msg("%s", err.text);
}

struct choice {
    const char *layers, *seam, *zero;
    double noise;
    uint64_t seed;
    bool link;
};

static int make(struct comm *c, const char *to, const struct choice *how,
                struct upscale_result *r, struct err *err)
{
    struct upscale_options o = {.checkpoint = in_folder("base.h5"),
                                .output = in_folder(to),
                                .layers = how->layers,
                                .link = how->link,
                                .force = true};
    if (upscale_choices_read(&o.choices, how->seam, how->zero, err) < 0)
        return -1;
    o.choices.init_noise = how->noise;
    o.choices.seed = how->seed;
    return upscale(c, NULL, &o, r, err);
}

static void must_make(const char *to, const struct choice *how,
                      struct upscale_result *r)
{
    struct err err = {0};
    if (make(world, to, how, r, &err) < 0)
        fail_msg("%s", err.text);
}

static float *read_layer(struct ckpt *k, enum tensor_role role, int layer, int64_t *n)
{
    struct tensor t = table_find(&ckpt_info(k)->shape, role, layer);
    *n = t.elements;
    return read_tensor(k, &t);
}

/* Tensors of layer `to` are those of the source's layer `from`, bit for bit; of the
 * roles that `zeros` holds, zeros. Elements compared. */
static int64_t equals_layer(struct ckpt *k, int to, struct ckpt *base, int from,
                            const bool *zeros)
{
    int64_t compared = 0;
    for (int r = ROLE_Q_PROJ; r <= ROLE_POST_ATTENTION_LAYERNORM; r++) {
        int64_t n;
        float *x = read_layer(k, (enum tensor_role)r, to, &n);
        float *y = read_layer(base, (enum tensor_role)r, from, &n);
        if (zeros && zeros[r])
            memset(y, 0, (size_t)n * sizeof *y);
        assert_memory_equal(x, y, (size_t)n * sizeof *x);
        compared += n;
        free(x);
        free(y);
    }
    return compared;
}

static void inserted_copies_are_zeroed(void **state)
{
    (void)state;
    static const bool zeroed[ROLES] = {[ROLE_O_PROJ] = true, [ROLE_DOWN_PROJ] = true};
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    for (int d = 0; d < 3; d++) {
        make_wide("base.h5", dtypes[d]);
        struct upscale_result r;
        must_make("new.h5",
                  &(struct choice){.layers = "0:2,1:4,3:4", .zero = "o_proj,down_proj"},
                  &r);
        assert_int_equal(r.layers, 6);
        assert_int_equal(r.inserted, 2);
        assert_int_equal(r.averaged, 0);
        assert_true(r.keeps_function);
        struct ckpt *k = open_one("new.h5"), *base = open_one("base.h5");
        int64_t compared = equals_layer(k, 0, base, 0, NULL);
        compared += equals_layer(k, 1, base, 1, NULL);
        compared += equals_layer(k, 2, base, 1, zeroed);
        compared += equals_layer(k, 3, base, 2, NULL);
        compared += equals_layer(k, 4, base, 3, NULL);
        compared += equals_layer(k, 5, base, 3, zeroed);
        if (comm_root(world))
            printf("%s: %lld elements as expected\n", dtype_name(dtypes[d]),
                   (long long)compared);
        assert_string_equal(ckpt_info(k)->zero, "o_proj,down_proj");
        assert_string_equal(ckpt_info(k)->layers, "0:2,1:4,3:4");
        assert_null(ckpt_info(k)->seam);
        ckpt_close(k);
        ckpt_close(base);
        comm_barrier(world);
    }
}

/* (x + y) / 2, exact in double, rounded to fp32 and then to the dtype. */
static float mean_of(float x, float y, enum dtype to)
{
    float mean = (float)(((double)x + (double)y) / 2), rounded;
    uint16_t narrow[2];
    if (to == DTYPE_F32)
        return mean;
    dtype_from_f32(to, &mean, 1, narrow);
    dtype_to_f32(to, narrow, 1, &rounded);
    return rounded;
}

static void layers_are_averaged_over_joints(void **state)
{
    (void)state;
    static const struct {
        int source, with;
    } want[] = {{0, -1}, {1, -1}, {2, 0}, {1, 3}, {2, -1}, {3, -1}};
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    for (int d = 0; d < 3; d++) {
        make_wide("base.h5", dtypes[d]);
        struct upscale_result result;
        must_make("new.h5", &(struct choice){.layers = "0:3,1:4", .seam = "mean:1"},
                  &result);
        assert_int_equal(result.averaged, 2);
        assert_false(result.keeps_function);
        struct ckpt *k = open_one("new.h5"), *base = open_one("base.h5");
        int64_t averaged = 0, n;
        for (int l = 0; l < 6; l++) {
            if (want[l].with < 0) {
                equals_layer(k, l, base, want[l].source, NULL);
                continue;
            }
            for (int i = ROLE_Q_PROJ; i <= ROLE_POST_ATTENTION_LAYERNORM; i++) {
                enum tensor_role r = (enum tensor_role)i;
                float *x = read_layer(k, r, l, &n);
                float *a = read_layer(base, r, want[l].source, &n);
                float *b = read_layer(base, r, want[l].with, &n);
                for (int64_t e = 0; e < n; e++) {
                    float mean = mean_of(a[e], b[e], ckpt_info(k)->dtype[r]);
                    assert_memory_equal(&x[e], &mean, sizeof mean);
                }
                averaged += n;
                free(x);
                free(a);
                free(b);
            }
        }
        if (comm_root(world))
            printf("%s: %lld means, equal bits\n", dtype_name(dtypes[d]),
                   (long long)averaged);
        assert_string_equal(ckpt_info(k)->seam, "mean:1");
        /* Layer 3, of 1 (BF16) and 3 (F32), needs F32: a mean of both. */
        const enum dtype *own = ckpt_info(k)->layer_dtype[ROLE_UP_PROJ];
        assert_non_null(own);
        assert_int_equal(own[1], DTYPE_BF16);
        assert_int_equal(own[3], DTYPE_F32);
        ckpt_close(k);
        ckpt_close(base);
        comm_barrier(world);
    }
}

struct moments {
    double mean, deviation, with_old; /* of (new - old) / rms; its product with old */
};

/* Of one tensor, against that of the source's layer. */
static struct moments compare_noise(struct ckpt *k, int to, struct ckpt *base, int from,
                                    enum tensor_role role)
{
    int64_t n;
    struct moments m = {0};
    double squares = 0, old = 0;
    float *x = read_layer(k, role, to, &n), *y = read_layer(base, role, from, &n);
    for (int64_t i = 0; i < n; i++)
        old += (double)y[i] * (double)y[i];
    double rms = sqrt(old / (double)n);
    for (int64_t i = 0; i < n; i++) {
        double by = ((double)x[i] - (double)y[i]) / rms;
        m.mean += by;
        squares += by * by;
        m.with_old += by * (double)y[i] / rms;
    }
    m.mean /= (double)n;
    m.deviation = sqrt(squares / (double)n);
    m.with_old /= (double)n;
    free(x);
    free(y);
    return m;
}

/* Means of n independent draws stay within 5 of their standard deviations. */
static void noise_is_normal_and_as_wide_as_asked_for(void **state)
{
    (void)state;
    const double std = 0.02;
    make_wide("base.h5", DTYPE_F32);
    must_make("new.h5",
              &(struct choice){
                  .layers = "0:4,1:4", .zero = "o_proj", .noise = std, .seed = 5},
              NULL);
    struct ckpt *k = open_one("new.h5"), *base = open_one("base.h5");
    for (int l = 0; l < 4; l++)
        equals_layer(k, l, base, l, NULL);
    for (int l = 4; l < 7; l++)
        for (int i = ROLE_Q_PROJ; i <= ROLE_DOWN_PROJ; i++) {
            enum tensor_role r = (enum tensor_role)i;
            struct tensor t = table_find(&ckpt_info(k)->shape, r, l);
            if (r == ROLE_O_PROJ || (r == ROLE_UP_PROJ && l == 4))
                continue; /* zeros; narrowed to BF16 */
            struct moments m = compare_noise(k, l, base, l - 3, r);
            double root = sqrt((double)t.elements);
            if (comm_root(world) && l == 5)
                printf("%s: mean %.2g, deviation %.5f, with the old %.2g\n",
                       role_name(r), m.mean, m.deviation, m.with_old);
            assert_true(fabs(m.mean) < 5 * std / root);
            assert_true(fabs(m.with_old) < 5 * std / root);
            assert_true(fabs(m.deviation / std - 1) < 5 / sqrt(2) / root);
        }
    struct moments again = compare_noise(k, 6, k, 5, ROLE_UP_PROJ);
    assert_true(again.deviation > 0.5); /* other layers, other weights and noise */
    assert_string_equal(ckpt_info(k)->init_noise, "0.02");
    assert_string_equal(ckpt_info(k)->init_noise_seed, "5");
    for (int l = 4; l < 7; l++) { /* norms stay, o_proj is zeros */
        int64_t n;
        float *x = read_layer(k, ROLE_INPUT_LAYERNORM, l, &n);
        float *y = read_layer(base, ROLE_INPUT_LAYERNORM, l - 3, &n);
        assert_memory_equal(x, y, (size_t)n * sizeof *x);
        free(x);
        free(y);
        x = read_layer(k, ROLE_O_PROJ, l, &n);
        for (int64_t e = 0; e < n; e++)
            assert_true(x[e] >= 0 && x[e] <= 0);
        free(x);
    }
    ckpt_close(k);
    ckpt_close(base);
    comm_barrier(world);
}

/* The noise of a tensor's second chunk is not that of its first. */
static void chunks_have_their_own_noise(void **state)
{
    (void)state;
    make_wide("base.h5", DTYPE_F32);
    must_make("new.h5", &(struct choice){.layers = "0:4,2:4", .noise = 0.1}, NULL);
    struct ckpt *k = open_one("new.h5"), *base = open_one("base.h5");
    int64_t n;
    float *x = read_layer(k, ROLE_UP_PROJ, 5, &n);
    float *y = read_layer(base, ROLE_UP_PROJ, 3, &n);
    int64_t rest = n - HF_CHUNK;
    double both = 0, squares = 0;
    assert_true(rest > 0);
    for (int64_t i = 0; i < rest; i++) {
        double one = (double)x[i] - (double)y[i];
        double two = (double)x[HF_CHUNK + i] - (double)y[HF_CHUNK + i];
        both += one * two;
        squares += one * one;
    }
    if (comm_root(world))
        printf("%lld elements: correlation %.2g\n", (long long)rest, both / squares);
    assert_true(fabs(both / squares) < 5 / sqrt((double)rest));
    free(x);
    free(y);
    ckpt_close(k);
    ckpt_close(base);
    comm_barrier(world);
}

/* A layer that was BF16 in an F32 stack stays what BF16 can say. */
static void altered_layers_keep_their_dtype(void **state)
{
    (void)state;
    make_wide("base.h5", DTYPE_F32);
    must_make("new.h5", &(struct choice){.layers = "0:4,1:4", .noise = 0.1}, NULL);
    struct ckpt *k = open_one("new.h5"), *base = open_one("base.h5");
    assert_int_equal(ckpt_info(k)->layer_dtype[ROLE_UP_PROJ][4], DTYPE_BF16);
    int64_t n, changed = 0;
    float *x = read_layer(k, ROLE_UP_PROJ, 4, &n);
    float *y = read_layer(base, ROLE_UP_PROJ, 1, &n);
    for (int64_t i = 0; i < n; i++) {
        float rounded = bf16_to_f32(bf16_from_f32(x[i]));
        assert_memory_equal(&rounded, &x[i], sizeof rounded);
        changed += memcmp(&x[i], &y[i], sizeof *x) != 0;
    }
    if (comm_root(world))
        printf("%lld of %lld elements changed, all BF16\n", (long long)changed,
               (long long)n);
    assert_true(changed > n / 2);
    free(x);
    free(y);
    ckpt_close(k);
    ckpt_close(base);
    comm_barrier(world);
}

/* Two copies of one layer, and two seeds, get noise of their own. */
static void each_copy_has_its_own_noise(void **state)
{
    (void)state;
    make_wide("base.h5", DTYPE_F32);
    struct choice how = {.layers = "0:4,3:4,3:4", .noise = 0.1, .seed = 1};
    must_make("one.h5", &how, NULL);
    how.seed = 2;
    must_make("two.h5", &how, NULL);
    struct ckpt *one = open_one("one.h5"), *two = open_one("two.h5");
    struct moments copies = compare_noise(one, 5, one, 4, ROLE_UP_PROJ);
    struct moments seeds = compare_noise(two, 4, one, 4, ROLE_UP_PROJ);
    double both = 0.1 * sqrt(2) / sqrt(1 + 0.01); /* of two draws, by the noisy rms */
    if (comm_root(world))
        printf("two copies differ by %.5f, two seeds by %.5f: expected %.5f\n",
               copies.deviation, seeds.deviation, both);
    assert_true(fabs(copies.deviation / both - 1) < 0.02);
    assert_true(fabs(seeds.deviation / both - 1) < 0.02);
    ckpt_close(one);
    ckpt_close(two);
    comm_barrier(world);
}

static void the_same_bytes_from_any_ranks(void **state)
{
    (void)state;
    struct err err = {0};
    make_wide("base.h5", DTYPE_BF16);
    struct choice how = {.layers = "0:3,1:4",
                         .seam = "mean:1",
                         .zero = "down_proj",
                         .noise = 0.3,
                         .seed = 8};
    must_make("all.h5", &how, NULL);
    if (comm_root(world)) {
        size_t n, m;
        assert_int_equal(make(comm_self(), "one.h5", &how, NULL, &err), 0);
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

static void solar_takes_a_quarter(void **state)
{
    (void)state;
    struct err err = {0};
    make_wide("base.h5", DTYPE_BF16);
    struct upscale_options o = {.checkpoint = in_folder("base.h5"),
                                .output = in_folder("new.h5"),
                                .solar = true,
                                .force = true};
    struct upscale_result r;
    if (upscale(world, NULL, &o, &r, &err) < 0)
        fail_msg("%s", err.text);
    assert_string_equal(r.ranges, "0:3,1:4");
    must_make("base.h5.5", &(struct choice){.layers = "0:4,0:1"}, NULL);
    o.checkpoint = in_folder("base.h5.5");
    o.output = in_folder("x.h5");
    assert_int_equal(upscale(world, NULL, &o, NULL, &err), -1);
    if (comm_root(world))
        printf("%s\n", err.text);
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "4 divides"));
    assert_int_not_equal(access(in_folder("x.h5"), F_OK), 0);
    comm_barrier(world);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    static const struct {
        struct choice how;
        const char *message;
    } rows[] = {
        {{.layers = "0:3,1:4", .seam = "mean:1", .link = true}, "--seam: a link holds"},
        {{.layers = "0:3,1:4", .zero = "o_proj", .link = true}, "--zero: a link holds"},
        {{.layers = "0:3,1:4", .noise = 1, .link = true}, "--init-noise: a link holds"},
        {{.layers = "0:3,1:4", .seam = "mean:9"}, "with K up to 3"},
        {{.layers = "0:4", .zero = "o_proj"}, "comes twice"},
        {{.layers = "0:9", .zero = "o_proj"}, "0:9"},
    };
    make_wide("base.h5", DTYPE_BF16);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct err err = {0};
        assert_int_equal(make(world, "x.h5", &rows[r].how, NULL, &err), -1);
        if (comm_root(world))
            printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(strstr(err.text, rows[r].message));
        assert_int_not_equal(access(in_folder("x.h5"), F_OK), 0);
    }
    comm_barrier(world);
}

int main(int argc, char **argv)
{
    int rc = merge_begin(&argc, &argv);
    if (rc)
        return rc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inserted_copies_are_zeroed),
        cmocka_unit_test(layers_are_averaged_over_joints),
        cmocka_unit_test(noise_is_normal_and_as_wide_as_asked_for),
        cmocka_unit_test(each_copy_has_its_own_noise),
        cmocka_unit_test(chunks_have_their_own_noise),
        cmocka_unit_test(altered_layers_keep_their_dtype),
        cmocka_unit_test(the_same_bytes_from_any_ranks),
        cmocka_unit_test(solar_takes_a_quarter),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    merge_end();
    return failed;
}
