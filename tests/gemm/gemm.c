/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/gemm.h"

#include "src/base/rng.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct gemm *ref, *blis; /* BLIS is initialised once a process */

enum { GUARD = 16 }; /* floats before A, B and C, so that addresses can be shifted */

/* One product with its operands; rows are longer than the matrix, and what lies
 * between is NaN in A and B (to be ignored) and in C (to be kept). */
struct product {
    enum gemm_op op_a, op_b;
    int64_t m, n, k, lda, ldb, ldc;
    float beta;
    float *a, *b, *c;                  /* owned arrays */
    int64_t shift;                     /* of the operands' first elements */
    int64_t a_count, b_count, c_count; /* floats in them */
};

static float *filled(int64_t rows, int64_t cols, int64_t ld, int64_t shift,
                     uint64_t stream, int64_t *count)
{
    *count = GUARD + rows * ld + 1;
    float *x = aligned_alloc(64, ((size_t)*count * sizeof *x + 63) / 64 * 64);
    assert_non_null(x);
    for (int64_t i = 0; i < *count; i++)
        x[i] = NAN;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            x[shift + i * ld + j] =
                (float)rng_uniform(7, stream, (uint64_t)(i * cols + j)) - 0.5f;
    return x;
}

/* Values depend on the sizes only, not on pad and shift. */
static struct product product_create(enum gemm_op op_a, enum gemm_op op_b, int64_t m,
                                     int64_t n, int64_t k, float beta, int64_t pad,
                                     int64_t shift)
{
    int64_t ac = op_a == GEMM_N ? k : m, bc = op_b == GEMM_N ? n : k;
    struct product p = {.op_a = op_a,
                        .op_b = op_b,
                        .m = m,
                        .n = n,
                        .k = k,
                        .lda = ac + pad,
                        .ldb = bc + pad,
                        .ldc = n + pad,
                        .beta = beta,
                        .shift = shift};
    p.a = filled(op_a == GEMM_N ? m : k, ac, p.lda, shift, 1, &p.a_count);
    p.b = filled(op_b == GEMM_N ? k : n, bc, p.ldb, shift, 2, &p.b_count);
    p.c = filled(m, beta == 0.0f ? 0 : n, p.ldc, shift, 3, &p.c_count);
    return p;
}

static void product_destroy(struct product *p)
{
    free(p->a);
    free(p->b);
    free(p->c);
}

/* Rows [row, row + m) and columns [col, col + n) of it. */
static void run_part(const struct gemm *g, const struct product *p, int64_t row,
                     int64_t m, int64_t col, int64_t n)
{
    gemm_f32(g, p->op_a, p->op_b, m, n, p->k,
             p->a + p->shift + row * (p->op_a == GEMM_N ? p->lda : 1), p->lda,
             p->b + p->shift + col * (p->op_b == GEMM_N ? 1 : p->ldb), p->ldb, p->beta,
             p->c + p->shift + row * p->ldc + col, p->ldc);
}

static void run(const struct gemm *g, const struct product *p)
{
    run_part(g, p, 0, p->m, 0, p->n);
}

static float at(const struct product *p, int64_t i, int64_t j)
{
    return p->c[p->shift + i * p->ldc + j];
}

/* Largest |x - y|; padding must still be NaN in both. */
static double difference(const struct product *x, const struct product *y)
{
    double worst = 0;
    for (int64_t i = 0; i < x->m; i++) {
        for (int64_t j = 0; j < x->n; j++) {
            double d = fabs((double)at(x, i, j) - (double)at(y, i, j));
            if (!(d <= worst))
                worst = d; /* NaN sticks */
        }
        for (int64_t j = x->n; j < x->ldc; j++)
            assert_true(isnan(at(x, i, j)));
    }
    for (int64_t i = 0; i < x->shift; i++)
        assert_true(isnan(x->c[i]));
    return worst;
}

