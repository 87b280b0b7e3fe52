/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/bf16.h"

#include "src/base/mem.h"
#include "src/base/rng.h"
#include "src/gemm/bf16_dot.h"

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

enum { MOST_THREADS = 5, GUARD = 16 };
static const uint16_t NAN_BITS = 0x7fc0, INF_BITS = 0x7f80;

/* Own kernels, and oneDNN where it is built in, in a second context too: primitives of
 * the first were built when other numbers of threads were set. */
static struct gemm *ref, *fast[2], *again;
static int fasts;

enum form { PLAIN, TILE, PACKED, FORMS };
static const char *const form_name[] = {"plain", "tile", "packed"};

/* One product with its operands; rows are longer than the matrix, and what lies
 * between is NaN in A and B (to be ignored) and in C (to be kept). */
struct product {
    enum form form;
    enum gemm_op op_a, op_b;
    int64_t m, n, k, lda, ldb, ldc, shift; /* shift of the operands' first elements */
    enum dtype to;
    float beta;
    uint16_t *a, *b; /* owned, as c */
    void *c;
};

static uint16_t *filled(int64_t rows, int64_t cols, int64_t ld, int64_t shift,
                        uint64_t stream)
{
    size_t count = (size_t)(GUARD + rows * ld + 1);
    uint16_t *x = aligned_alloc(64, (count * sizeof *x + 63) / 64 * 64);
    assert_non_null(x);
    for (size_t i = 0; i < count; i++)
        x[i] = NAN_BITS;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            x[shift + i * ld + j] = bf16_from_f32(
                (float)rng_uniform(7, stream, (uint64_t)(i * cols + j)) - 0.5f);
    return x;
}

/* Variant bits: 1 transposes A, 2 transposes B, 4 accumulates, 8 gives a bf16 result,
 * 16 pads the rows, 32 shifts the first elements. Values depend on sizes only. */
static struct product product_create(enum form form, int variant, int64_t m, int64_t n,
                                     int64_t k)
{
    struct product p = {.form = form,
                        .op_a = variant & 1 ? GEMM_T : GEMM_N,
                        .op_b = variant & 2 ? GEMM_T : GEMM_N,
                        .m = m,
                        .n = n,
                        .k = k,
                        .to = variant & 8 ? DTYPE_BF16 : DTYPE_F32,
                        .beta = variant & 4 ? 1.0f : 0.0f,
                        .shift = variant & 32 ? 3 : 0};
    int64_t pad = variant & 16 ? 5 : 0;
    int64_t a_rows = p.op_a == GEMM_N ? m : k, b_rows = p.op_b == GEMM_N ? k : n;
    p.lda = m + k - a_rows + pad, p.ldb = n + k - b_rows + pad, p.ldc = n + pad;
    p.a = filled(a_rows, p.lda - pad, p.lda, p.shift, 1);
    p.b = filled(b_rows, p.ldb - pad, p.ldb, p.shift, 2);
    uint16_t *c = filled(m, variant & 4 ? n : 0, p.ldc, p.shift, 3);
    p.c = c;
    if (p.to == DTYPE_F32) {
        int64_t count = GUARD + m * p.ldc + 1;
        p.c = aligned_alloc(64, ((size_t)count * sizeof(float) + 63) / 64 * 64);
        assert_non_null(p.c);
        dtype_to_f32(DTYPE_BF16, c, count, p.c);
        free(c);
    }
    return p;
}

static void product_destroy(struct product *p)
{
    free(p->a);
    free(p->b);
    free(p->c);
}

static void prepare(struct gemm *g, const struct product *p)
{
    struct err err = {0};
    if (p->form == PLAIN && gemm_bf16_prepare_shared(g, p->m, p->n, p->k, &err))
        fail_msg("%s", err.text);
}

