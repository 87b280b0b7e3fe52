/* SPDX-License-Identifier: Apache-2.0 */
#include "src/optim/adamw.h"

#include "src/base/clones.h"
#include "src/optim/master.h"

#include <math.h>

enum {
    PART = 16384, /* elements that a thread takes at a time: 256 KB of four arrays */
    SUM_BLOCK = 4096, /* elements of one sum */
    SUM_LANES = 16,
    SUM_BATCH = 512 /* block sums held on the stack */
};

/* All that one step multiplies by, rounded to fp32 once, as torch rounds its scalars.
 */
struct factors {
    float grad, keep, blend, beta2, square, step, root, eps;
};

static struct factors factors_of(const struct adamw *a, int64_t t, double lr,
                                 bool decay, double grad_scale)
{
    double correction1 = 1.0 - pow(a->beta1, (double)t);
    double correction2 = 1.0 - pow(a->beta2, (double)t);
    return (struct factors){
        .grad = (float)grad_scale,
        .keep = (float)(1.0 - (decay ? lr * a->weight_decay : 0.0)),
        .blend = (float)(1.0 - a->beta1),
        .beta2 = (float)a->beta2,
        .square = (float)(1.0 - a->beta2),
        .step = (float)(lr / correction1),
        .root = (float)sqrt(correction2),
        .eps = (float)a->eps,
    };
}

/* One element; returns the new weight. */
static inline __attribute__((always_inline)) float update(const struct factors *k,
                                                          float w, float *restrict m,
                                                          float *restrict v,
                                                          float *restrict g)
{
    float grad = *g * k->grad;
    float mean = *m + (grad - *m) * k->blend;
    float square = *v * k->beta2 + k->square * grad * grad;
    float denominator = sqrtf(square) / k->root + k->eps;
    *m = mean;
    *v = square;
    *g = 0.0f;
    return w * k->keep - k->step * mean / denominator;
}

CLONES static void update_part(const struct factors *f, int64_t n, float *restrict w,
                               float *restrict m, float *restrict v, float *restrict g)
{
    const struct factors k = *f;
    for (int64_t i = 0; i < n; i++)
        w[i] = update(&k, w[i], &m[i], &v[i], &g[i]);
}

CLONES static void update_part_bf16(const struct factors *f, int64_t n,
                                    uint16_t *restrict w, int16_t *restrict rest,
                                    float *restrict m, float *restrict v,
                                    float *restrict g)
{
    const struct factors k = *f;
    for (int64_t i = 0; i < n; i++) {
        float master = update(&k, master_join(w[i], rest[i]), &m[i], &v[i], &g[i]);
        w[i] = master_weight(master);
        rest[i] = master_rest(master);
    }
}

static int64_t part_at(int64_t n, int64_t begin)
{
    return n - begin < PART ? n - begin : PART;
}

void adamw_update(const struct adamw *a, int64_t t, double lr, bool decay,
                  double grad_scale, int64_t n, float *w, float *m, float *v, float *g)
{
    struct factors f = factors_of(a, t, lr, decay, grad_scale);
#pragma omp parallel for schedule(static) if (n > PART)
    for (int64_t at = 0; at < n; at += PART)
        update_part(&f, part_at(n, at), w + at, m + at, v + at, g + at);
}

void adamw_update_bf16(const struct adamw *a, int64_t t, double lr, bool decay,
                       double grad_scale, int64_t n, uint16_t *w, int16_t *rest,
                       float *m, float *v, float *g)
{
    struct factors f = factors_of(a, t, lr, decay, grad_scale);
#pragma omp parallel for schedule(static) if (n > PART)
    for (int64_t at = 0; at < n; at += PART)
        update_part_bf16(&f, part_at(n, at), w + at, rest + at, m + at, v + at, g + at);
}

CLONES static double sum_block(int64_t n, const float *x)
{
    double lane[SUM_LANES] = {0};
    int64_t i = 0;
    for (; i + SUM_LANES <= n; i += SUM_LANES)
        for (int j = 0; j < SUM_LANES; j++)
            lane[j] += (double)x[i + j] * (double)x[i + j];
    for (int j = 0; i + j < n; j++)
        lane[j] += (double)x[i + j] * (double)x[i + j];
    for (int w = SUM_LANES / 2; w; w /= 2)
        for (int j = 0; j < w; j++)
            lane[j] += lane[j + w];
    return lane[0];
}

double sum_of_squares(int64_t n, const float *x)
{
    double total = 0, sum[SUM_BATCH];
    const int64_t batch = (int64_t)SUM_BATCH * SUM_BLOCK;
    for (int64_t at = 0; at < n; at += batch) {
        int64_t end = n - at < batch ? n : at + batch;
        int64_t blocks = (end - at + SUM_BLOCK - 1) / SUM_BLOCK;
#pragma omp parallel for schedule(static) if (blocks > 4)
        for (int64_t b = 0; b < blocks; b++) {
            int64_t begin = at + b * SUM_BLOCK;
            sum[b] =
                sum_block(end - begin < SUM_BLOCK ? end - begin : SUM_BLOCK, x + begin);
        }
        for (int64_t b = 0; b < blocks; b++)
            total += sum[b];
    }
    return total;
}

double clip_scale(double norm, double clip)
{
    if (clip == 0.0)
        return 1.0;
    double scale = clip / (norm + 1e-6);
    return scale < 1.0 ? scale : 1.0;
}