/* Elements of [row, row + m) x [col, col + n) that differ in a bit. */
static int64_t differing(const struct product *x, const struct product *y, int64_t row,
                         int64_t m, int64_t col, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = row; i < row + m; i++)
        for (int64_t j = col; j < col + n; j++) {
            float u = at(x, i, j), v = at(y, i, j);
            count += memcmp(&u, &v, sizeof u) != 0;
        }
    return count;
}

static const int64_t sizes[][3] = {
    {1, 1, 1},    {1, 7, 3},     {5, 1, 9},      {1, 64, 300},  {3, 3, 0},
    {6, 16, 8},   {32, 12, 4},   {33, 13, 257},  {64, 64, 64},  {31, 95, 17},
    {97, 100, 1}, {129, 65, 33}, {100, 200, 50}, {24, 331, 72}, {200, 97, 513},
};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void blis_equals_ref(void **state)
{
    (void)state;
    double worst = 0;
    for (int s = 0; s < SIZES; s++) {
        const int64_t *z = sizes[s];
        for (int v = 0; v < 16; v++) {
            enum gemm_op oa = v & 1 ? GEMM_T : GEMM_N, ob = v & 2 ? GEMM_T : GEMM_N;
            float beta = v & 4 ? 1.0f : 0.0f;
            int64_t pad = v & 8 ? 5 : 0, shift = v & 8 ? 3 : 0;
            struct product x =
                product_create(oa, ob, z[0], z[1], z[2], beta, pad, shift);
            struct product y =
                product_create(oa, ob, z[0], z[1], z[2], beta, pad, shift);
            run(blis, &x);
            run(ref, &y);
            /* roundings add like a walk of k steps over sums of k / 16 on average */
            double k = (double)z[2], bound = 6e-8 * (2 + sqrt(k)) * (1 + k / 16);
            double d = difference(&x, &y);
            worst = d / bound > worst ? d / bound : worst;
            if (!(d <= bound))
                fail_msg("%lldx%lldx%lld variant %d: %g > %g", (long long)z[0],
                         (long long)z[1], (long long)z[2], v, d, bound);
            product_destroy(&x);
            product_destroy(&y);
        }
    }
    printf("blis to ref: worst error %.2f of the bound\n", worst);
}

static void ref_multiplies(void **state)
{
    (void)state;
    /* [[1 2 3] [4 5 6]] times [[1 0] [0 1] [2 -1]], by hand */
    const float a[] = {1, 2, 3, 4, 5, 6}, at2[] = {1, 4, 2, 5, 3, 6};
    const float b[] = {1, 0, 0, 1, 2, -1}, bt[] = {1, 0, 2, 0, 1, -1};
    const float expected[] = {7, -1, 16, -1};
    const struct gemm *both[] = {ref, blis};
    for (int g = 0; g < 2; g++) {
        for (int v = 0; v < 4; v++) {
            float c[] = {10, 20, 30, 40};
            gemm_f32(both[g], v & 1 ? GEMM_T : GEMM_N, v & 2 ? GEMM_T : GEMM_N, 2, 2, 3,
                     v & 1 ? at2 : a, v & 1 ? 2 : 3, v & 2 ? bt : b, v & 2 ? 3 : 2, 1,
                     c, 2);
            for (int i = 0; i < 4; i++)
                assert_true(c[i] == expected[i] + (float)(10 * (i + 1)));
        }
    }
}

static void beta_is_any_number(void **state)
{
    (void)state;
    const struct gemm *both[] = {ref, blis};
    for (int g = 0; g < 2; g++) {
        float c[] = {8, -2}, a = 3, b[] = {1, 2};
        gemm_f32(both[g], GEMM_N, GEMM_N, 1, 2, 1, &a, 1, b, 2, 0.5f, c, 2);
        assert_true(c[0] == 7 && c[1] == 5);
        gemm_f32(both[g], GEMM_N, GEMM_N, 1, 2, 0, &a, 1, b, 2, 0.5f, c, 2);
        assert_true(c[0] == 3.5f && c[1] == 2.5f); /* k = 0 scales */
        c[0] = NAN;
        gemm_f32(both[g], GEMM_N, GEMM_N, 1, 2, 0, &a, 1, b, 2, 0, c, 2);
        assert_true(c[0] == 0 && c[1] == 0);
        gemm_f32(both[g], GEMM_N, GEMM_N, 0, 2, 1, &a, 1, b, 2, 0, NULL, 2);
    }
}