/* The part of C at (row, col), m x n. */
static void run_part(struct gemm *g, const struct product *p, int64_t row, int64_t m,
                     int64_t col, int64_t n)
{
    struct err err = {0};
    const uint16_t *a = p->a + p->shift + row * (p->op_a == GEMM_N ? p->lda : 1);
    const uint16_t *b = p->b + p->shift + col * (p->op_b == GEMM_N ? 1 : p->ldb);
    void *c =
        (char *)p->c + (size_t)(p->shift + row * p->ldc + col) * dtype_bytes(p->to);
    if (p->form == PLAIN) {
        gemm_bf16(g, p->op_a, p->op_b, m, n, p->k, a, p->lda, b, p->ldb, p->to, p->beta,
                  c, p->ldc);
    } else if (p->form == TILE) {
        gemm_bf16_tile(g, p->op_a, p->op_b, m, n, p->k, a, p->lda, b, p->ldb, p->to,
                       p->beta, c, p->ldc);
    } else {
        struct gemm_packed *packed = gemm_packed_create(g, p->k, n, &err);
        if (!packed)
            fail_msg("%s", err.text);
        gemm_packed_fill(packed, p->op_b, b, p->ldb);
        gemm_bf16_packed(g, m, n, p->k, a, p->lda, packed, p->to, p->beta, c, p->ldc);
        gemm_packed_destroy(packed);
    }
}

static void run(struct gemm *g, const struct product *p)
{
    prepare(g, p);
    run_part(g, p, 0, p->m, 0, p->n);
}

static float element(const struct product *p, int64_t at)
{
    return p->to == DTYPE_F32 ? ((const float *)p->c)[at]
                              : bf16_to_f32(((const uint16_t *)p->c)[at]);
}

static float at(const struct product *p, int64_t i, int64_t j)
{
    return element(p, p->shift + i * p->ldc + j);
}

static int padding_is_kept(const struct product *p)
{
    int kept = 1;
    for (int64_t i = 0; i < p->shift; i++)
        kept &= isnan(element(p, i));
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = p->n; j < p->ldc; j++)
            kept &= isnan(at(p, i, j));
    return kept;
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
    {1, 1, 1},     {1, 7, 3},    {5, 1, 9},     {1, 64, 300}, {3, 3, 0},
    {12, 32, 2},   {13, 33, 17}, {64, 64, 64},  {31, 95, 16}, {97, 100, 1},
    {129, 65, 33}, {64, 32, 70}, {24, 331, 72}, {7, 37, 1025}};
enum { SIZES = sizeof sizes / sizeof *sizes, VARIANTS = 64 };

static void multiplies_by_hand(void **state)
{
    (void)state;
    /* [[1 2 3] [4 5 6]] times [[1 0] [0 1] [2 -1]] */
    const float a[] = {1, 2, 3, 4, 5, 6}, a_t[] = {1, 4, 2, 5, 3, 6};
    const float b[] = {1, 0, 0, 1, 2, -1}, b_t[] = {1, 0, 2, 0, 1, -1};
    const float expected[] = {7, -1, 16, -1};
    for (int f = -1; f < fasts; f++)
        for (int v = 0; v < 16; v++) {
            uint16_t x[6], y[6], half[4];
            float old[] = {10, 20, 30, 40}, c[4];
            dtype_from_f32(DTYPE_BF16, v & 1 ? a_t : a, 6, x);
            dtype_from_f32(DTYPE_BF16, v & 2 ? b_t : b, 6, y);
            dtype_from_f32(DTYPE_BF16, old, 4, half);
            memcpy(c, old, sizeof c);
            gemm_bf16(f < 0 ? ref : fast[f], v & 1 ? GEMM_T : GEMM_N,
                      v & 2 ? GEMM_T : GEMM_N, 2, 2, 3, x, v & 1 ? 2 : 3, y,
                      v & 2 ? 3 : 2, v & 8 ? DTYPE_BF16 : DTYPE_F32,
                      v & 4 ? 1.0f : 0.0f, v & 8 ? (void *)half : (void *)c, 2);
            if (v & 8)
                dtype_to_f32(DTYPE_BF16, half, 4, c);
            for (int i = 0; i < 4; i++)
                assert_true(c[i] == expected[i] + (v & 4 ? old[i] : 0));
        }
}

/* Largest error beside its bound: roundings of fp32 sums add like a walk of k steps
 * over sums of about k / 16; two bf16 results, each rounded once, are then neighbours,
 * at most 2^-7 of their value apart. */
