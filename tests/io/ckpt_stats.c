/* SPDX-License-Identifier: Apache-2.0 */
/* Figures of tensors against plain sums in long double. */
#include "io/ckpt_stats.h"

#include "io/hf_chunks.h"
#include "tests/io/merge_sample.h"

static struct ckpt_stat *take(struct comm *c, const char *name, struct tensor **list,
                              int *n)
{
    struct err err = {0};
    struct ckpt *k = ckpt_open(c, in_folder(name), &err);
    if (!k)
        fail_msg("%s", err.text);
    *n = table_count(&ckpt_info(k)->shape);
    *list = calloc((size_t)*n, sizeof **list);
    struct ckpt_stat *stat = calloc((size_t)*n, sizeof *stat);
    for (int i = 0; i < *n; i++)
        (*list)[i] = table_at(&ckpt_info(k)->shape, i);
    if (ckpt_stats(c, NULL, "stats", k, *list, *n, stat, &err) < 0)
        fail_msg("%s", err.text);
    ckpt_close(k);
    return stat;
}

/* The largest relative error of mean and rms; the rest must be equal. */
static double check(const float *x, int64_t n, const struct ckpt_stat *s)
{
    long double sum = 0, squares = 0, absolute = 0, finite = 0;
    double most = 0;
    int64_t nan = 0, inf = 0;
    for (int64_t i = 0; i < n; i++) {
        nan += isnan(x[i]) != 0;
        inf += isinf(x[i]) != 0;
        if (!isfinite(x[i]))
            continue;
        finite++;
        sum += (long double)x[i];
        absolute += fabsl((long double)x[i]);
        squares += (long double)x[i] * (long double)x[i];
        most = fmax(most, fabs((double)x[i]));
    }
    assert_int_equal(s->nan, nan);
    assert_int_equal(s->inf, inf);
    assert_true(s->max_abs >= most && s->max_abs <= most);
    if (!(finite > 0)) {
        assert_true(s->mean >= 0 && s->mean <= 0 && s->rms >= 0 && s->rms <= 0);
        return 0;
    }
    long double rms = sqrtl(squares / finite);
    double off = (double)(fabsl((long double)s->mean * finite - sum) / absolute);
    return fmax(off, (double)(fabsl((long double)s->rms - rms) / rms));
}

static void equal_plain_sums(void **state)
{
    (void)state;
    static const struct {
        enum dtype dtype;
        float odd;
        int64_t nan, inf;
    } rows[] = {{DTYPE_F32, 0, 0, 0},
                {DTYPE_F32, NAN, 1, 0},
                {DTYPE_BF16, -INFINITY, 0, 1},
                {DTYPE_F16, INFINITY, 0, 1},
                {DTYPE_BF16, 1e30F, 0, 0}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct noise m = plain; /* embed_tokens: 320,000 elements, three chunks */
        m.dtype = rows[r].dtype;
        m.odd = rows[r].odd;
        make_noise(&m);
        struct tensor *list;
        int n;
        struct ckpt_stat *stat = take(world, m.name, &list, &n);
        struct ckpt *k = open_one(m.name);
        double worst = 0;
        int64_t nan = 0, inf = 0;
        for (int i = 0; i < n; i++) {
            float *x = read_tensor(k, &list[i]);
            worst = fmax(worst, check(x, list[i].elements, &stat[i]));
            nan += stat[i].nan;
            inf += stat[i].inf;
            free(x);
        }
        if (comm_root(world))
            printf("%s: %d tensors, NaN %lld, Inf %lld, sums off by %.2g\n",
                   dtype_name(m.dtype), n, (long long)nan, (long long)inf, worst);
        assert_true(worst < HF_CHUNK / 8 * 0x1p-53); /* of one lane of a chunk */
        assert_int_equal(nan, rows[r].nan);
        assert_int_equal(inf, rows[r].inf);
        ckpt_close(k);
        free(list);
        free(stat);
        comm_barrier(world);
    }
}

static void the_same_bits_from_any_ranks(void **state)
{
    (void)state;
    struct noise m = plain;
    make_noise(&m);
    struct tensor *list, *again;
    int n, alone;
    struct ckpt_stat *all = take(world, m.name, &list, &n);
    struct ckpt_stat *one = take(comm_self(), m.name, &again, &alone);
    assert_int_equal(n, alone);
    assert_memory_equal(all, one, (size_t)n * sizeof *all);
    if (comm_root(world))
        printf("%d ranks and 1: the same %d figures\n", comm_size(world), n);
    free(all);
    free(one);
    free(list);
    free(again);
    comm_barrier(world);
}

int main(int argc, char **argv)
{
    int rc = merge_begin(&argc, &argv);
    if (rc)
        return rc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_plain_sums),
        cmocka_unit_test(the_same_bits_from_any_ranks),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    merge_end();
    return failed;
}
