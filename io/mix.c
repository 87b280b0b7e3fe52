/* SPDX-License-Identifier: Apache-2.0 */
#include "io/mix.h"

#include "src/base/clones.h"

#include <math.h>
#include <string.h>

enum { LANES = 8 }; /* of sums, added in one order on every CPU */
static const double least_norm = 1e-8, parallel_cosine = 0.9995;

static inline uint32_t bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

CLONES void mix_first(float w, const float *x, int64_t n, float *sum, uint32_t *differ)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] = w * x[i];
        differ[i] = 0;
    }
}

CLONES void mix_next(float w, const float *x, const float *first, int64_t n, float *sum,
                     uint32_t *differ)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] = fmaf(w, x[i], sum[i]);
        differ[i] |= bits(x[i]) ^ bits(first[i]);
    }
}

CLONES void mix_mean(float total, const float *first, const uint32_t *differ, int64_t n,
                     float *sum)
{
    for (int64_t i = 0; i < n; i++) {
        float mean = sum[i] / total;
        sum[i] = differ[i] ? mean : first[i];
    }
}

static double add_lanes(const double *lane)
{
    double sum = 0;
    for (int l = 0; l < LANES; l++)
        sum += lane[l];
    return sum;
}

CLONES struct mix_products mix_multiply(const float *a, const float *b, int64_t n)
{
    double aa[LANES] = {0}, bb[LANES] = {0}, ab[LANES] = {0};
    int64_t whole = n - n % LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++) {
            double x = (double)a[i + l], y = (double)b[i + l];
            aa[l] += x * x;
            bb[l] += y * y;
            ab[l] += x * y;
        }
    for (int64_t i = whole; i < n; i++) {
        double x = (double)a[i], y = (double)b[i];
        aa[i - whole] += x * x;
        bb[i - whole] += y * y;
        ab[i - whole] += x * y;
    }
    return (struct mix_products){
        .aa = add_lanes(aa), .bb = add_lanes(bb), .ab = add_lanes(ab)};
}

static double norm(double square)
{
    double n = sqrt(square);
    return n > least_norm ? n : 1;
}

struct mix_slerp mix_slerp(const struct mix_products *p, double t)
{
    double cosine = p->ab / (norm(p->aa) * norm(p->bb));
    if (fabs(cosine) > parallel_cosine)
        return (struct mix_slerp){.weight = {(float)(1 - t), (float)t}, .line = true};
    double angle = acos(cosine);
    return (struct mix_slerp){.weight = {(float)(sin((1 - t) * angle) / sin(angle)),
                                         (float)(sin(t * angle) / sin(angle))}};
}