static double error_of(const struct product *x, const struct product *y)
{
    double worst = 0, k = (double)x->k, sum = 6e-8 * (2 + sqrt(k)) * (1 + k / 16);
    for (int64_t i = 0; i < x->m; i++)
        for (int64_t j = 0; j < x->n; j++) {
            double u = (double)at(x, i, j), v = (double)at(y, i, j);
            double bound = sum + (x->to == DTYPE_BF16 ? fabs(v) * 0x1p-7 : 0);
            double error = fabs(u - v) / bound;
            if (!(error <= worst))
                worst = error; /* NaN sticks */
        }
    return worst;
}

static void fast_equals_ref(void **state)
{
    (void)state;
    for (int f = 0; f < fasts; f++)
        for (int form = 0; form < FORMS; form++) {
            double worst = 0;
            for (int s = 0; s < SIZES; s++)
                for (int v = 0; v < VARIANTS; v++) {
                    /* oneDNN builds each product anew, which takes its time */
                    if ((form == PACKED && v & 1) ||
                        (gemm_bf16_backend(fast[f]) == GEMM_ONEDNN && v % 11 != s % 11))
                        continue;
                    const int64_t *z = sizes[s];
                    struct product x = product_create(form, v, z[0], z[1], z[2]);
                    struct product y = product_create(PLAIN, v, z[0], z[1], z[2]);
                    run(fast[f], &x);
                    run(ref, &y);
                    double error = error_of(&x, &y);
                    worst = error > worst ? error : worst;
                    if (!(error <= 1) || !padding_is_kept(&x) || !padding_is_kept(&y))
                        fail_msg("%s %s %lldx%lldx%lld variant %d: %g of the bound",
                                 gemm_bf16_name(fast[f]), form_name[form],
                                 (long long)z[0], (long long)z[1], (long long)z[2], v,
                                 error);
                    product_destroy(&x);
                    product_destroy(&y);
                }
            printf("%s %s to ref: worst error %.2f of the bound\n",
                   gemm_bf16_name(fast[f]), form_name[form], worst);
        }
}

/* The plain form of own kernels, which this CPU may not take by itself. */
static void plain_kernels_equal_ref(void **state)
{
    (void)state;
    enum { ROWS = 24, COLS = 64 };
    static uint32_t words[(ROWS + COLS) * BF16_KC / 2];
    static float sums[ROWS * COLS];
    struct bf16_room room = {ROWS, COLS, words, words + ROWS * BF16_KC / 2, sums};
    for (int s = 0; s < SIZES; s++)
        for (int v = 0; v < VARIANTS; v++) {
            const int64_t m = sizes[s][0], n = sizes[s][1], k = sizes[s][2];
            if (k == 0)
                continue;
            struct product x = product_create(PLAIN, v, m, n, k);
            struct product y = product_create(PLAIN, v, m, n, k);
            struct bf16_matrix a = {x.a + x.shift, v & 1 ? 1 : x.lda,
                                    v & 1 ? x.lda : 1};
            struct bf16_matrix b = {x.b + x.shift, v & 2 ? 1 : x.ldb,
                                    v & 2 ? x.ldb : 1};
            struct bf16_target t = {(char *)x.c + (size_t)x.shift * dtype_bytes(x.to),
                                    x.ldc, x.to, x.beta};
            bf16_dot(0, m, n, k, a, b, NULL, 0, t, room);
            run(ref, &y);
            double error = error_of(&x, &y);
            if (!(error <= 1) || !padding_is_kept(&x))
                fail_msg("%lldx%lldx%lld variant %d: %g of the bound", (long long)m,
                         (long long)n, (long long)k, v, error);
            product_destroy(&x);
            product_destroy(&y);
        }
}

/* Sizes beyond one block of rows, of columns and of k. */
static const int64_t bit_sizes[][3] = {
    {301, 527, 143}, {70, 1100, 64}, {3, 1000, 2300}, {700, 200, 1100}, {1, 257, 999}};
enum { BIT_SIZES = sizeof bit_sizes / sizeof *bit_sizes };