/* Sizes beyond one block of k, of rows and of columns of every family. */
static const int64_t bit_sizes[][3] = {
    {301, 27, 443}, {70, 400, 64}, {3, 1000, 300}, {500, 200, 1100}, {1, 257, 999}};
enum { BIT_SIZES = sizeof bit_sizes / sizeof *bit_sizes };

static void bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    int threads = omp_get_max_threads();
    for (int s = 0; s < BIT_SIZES; s++) {
        const int64_t *z = bit_sizes[s];
        for (int v = 0; v < 4; v++) {
            enum gemm_op oa = v & 1 ? GEMM_T : GEMM_N, ob = v & 2 ? GEMM_T : GEMM_N;
            struct product x = product_create(oa, ob, z[0], z[1], z[2], 1, 0, 0);
            omp_set_num_threads(1);
            run(blis, &x);
            for (int n = 2; n <= 5; n++) {
                struct product y = product_create(oa, ob, z[0], z[1], z[2], 1, 0, 0);
                omp_set_num_threads(n);
                run(blis, &y);
                assert_int_equal(differing(&x, &y, 0, z[0], 0, z[1]), 0);
                product_destroy(&y);
            }
            product_destroy(&x);
        }
    }
    omp_set_num_threads(threads);
}

static void bits_do_not_depend_on_place_storage_or_address(void **state)
{
    (void)state;
    for (int s = 0; s < BIT_SIZES; s++) {
        const int64_t m = bit_sizes[s][0], n = bit_sizes[s][1], k = bit_sizes[s][2];
        for (int v = 0; v < 4; v++) {
            enum gemm_op oa = v & 1 ? GEMM_T : GEMM_N, ob = v & 2 ? GEMM_T : GEMM_N;
            struct product x = product_create(oa, ob, m, n, k, 0, 0, 0);
            struct product y = product_create(oa, ob, m, n, k, 0, 7, 5);
            struct product z = product_create(oa, ob, m, n, k, 0, 0, 0);
            run(blis, &x);
            run(blis, &y);
            assert_int_equal(differing(&x, &y, 0, m, 0, n), 0);
            int64_t row = m / 3, rows = (m + 1) / 2, col = n / 4, cols = (n + 2) / 3;
            run_part(blis, &z, row, rows, col, cols);
            assert_int_equal(differing(&x, &z, row, rows, col, cols), 0);
            product_destroy(&x);
            product_destroy(&y);
            product_destroy(&z);
        }
    }
}

/* The same values stored transposed. */
static void bits_do_not_depend_on_transposes(void **state)
{
    (void)state;
    enum { M = 61, N = 130, K = 345 };
    static float a[M * K], a_t[K * M], b[K * N], b_t[N * K], c[4][M * N];
    for (int i = 0; i < M; i++)
        for (int l = 0; l < K; l++)
            a[i * K + l] = a_t[l * M + i] =
                (float)rng_normal(7, 4, (uint64_t)(i * K + l));
    for (int l = 0; l < K; l++)
        for (int j = 0; j < N; j++)
            b[l * N + j] = b_t[j * K + l] =
                (float)rng_normal(7, 5, (uint64_t)(l * N + j));
    for (int v = 0; v < 4; v++)
        gemm_f32(blis, v & 1 ? GEMM_T : GEMM_N, v & 2 ? GEMM_T : GEMM_N, M, N, K,
                 v & 1 ? a_t : a, v & 1 ? M : K, v & 2 ? b_t : b, v & 2 ? K : N, 0,
                 c[v], N);
    for (int v = 1; v < 4; v++)
        assert_memory_equal(c[0], c[v], sizeof c[0]);
}

