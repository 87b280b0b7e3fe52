/* SPDX-License-Identifier: Apache-2.0 */
/* Where a training step of one stage that holds a whole model goes: products,
 * attention, other operations of the passes, AdamW, packing; as `dusk bench step`
 * without MPI, and for one operation after another.
 * Usage: tests/bench/stage SIZE [bf16|f32 [steps [both|forward|none]]], SIZE slice,
 * small or toy. Threads: OMP_NUM_THREADS. AdamW is timed on 32 M parameters. */
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/base/rng.h"
#include "src/base/tally.h"
#include "src/gemm/bf16.h"
#include "src/model/stage.h"
#include "src/optim/adamw.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADAMW_ELEMENTS = 32 << 20 };

static const struct size {
    const char *name;
    int hidden, ff, layers, heads, kv_heads, vocab, length, windows, micro_batches;
} sizes[] = {{"slice", 4096, 14336, 2, 32, 8, 32000, 1024, 1, 4},
             {"small", 1024, 3584, 8, 16, 4, 32000, 1024, 1, 8},
             {"toy", 256, 688, 8, 8, 4, 4096, 256, 8, 4}};

struct model {
    struct model_shape shape;
    struct stage_spec spec;
    struct slab slab;
    void *weights;
    float *grads;
    struct gemm *g;
    struct tally tally;
    struct stage *stage;
    struct rows rows;
    int *begin, *position;
    int32_t *ids;
    double *nll;
};

static void *need(int64_t n, size_t size)
{
    struct err err;
    void *p = mem_array(n, size, &err);
    if (!p) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return p;
}

/* Normal weights of the usual spread; repeated, which products do not mind. */
static void fill_weights(struct model *m)
{
    enum { SOME = 4093 };
    static float some[SOME];
    for (int i = 0; i < SOME; i++)
        some[i] = (float)(0.02 * rng_normal(1, 1, (uint64_t)i));
    for (int i = 0; i < m->slab.entries; i++) {
        const struct slab_entry *e = &m->slab.entry[i];
        bool norm = e->tensor.ndim == 1;
        for (int64_t k = 0; k < e->tensor.elements; k++) {
            float w = norm ? 1.0f : some[(k + i) % SOME];
            if (m->spec.dtype == DTYPE_F32)
                ((float *)m->weights)[e->weight_at + k] = w;
            else
                ((uint16_t *)m->weights)[e->weight_at + k] = bf16_from_f32(w);
        }
    }
}