static void bits_do_not_depend_on_threads_or_addresses(void **state)
{
    (void)state;
    int threads = omp_get_max_threads();
    for (int f = 0; f < fasts; f++)
        for (int s = 0; s < BIT_SIZES; s++)
            for (int v = 0; v < 16; v++)
                for (int form = 0; form < FORMS; form++) {
                    int onednn = gemm_bf16_backend(fast[f]) == GEMM_ONEDNN;
                    int change =
                        onednn ? 32 : 48; /* see bf16.h on leading dimensions */
                    if ((form == PACKED && v & 1) || v % (onednn ? 5 : 3) != s % 3)
                        continue;
                    const int64_t *z = bit_sizes[s];
                    struct product x = product_create(form, v, z[0], z[1], z[2]);
                    omp_set_num_threads(1);
                    run(fast[f], &x);
                    for (int n = 2; n <= MOST_THREADS; n += 3) {
                        struct product y = product_create(
                            form, v | (n > 2 ? change : 0), z[0], z[1], z[2]);
                        omp_set_num_threads(n);
                        run(onednn ? again : fast[f], &y);
                        int64_t wrong = differing(&x, &y, 0, z[0], 0, z[1]);
                        if (wrong)
                            fail_msg(
                                "%s %s %lldx%lldx%lld variant %d, %d threads: %lld "
                                "elements differ",
                                gemm_bf16_name(fast[f]), form_name[form],
                                (long long)z[0], (long long)z[1], (long long)z[2], v, n,
                                (long long)wrong);
                        product_destroy(&y);
                    }
                    product_destroy(&x);
                }
    omp_set_num_threads(threads);
}

static void own_bits_do_not_depend_on_form_or_place(void **state)
{
    (void)state;
    for (int s = 0; s < BIT_SIZES; s++)
        for (int v = 0; v < 16; v++) {
            const int64_t m = bit_sizes[s][0], n = bit_sizes[s][1], k = bit_sizes[s][2];
            struct product x = product_create(PLAIN, v, m, n, k);
            run(fast[0], &x);
            for (int form = 0; form < FORMS; form++) {
                if (form == PACKED && v & 1)
                    continue;
                struct product y = product_create(form, v, m, n, k);
                int64_t row = m / 3, rows = (m + 1) / 2, col = n / 4, cols = n / 3;
                run_part(fast[0], &y, row, rows, col, cols);
                assert_int_equal(differing(&x, &y, row, rows, col, cols), 0);
                product_destroy(&y);
            }
            product_destroy(&x);
        }
}

static void tiles_run_on_all_threads_at_once(void **state)
{
    (void)state;
    enum { M = 37, N = 53, K = 300, CALLS = 50 };
    struct product x = product_create(TILE, 2, M, N, K);
    for (int f = 0; f < fasts; f++) {
        run(fast[f], &x);
        float *c = calloc(MOST_THREADS * M * N, sizeof *c);
        assert_non_null(c);
#pragma omp parallel for num_threads(MOST_THREADS) schedule(static, 1)
        for (int t = 0; t < MOST_THREADS; t++)
            for (int i = 0; i < CALLS; i++)
                gemm_bf16_tile(fast[f], GEMM_N, GEMM_T, M, N, K, x.a, x.lda, x.b, x.ldb,
                               DTYPE_F32, 0, c + t * M * N, N);
        for (int t = 0; t < MOST_THREADS; t++)
            assert_memory_equal(c + t * M * N, x.c, M * N * sizeof *c);
        free(c);
    }
    product_destroy(&x);
}