static void tiles_run_on_all_threads_at_once(void **state)
{
    (void)state;
    enum { M = 37, N = 53, K = 300, THREADS = 4, CALLS = 50 };
    struct product x = product_create(GEMM_N, GEMM_T, M, N, K, 0, 0, 0);
    run(blis, &x);
    float *c = calloc(THREADS * M * N, sizeof *c);
    assert_non_null(c);
#pragma omp parallel for num_threads(THREADS) schedule(static, 1)
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < CALLS; i++)
            gemm_f32_tile(blis, GEMM_N, GEMM_T, M, N, K, x.a, x.lda, x.b, x.ldb, 0,
                          c + t * M * N, N);
    for (int t = 0; t < THREADS; t++)
        assert_memory_equal(c + t * M * N, x.c, M * N * sizeof *c);
    free(c);
    product_destroy(&x);
}

static void names_what_computes(void **state)
{
    (void)state;
    printf("%s, %s; level %d\n", gemm_name(ref), gemm_name(blis),
           (int)gemm_level_here());
    assert_string_equal(gemm_name(ref), "ref");
    static const char *const family[] = {"generic", "haswell", "skx", "skx", "skx"};
    if (!getenv("DUSK_TEST_USER_FAMILY"))
        assert_non_null(strstr(gemm_name(blis), family[gemm_level_here()]));
}

static void refuses_another_level(void **state)
{
    (void)state;
    struct err err = {0};
    enum gemm_level other =
        gemm_level_here() == GEMM_LEVEL_AVX2 ? GEMM_LEVEL_GENERIC : GEMM_LEVEL_AVX2;
    assert_null(gemm_create(GEMM_BLIS, other, &err)); /* must fail */
    assert_non_null(strstr(err.text, "cannot change"));
    struct gemm *again = gemm_create(GEMM_BLIS, gemm_level_here(), &err);
    assert_non_null(again);
    gemm_destroy(again);
}

static void peak_is_above_what_products_reach(void **state)
{
    (void)state;
    enum { N = 256 };
    struct product x = product_create(GEMM_N, GEMM_N, N, N, N, 0, 0, 0);
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    double peak = 0, best = 0; /* taken in turns: the machine may be shared */
    for (int i = 0; i < 20; i++) {
        double loop = gemm_peak_f32_gflops(0.005), begin = omp_get_wtime();
        run(blis, &x);
        double rate = 2e-9 * N * N * N / (omp_get_wtime() - begin);
        peak = loop > peak ? loop : peak;
        best = rate > best ? rate : best;
    }
    omp_set_num_threads(threads);
    printf("peak %.1f GFLOP/s, a product of %d^3 %.1f\n", peak, N, best);
#if !defined(__SANITIZE_ADDRESS__)  /* which keeps the loop's registers in memory */
    assert_true(peak > 0.9 * best); /* both are noisy on a shared machine */
#endif
    product_destroy(&x);
}

int main(void)
{
    struct err err = {0};
    if (getenv("BLIS_ARCH_TYPE"))
        setenv("DUSK_TEST_USER_FAMILY", "1", 1);
    else {
        /* a name would be read as family 0 */
        setenv("BLIS_ARCH_TYPE", "haswell", 1);
        if (gemm_create(GEMM_BLIS, gemm_level_here(), &err) || err.code != ERR_USAGE)
            return 1;
        printf("refused: %s\n", err.text);
        unsetenv("BLIS_ARCH_TYPE");
    }
    ref = gemm_create(GEMM_REF, GEMM_LEVEL_GENERIC, &err);
    blis = gemm_create(GEMM_BLIS, gemm_level_here(), &err);
    if (!ref || !blis) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref_multiplies),
        cmocka_unit_test(blis_equals_ref),
        cmocka_unit_test(beta_is_any_number),
        cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(bits_do_not_depend_on_place_storage_or_address),
        cmocka_unit_test(bits_do_not_depend_on_transposes),
        cmocka_unit_test(tiles_run_on_all_threads_at_once),
        cmocka_unit_test(names_what_computes),
        cmocka_unit_test(refuses_another_level),
        cmocka_unit_test(peak_is_above_what_products_reach),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    gemm_destroy(ref);
    gemm_destroy(blis);
    return failed;
}
