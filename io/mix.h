/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_MIX_H
#define DUSK_IO_MIX_H

/* The arithmetic of io/merge.h on arrays of fp32: weighted sums of tensors, and SLERP's
 * two weights, as mergekit 0.1.5 computes them (its linear and slerp methods).
 *
 * A weighted sum is fp32 with fused multiply-add, in the order of the models, which is
 * what torch does: bit for bit mergekit's. A mean keeps the bits of an element that is
 * the same in all models, which sums of rounded products would not for every choice of
 * weights; so a model merged with itself is itself. All local; sums have the same bits
 * on every CPU. */

#include <stdbool.h>
#include <stdint.h>

/* sum[i] = w x[i], differ[i] = 0; x is the first model's. Overwrites. */
void mix_first(float w, const float *x, int64_t n, float *sum, uint32_t *differ);

/* sum[i] = fma(w, x[i], sum[i]); differ[i] becomes nonzero where the bits of x[i] are
 * not those of first[i]. */
void mix_next(float w, const float *x, const float *first, int64_t n, float *sum,
              uint32_t *differ);

/* Makes a mean of the sums: sum[i] /= total, the sum of the weights, where the models
 * differ, else first[i]. */
void mix_mean(float total, const float *first, const uint32_t *differ, int64_t n,
              float *sum);

/* Inner products of two tensors a and b, of some of their elements or all. */
struct mix_products {
    double aa, bb, ab;
};

/* Of n elements, in double. Overwrites. */
struct mix_products mix_multiply(const float *a, const float *b, int64_t n);

/* result = weight[0] a + weight[1] b. */
struct mix_slerp {
    float weight[2];
    bool line; /* linear: nearly parallel or opposite */
};

/* Spherical interpolation from a (t = 0) to b (t = 1) of two tensors, each taken as one
 * vector: th = acos(a b / |a| |b|), weights sin((1 - t) th) / sin(th) and
 * sin(t th) / sin(th) of the tensors as they are, not normalised (Shoemake 1985).
 * mergekit's edges: a norm of 1e-8 or less counts as 1; where |cos th| > 0.9995, also
 * of opposite tensors, weights 1 - t and t. The products must be finite. */
struct mix_slerp mix_slerp(const struct mix_products *p, double t);

#endif
