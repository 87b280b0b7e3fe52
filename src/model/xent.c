/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/xent.h"

#include "src/base/clones.h"
#include "src/model/lanes.h"
#include "src/model/vexp.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* A chunk has about so many logits (32 MB); more rows make better products. */
enum { CHUNK_FLOATS = 8 << 20, CHUNK_MIN = 64, CHUNK_MAX = 512 };

static int chunk_rows(int vocab)
{
    int n = CHUNK_FLOATS / vocab / CHUNK_MIN * CHUNK_MIN;
    return n > CHUNK_MAX ? CHUNK_MAX : n < CHUNK_MIN ? CHUNK_MIN : n;
}

int64_t xent_scratch_floats(int vocab, int max_rows)
{
    int rows = chunk_rows(vocab);
    return (int64_t)vocab * (rows < max_rows ? rows : max_rows);
}

/* z becomes exp(z - max). */
CLONES static double row_loss(float *z, int n, int target, double *sum)
{
    float max = lanes_max(z, n), at_target = z[target];
    for (int j = 0; j < n; j++)
        z[j] = vexp(z[j] - max);
    *sum = lanes_total(z, n);
    return log(*sum) + (double)max - (double)at_target;
}

CLONES static void row_scale(float *z, int n, float factor)
{
    for (int j = 0; j < n; j++)
        z[j] *= factor;
}

static double row_pass(float *z, int n, int target, float scale, bool gradient)
{
    if (target < 0) {
        memset(z, 0, (size_t)n * sizeof *z);
        return 0;
    }
    double sum, nll = row_loss(z, n, target, &sum);
    if (gradient) {
        row_scale(z, n, (float)((double)scale / sum));
        z[target] -= scale;
    }
    return nll;
}

void xent(const struct gemm *g, const struct linear *head, int rows, const float *x,
          const int32_t *target, float scale, float *scratch, double *nll, float *dx)
{
    int vocab = head->out, dim = head->in, chunk = chunk_rows(vocab);
    for (int begin = 0; begin < rows; begin += chunk) {
        int n = rows - begin < chunk ? rows - begin : chunk;
        const float *chunk_x = x + (int64_t)begin * dim;
        linear_forward(g, head, n, chunk_x, 0.0f, scratch);
#pragma omp parallel for schedule(static)
        for (int i = 0; i < n; i++)
            nll[begin + i] = row_pass(scratch + (int64_t)i * vocab, vocab,
                                      target[begin + i], scale, dx != NULL);
        if (dx) {
            linear_backward_input(g, head, n, scratch, 0.0f, dx + (int64_t)begin * dim);
            linear_backward_weight(g, head, n, scratch, chunk_x);
        }
    }
}