static void model_init(struct model *m, const struct size *z, enum dtype dtype,
                       enum stage_packing packing)
{
    struct err err;
    int rows = z->length * z->windows;
    *m = (struct model){.shape = {.layers = z->layers,
                                  .hidden = z->hidden,
                                  .ff = z->ff,
                                  .heads = z->heads,
                                  .kv_heads = z->kv_heads,
                                  .head_dim = z->hidden / z->heads,
                                  .vocab = z->vocab,
                                  .max_positions = z->length,
                                  .rope_theta = 1e4,
                                  .norm_eps = 1e-5,
                                  .bos_id = -1,
                                  .eos_id = -1}};
    m->spec = (struct stage_spec){.shape = &m->shape,
                                  .layers = z->layers,
                                  .embed = true,
                                  .head = true,
                                  .max_rows = rows,
                                  .max_length = z->length,
                                  .slots = 1,
                                  .training = true,
                                  .dtype = dtype,
                                  .packing = packing};
    m->g = gemm_create(GEMM_BLIS, gemm_level_here(), &err);
    if (!m->g || slab_init(&m->slab, &m->shape, 0, z->layers, true, true, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    m->weights = need(m->slab.weights, dtype_bytes(dtype));
    m->grads = need(m->slab.grads, sizeof *m->grads);
    fill_weights(m);
    m->stage = stage_create(&m->spec, &m->slab, m->weights, m->grads, m->g, &err);
    if (!m->stage) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    m->begin = need(z->windows + 1, sizeof *m->begin);
    m->position = need(rows, sizeof *m->position);
    m->ids = need(rows, sizeof *m->ids);
    m->nll = need(z->windows, sizeof *m->nll);
    for (int i = 0; i <= z->windows; i++)
        m->begin[i] = i * z->length;
    for (int t = 0; t < rows; t++) {
        m->position[t] = t % z->length;
        m->ids[t] = (int32_t)(rng_u64(2, 2, (uint64_t)t) % (uint64_t)z->vocab);
    }
    m->rows = (struct rows){.rows = rows,
                            .segments = z->windows,
                            .segment_begin = m->begin,
                            .position = m->position};
    gemm_set_tally(m->g, &m->tally);
}

static void model_fini(struct model *m)
{
    stage_destroy(m->stage);
    gemm_destroy(m->g);
    slab_fini(&m->slab);
    void *all[] = {m->weights, m->grads, m->begin, m->position, m->ids, m->nll};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
}

/* Best rate of a product of 1024 x 4096 x 4096, GFLOP/s. */
static double best_rate(const struct model *m)
{
    enum { M = 1024, N = 4096 };
    bool f32 = m->spec.dtype == DTYPE_F32;
    float *a = need((int64_t)M * N, sizeof *a), *b = need((int64_t)N * N, sizeof *b);
    float *c = need((int64_t)M * N, sizeof *c);
    struct err err;
    struct gemm_packed *p = gemm_packed_create(m->g, N, N, &err);
    double best = 1e9;
    if (p)
        gemm_packed_fill(p, GEMM_T, (const uint16_t *)(const void *)b, N);
    for (int i = 0; p && i < 9; i++) {
        double begin = clock_s();
        if (f32)
            gemm_f32(m->g, GEMM_N, GEMM_T, M, N, N, a, N, b, N, 0.0f, c, N);
        else
            gemm_bf16_packed(m->g, M, N, N, (const uint16_t *)(const void *)a, N, p,
                             DTYPE_BF16, 0.0f, c, N);
        double s = clock_s() - begin;
        best = s < best ? s : best;
    }
    gemm_packed_destroy(p);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    return 2e-9 * M * N * N / best;
}

static double adamw_seconds(const struct model *m)
{
    const struct adamw usual = {0.9, 0.95, 1e-8, 0.1};
    int64_t n = m->slab.weights < ADAMW_ELEMENTS ? m->slab.weights : ADAMW_ELEMENTS;
    float *w = need(n, sizeof *w), *s = need(n, sizeof *s), *v = need(n, sizeof *v);
    float *g = need(n, sizeof *g);
    double best = 1e9;
    for (int t = 1; t < 5; t++) {
        double begin = clock_s();
        if (m->spec.dtype == DTYPE_F32)
            adamw_update(&usual, t, 1e-4, true, 0.5, n, w, s, v, g);
        else
            adamw_update_bf16(&usual, t, 1e-4, true, 0.5, n, (uint16_t *)(void *)w,
                              (int16_t *)(void *)(w + n / 2), s, v, g);
        double seconds = clock_s() - begin;
        best = seconds < best ? seconds : best;
    }
    mem_free(w);
    mem_free(s);
    mem_free(v);
    mem_free(g);
    return best * (double)m->slab.weights / (double)n;
}

struct times {
    double forward, backward, gemm, attention, pack;
};

static double total(const struct times *t)
{
    return t->forward + t->backward + t->pack;
}

static struct times step(struct model *m, const struct size *z)
{
    struct times t = {0};
    struct stage_loss loss = {.target = m->ids, .grad_scale = 1e-4f, .nll = m->nll};
    m->tally = (struct tally){0};
    double begin = clock_s();
    stage_weights_changed(m->stage);
    t.pack = clock_s() - begin;
    for (int i = 0; i < z->micro_batches; i++) {
        begin = clock_s();
        stage_forward(m->stage, 0, &m->rows, m->ids, NULL, NULL, &loss);
        double middle = clock_s();
        stage_backward(m->stage, 0, NULL, NULL);
        t.forward += middle - begin;
        t.backward += clock_s() - middle;
    }
    t.gemm = m->tally.seconds[TALLY_GEMM];
    t.attention = m->tally.seconds[TALLY_ATTENTION];
    return t;
}

static int by_total(const void *a, const void *b)
{
    double x = total(a), y = total(b);
    return (x > y) - (x < y);
}

static void report(const struct model *m, const struct size *z, struct times t,
                   double adamw)
{
    double rows = (double)m->rows.rows * z->micro_batches, q = z->hidden;
    double k = q * z->kv_heads / z->heads;
    double matrix =
        z->layers * (2 * q * q + 2 * q * k + 3.0 * q * z->ff) + (double)z->vocab * q;
    double flops = rows * (6 * matrix + 6.0 * z->layers * z->length * z->hidden);
    double seconds = total(&t) + adamw, rate = best_rate(m);
    const struct {
        const char *name;
        double seconds;
    } part[] = {{"products", t.gemm},
                {"attention", t.attention},
                {"other in the passes", t.forward + t.backward - t.gemm - t.attention},
                {"packing", t.pack},
                {"AdamW", adamw}};
    printf("%s: %.3f s a step, %.0f tokens/s; forward %.3f, backward %.3f\n", z->name,
           seconds, rows / seconds, t.forward, t.backward);
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        printf("  %-20s %8.4f s  %5.1f %%\n", part[i].name, part[i].seconds,
               100 * part[i].seconds / seconds);
    printf("  %.0f GFLOP/s, %.2f of the best product's %.0f; products alone %.2f\n",
           flops / seconds * 1e-9, flops / seconds * 1e-9 / rate, rate,
           rows * 6 * matrix / t.gemm * 1e-9 / rate);
}

int main(int argc, char **argv)
{
    const struct size *z = NULL;
    for (size_t i = 0; argc > 1 && i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(argv[1], sizes[i].name) == 0)
            z = &sizes[i];
    if (!z) {
        fprintf(stderr,
                "usage: %s slice|small|toy [bf16|f32 [steps [both|forward|none]"
                "]]\n",
                argv[0]);
        return 2;
    }
    enum dtype dtype = argc > 2 && strcmp(argv[2], "f32") == 0 ? DTYPE_F32 : DTYPE_BF16;
    int steps = argc > 3 ? atoi(argv[3]) : 3;
    enum stage_packing packing =
        argc > 4 && strcmp(argv[4], "none") == 0      ? STAGE_PACK_NONE
        : argc > 4 && strcmp(argv[4], "forward") == 0 ? STAGE_PACK_FORWARD
                                                      : STAGE_PACK_BOTH;
    struct model m;
    struct times *t = need(steps, sizeof *t);
    model_init(&m, z, dtype, packing);
    printf("%s, %d threads, stage %.2f GB, weights %.2f GB, gradients %.2f GB\n",
           dtype == DTYPE_F32 ? gemm_name(m.g) : gemm_bf16_name(m.g),
           omp_get_max_threads(), 1e-9 * (double)stage_bytes(&m.spec, m.g),
           1e-9 * (double)m.slab.weights * (double)dtype_bytes(dtype),
           4e-9 * (double)m.slab.grads);
    for (int i = -1; i < steps; i++) {
        struct times one = step(&m, z);
        if (i >= 0)
            t[i] = one;
    }
    qsort(t, (size_t)steps, sizeof *t, by_total);
    report(&m, z, t[steps / 2], adamw_seconds(&m));
    model_fini(&m);
    mem_free(t);
    return 0;
}
