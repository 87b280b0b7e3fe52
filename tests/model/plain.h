/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_MODEL_PLAIN_H
#define DUSK_TESTS_MODEL_PLAIN_H

/* The model's operations once more, in double and as plain as the formulas, for the
 * tests to compare with; their gradients come from finite differences. Shapes are those
 * of src/model's headers. */

#include "src/model/block.h"

void plain_linear(int rows, int in, int out, const double *x, const double *w,
                  double *y);
void plain_rmsnorm(int rows, int dim, const double *x, const double *w, double eps,
                   double *y);
void plain_rope(int rows, int heads, int head_dim, const int *position, double theta,
                double *x);
void plain_attention(const struct attention_dims *d, const struct rows *rows,
                     const double *q, const double *k, const double *v, double *out);

/* Adds the gradients of sum dout out, by q, k and v, to arrays like them. */
struct plain_gradient {
    double *dq, *dk, *dv;
};
void plain_attention_gradient(const struct attention_dims *d, const struct rows *rows,
                              const double *q, const double *k, const double *v,
                              const double *dout, const struct plain_gradient *to);
void plain_swiglu(int n, const double *gate, const double *up, double *act);

/* Row t's cross-entropy; 0 for a negative target. */
double plain_nll(int vocab, const double *logits, int target);

struct plain_params {
    double *q, *k, *v, *o, *gate, *up, *down, *norm1, *norm2;
};

void plain_block(const struct block_dims *d, const struct plain_params *p,
                 const struct rows *rows, double theta, const double *x, double *y);

/* Test values: normal(0, scale) from (seed, stream), rounded to fp32 in both arrays.
 * Owned (free). */
struct values {
    int n;
    double *exact; /* [n] */
    float *single; /* [n] the same values */
};
struct values values_create(int n, double scale, uint64_t stream);
struct values values_zero(int n);
void values_destroy(struct values *v);

/* bf16: rounds both arrays in place and returns the same values as bf16; owned (free).
 */
uint16_t *values_round(struct values *v);

/* Checks that `got` is `single` [n] rounded, bit for bit. */
void expect_rounded(const char *what, int n, const uint16_t *got, const float *single);

/* Largest |single - exact|, over the largest |exact| unless that is all but 0. */
double values_error(int n, const float *single, const double *exact);

/* Prints and checks values_error against the tolerance. */
void expect_close(const char *what, int n, const float *single, const double *exact,
                  double tolerance);

/* Prints and checks `gradient` [n] of objective(context) by x [n] against central
 * differences: largest error over largest difference. */
void expect_gradient(const char *what, double (*objective)(void *context),
                     void *context, int n, double *x, const float *gradient,
                     double tolerance);

#endif