/* An element is NaN or Inf where the plain sum is; all others are finite. */
static void bad_values_flow(void **state)
{
    (void)state;
    enum { M = 30, N = 70, K = 45 };
    static const struct bad {
        const char *name;
        uint16_t a, b; /* in A's row 4 and B's column 66, at the last k */
    } rows[] = {{"NaN in A", NAN_BITS, 0x3f80},
                {"Inf in B", 0x3f80, INF_BITS},
                {"Inf times 0", INF_BITS, 0},
                {"Inf minus Inf", INF_BITS, 0xff80}};
    for (int f = 0; f < fasts; f++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            for (int v = 0; v < 16; v++)
                for (int form = 0; form < FORMS; form++) {
                    if (form == PACKED && v & 1)
                        continue;
                    struct product x = product_create(form, v, M, N, K);
                    struct product y = product_create(PLAIN, v, M, N, K);
                    x.a[v & 1 ? (K - 1) * x.lda + 4 : 4 * x.lda + K - 1] = rows[r].a;
                    y.a[v & 1 ? (K - 1) * x.lda + 4 : 4 * x.lda + K - 1] = rows[r].a;
                    x.b[v & 2 ? 66 * x.ldb + K - 1 : (K - 1) * x.ldb + 66] = rows[r].b;
                    y.b[v & 2 ? 66 * x.ldb + K - 1 : (K - 1) * x.ldb + 66] = rows[r].b;
                    run(fast[f], &x);
                    run(ref, &y);
                    for (int i = 0; i < M; i++)
                        for (int j = 0; j < N; j++)
                            if (isnan(at(&x, i, j)) != isnan(at(&y, i, j)) ||
                                isinf(at(&x, i, j)) != isinf(at(&y, i, j)))
                                fail_msg("%s %s, %s, variant %d, (%d, %d): %g, not %g",
                                         gemm_bf16_name(fast[f]), form_name[form],
                                         rows[r].name, v, i, j, (double)at(&x, i, j),
                                         (double)at(&y, i, j));
                    assert_true(isnan(at(&x, 4, 66)) || isinf(at(&x, 4, 66)));
                    product_destroy(&x);
                    product_destroy(&y);
                }
}

static void packed_lives_in_given_memory_and_is_filled_again(void **state)
{
    (void)state;
    enum { M = 40, N = 75, K = 131 };
    struct err err = {0};
    for (int f = 0; f < fasts; f++) {
        struct product x = product_create(PACKED, 2, M, N, K);
        struct product y = product_create(PACKED, 2, M, N, K);
        run(fast[f], &x);
        int64_t bytes = gemm_packed_bytes(fast[f], K, N);
        assert_true(bytes >= 2 * N * K && bytes < 2 * (N + 64) * (K + 32));
        char *memory = mem_array(bytes + 64, 1, &err);
        assert_non_null(memory);
        memset(memory, 0x7f, (size_t)bytes + 64);
        struct gemm_packed *p = gemm_packed_create_at(fast[f], K, N, memory, &err);
        assert_non_null(p);
        gemm_packed_fill(p, GEMM_T, y.b + 1, y.ldb); /* other values first */
        gemm_packed_fill(p, GEMM_T, y.b, y.ldb);
        gemm_bf16_packed(fast[f], M, N, K, y.a, y.lda, p, y.to, 0, y.c, N);
        assert_int_equal(differing(&x, &y, 0, M, 0, N), 0);
        for (int i = 0; i < 64; i++)
            assert_int_equal(memory[bytes + i], 0x7f);
        gemm_packed_destroy(p);
        mem_free(memory);
        product_destroy(&x);
        product_destroy(&y);
    }
}

/* All of a row's forms, packs included, rehearsed and then run with any number of
 * rows: nothing is built any more, and the numbers are right. */
static const struct form_row {
    const char *name;
    enum form form;
    int variant;
    int64_t n, other; /* other: k, or m where A is transposed */
} form_rows[] = {{"forward", PLAIN, 2 + 8 + 16, 530, 70},
                 {"input gradient, added", PLAIN, 4 + 8, 75, 131},
                 {"packed, fp32", PACKED, 2 + 16, 600, 45},
                 {"packed, added", PACKED, 2 + 4 + 8, 96, 64},
                 {"one column in", PLAIN, 2, 9, 1},
                 {"weight gradient", PLAIN, 1 + 4, 40, 259},
                 {"weight gradient of one row", PLAIN, 1, 37, 1},
                 {"sums, overwritten", PLAIN, 1 + 16, 33, 65}};

static struct product rows_create(const struct form_row *row, int64_t rows)
{
    int transposed = row->variant & 1;
    return product_create(row->form, row->variant, transposed ? row->other : rows,
                          row->n, transposed ? rows : row->other);
}

static void rehearse(struct gemm *g, const struct product *p)
{
    struct err err;
    struct product blind = *p; /* rehearsals touch no operand */
    int64_t bytes = gemm_bf16_workspace_bytes(g);
    static uint16_t none[1];
    blind.a = blind.b = blind.c = none;
    blind.shift = 0;
    gemm_bf16_rehearse(g, &err);
    run_part(g, &blind, 0, p->m, 0, p->n);
    gemm_bf16_rehearse(g, NULL);
    if (err.code != ERR_NONE)
        fail_msg("%s", err.text);
    if (gemm_bf16_backend(g) != GEMM_ONEDNN)
        assert_true(gemm_bf16_primitives(g) == 0 &&
                    gemm_bf16_workspace_bytes(g) == bytes);
    else
        assert_true(gemm_bf16_primitives(g) > 0);
}

static void rows_of_any_number_are_rehearsed_at_once(void **state)
{
    (void)state;
    enum { MOST = 300 };
    static const int64_t rows[] = {1,   2,   3,   7,   8,   21,  64,  85,
                                   127, 128, 170, 255, 256, 257, 299, MOST};
    for (int f = 0; f < fasts; f++)
        for (size_t i = 0; i < sizeof form_rows / sizeof *form_rows; i++) {
            const struct form_row *row = &form_rows[i];
            struct product most = rows_create(row, MOST);
            rehearse(fast[f], &most);
            product_destroy(&most);
            int64_t built = gemm_bf16_primitives(fast[f]);
            double worst = 0;
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
                struct product x = rows_create(row, rows[r]);
                struct product y = rows_create(row, rows[r]);
                run_part(fast[f], &x, 0, x.m, 0, x.n);
                run_part(ref, &y, 0, y.m, 0, y.n);
                double error = error_of(&x, &y);
                worst = error > worst ? error : worst;
                if (!(error <= 1) || !padding_is_kept(&x) ||
                    gemm_bf16_primitives(fast[f]) != built)
                    fail_msg("%s %s, %lld rows: %g of the bound, %lld primitives, "
                             "rehearsed %lld",
                             gemm_bf16_name(fast[f]), row->name, (long long)rows[r],
                             error, (long long)gemm_bf16_primitives(fast[f]),
                             (long long)built);
                product_destroy(&x);
                product_destroy(&y);
            }
            printf("%s %s: %lld primitives, worst error %.2f of the bound\n",
                   gemm_bf16_name(fast[f]), row->name, (long long)built, worst);
        }
}

static void sums_over_more_rows_than_a_piece_are_rehearsed(void **state)
{
    (void)state;
    enum { MOST = 2600 };
    static const int64_t rows[] = {1, 1023, 1024, 1025, 2048, 2599, MOST};
    for (int f = 0; f < fasts; f++)
        for (int variant = 1; variant <= 9; variant += 4) { /* 1, 5, 9: C is bf16 */
            struct product most = product_create(PLAIN, variant, 7, 9, MOST);
            rehearse(fast[f], &most);
            product_destroy(&most);
            int64_t built = gemm_bf16_primitives(fast[f]);
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
                if (variant & 8 && rows[r] < MOST)
                    continue; /* only the one that was rehearsed */
                struct product x = product_create(PLAIN, variant, 7, 9, rows[r]);
                struct product y = product_create(PLAIN, variant, 7, 9, rows[r]);
                run_part(fast[f], &x, 0, x.m, 0, x.n);
                run_part(ref, &y, 0, y.m, 0, y.n);
                double error = error_of(&x, &y);
                if (!(error <= 1))
                    fail_msg("%lld rows, variant %d: %g of the bound",
                             (long long)rows[r], variant, error);
                assert_int_equal(gemm_bf16_primitives(fast[f]), built);
                product_destroy(&x);
                product_destroy(&y);
            }
        }
}

/* Rows of C that overlap are no product of oneDNN's. */
static void a_rehearsal_keeps_its_first_failure(void **state)
{
    (void)state;
    enum { M = 4, N = 5, K = 6 };
    static const uint16_t a[M * K], b[K * N];
    static float c[M * N];
    for (int f = 0; f < fasts; f++) {
        struct err err = {.code = ERR_USAGE, .text = "from before"}, first = {0};
        gemm_bf16_rehearse(fast[f], &err);
        assert_int_equal(err.code, ERR_NONE);
        gemm_bf16(fast[f], GEMM_N, GEMM_N, M, N, K, a, K, b, N, DTYPE_F32, 0, c, N - 2);
        if (gemm_bf16_backend(fast[f]) == GEMM_ONEDNN)
            assert_int_not_equal(err.code, ERR_NONE);
        first = err;
        gemm_bf16(fast[f], GEMM_N, GEMM_N, M, N, K, a, K, b, N, DTYPE_F32, 0, c, N - 3);
        gemm_bf16_rehearse(fast[f], NULL);
        assert_string_equal(err.text, first.text);
        gemm_bf16(fast[f], GEMM_N, GEMM_N, M, N, K, a, K, b, N, DTYPE_F32, 0, c, N);
        printf("%s: \"%s\"\n", gemm_bf16_name(fast[f]), err.text);
    }
}

static void names_what_computes(void **state)
{
    (void)state;
    assert_int_equal(gemm_bf16_backend(ref), GEMM_REF);
    assert_string_equal(gemm_bf16_name(ref), "ref");
    assert_int_equal(gemm_bf16_backend(fast[0]), GEMM_OWN);
    int native = gemm_level_here() >= GEMM_LEVEL_AVX512_BF16;
    assert_int_equal(gemm_bf16_native(), native);
    if (gemm_bf16_built())
        assert_string_equal(gemm_bf16_name(fast[0]),
                            native ? "own vdpbf16ps" : "own plain");
    for (int f = 0; f < fasts; f++)
        printf("%s, workspace %lld bytes\n", gemm_bf16_name(fast[f]),
               (long long)gemm_bf16_workspace_bytes(fast[f]));
}

static void peak_is_above_what_products_reach(void **state)
{
    (void)state;
    enum { M = 252, N = 256, K = 512 };
    double peak = 0, best = 0; /* taken in turns: the machine may be shared */
    struct product x = product_create(TILE, 2, M, N, K);
    for (int i = 0; i < 20; i++) {
        double loop = gemm_peak_bf16_gflops(0.005), begin = omp_get_wtime();
        run(fast[0], &x);
        double rate = 2e-9 * M * N * K / (omp_get_wtime() - begin);
        peak = loop > peak ? loop : peak;
        best = rate > best ? rate : best;
    }
    printf("peak %.1f GFLOP/s, a tile of %dx%dx%d %.1f\n", peak, M, N, K, best);
    assert_int_equal(peak > 0, gemm_bf16_native() && gemm_bf16_built());
#if !defined(__SANITIZE_ADDRESS__) /* which keeps the loop's registers in memory */
    if (peak > 0)
        assert_true(peak > 0.9 * best); /* both are noisy on a shared machine */
#endif
    product_destroy(&x);
}

int main(void)
{
    struct err err = {0};
    omp_set_num_threads(MOST_THREADS); /* contexts serve as many as there are now */
    ref = gemm_create(GEMM_REF, GEMM_LEVEL_GENERIC, &err);
    fast[fasts++] = gemm_create(GEMM_OWN, gemm_level_here(), &err);
    if (!ref || !fast[0]) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    fast[fasts] = gemm_create(GEMM_ONEDNN, gemm_level_here(), &err);
    again = gemm_create(GEMM_ONEDNN, gemm_level_here(), &err);
    if (fast[fasts] && again)
        fasts++;
    else
        printf("without oneDNN: %s\n", err.text);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multiplies_by_hand),
        cmocka_unit_test(fast_equals_ref),
        cmocka_unit_test(plain_kernels_equal_ref),
        cmocka_unit_test(bits_do_not_depend_on_threads_or_addresses),
        cmocka_unit_test(own_bits_do_not_depend_on_form_or_place),
        cmocka_unit_test(tiles_run_on_all_threads_at_once),
        cmocka_unit_test(bad_values_flow),
        cmocka_unit_test(packed_lives_in_given_memory_and_is_filled_again),
        cmocka_unit_test(rows_of_any_number_are_rehearsed_at_once),
        cmocka_unit_test(sums_over_more_rows_than_a_piece_are_rehearsed),
        cmocka_unit_test(a_rehearsal_keeps_its_first_failure),
        cmocka_unit_test(names_what_computes),
        cmocka_unit_test(peak_is_above_what_products_reach),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    gemm_destroy(ref);
    gemm_destroy(again);
    for (int f = 0; f < fasts; f++)
        gemm_destroy(fast[f]);
    return failed;
}
