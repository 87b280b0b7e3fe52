/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_LINEAR_H
#define DUSK_MODEL_LINEAR_H

/* y = x W^T, a linear layer without bias: x [rows, in], W [out, in], y [rows, out], all
 * row-major. x, W, y and their gradients are of the layer's dtype, the gradient sum of
 * W is fp32. The two parts of its backward pass are separate calls, so that a schedule
 * may put them at different times.
 *
 * A group is up to three layers that read the same rows and write side by side into the
 * rows of one array: q, k and v, or gate and up. Where their weights, and their
 * gradient sums, follow each other in memory, the group is one product. All local.
 *
 * Layers that are not trained have no gradient sum. Of a group some may have one and
 * others not: its weight gradient is then a product for each run of those that have,
 * with the bits of the whole one but in oneDNN's bf16 (see src/gemm/bf16.h). */

#include <stdbool.h>

#include "src/gemm/bf16.h"
#include "src/gemm/gemm.h"
#include "src/model/arena.h"

struct linear {
    int in, out;
    enum dtype dtype;
    const void *w; /* [out, in], borrowed */
    float *dw;     /* [out, in] gradient sum, borrowed; NULL: none is wanted */
    /* Packed copies for y and for dx, NULL to read w. */
    struct gemm_packed *forward, *backward;
    void *forward_at, *backward_at; /* their memory; NULL: none */
    bool refill; /* backward's memory is also others': filled before each use */
};

/* y = x W^T + beta y; beta 0 or 1, 0 overwrites. Strides are elements from one row to
 * the next; y is of dtype `to`, the layer's or fp32. */
void linear_forward(const struct gemm *g, const struct linear *l, int rows,
                    const void *x, int64_t x_stride, float beta, enum dtype to, void *y,
                    int64_t y_stride);

/* dx = dy W + beta dx. */
void linear_backward_input(const struct gemm *g, const struct linear *l, int rows,
                           const void *dy, int64_t dy_stride, float beta, void *dx,
                           int64_t dx_stride);

/* dW += dy^T x, or nothing where dw is NULL. */
void linear_backward_weight(const struct gemm *g, const struct linear *l, int rows,
                            const void *dy, int64_t dy_stride, const void *x,
                            int64_t x_stride);

enum { LINEAR_PARTS = 3 };

/* A gradient sum [out, in] of the group's outputs [at, at + out). */
struct linear_sum {
    int at, out;
    float *dw; /* borrowed */
};

struct linear_group {
    int parts;
    int in, out;                      /* out: of all parts */
    struct linear part[LINEAR_PARTS]; /* their dw is not used */
    int sums;
    struct linear_sum sum[LINEAR_PARTS]; /* [sums], rising */
};

/* Sizes only, no sums: parts whose weights the slab will join are one part already. */
struct linear_group linear_group_of(enum dtype dtype, int in, const int *out,
                                    int parts);

/* The layer with outputs [at, at + out) is trained, its gradient sum at dw: joins the
 * one before if it follows that in both. */
void linear_group_add_sum(struct linear_group *l, int at, int out, float *dw);

/* x, dx [rows, in] and y, dy [rows, out] dense; as above. */
void linear_group_forward(const struct gemm *g, const struct linear_group *l, int rows,
                          const void *x, void *y);
void linear_group_backward_input(const struct gemm *g, const struct linear_group *l,
                                 int rows, const void *dy, void *dx);
void linear_group_backward_weight(const struct gemm *g, const struct linear_group *l,
                                  int rows, const void *dy, const void *x);

/* The copy for dx: none, one of the layer's own, or one in memory that layers have in
 * common, packed anew at each use. */
enum linear_pack { LINEAR_PACK_NONE, LINEAR_PACK_OWN, LINEAR_PACK_SHARED };

/* Bytes of the copy for dx. */
int64_t linear_pack_backward_bytes(const struct linear *l, const struct gemm *g);

/* Packed copies: takes their memory from the arena (which may only count), or uses
 * `shared`, as large as the largest copy; makes them there, -1 with err set if there is
 * no memory; uses those of another; fills them from w; ends them. A layer of fp32 has
 * none; without memory for one, there is none to make, fill or end. */
void linear_pack_lay_out(struct linear *l, struct arena *a, const struct gemm *g,
                         bool forward, enum linear_pack backward, void *shared);
int linear_pack_create(struct linear *l, struct gemm *g, struct err *err);
void linear_pack_borrow(struct linear *l, const struct linear *from);
void linear_pack_fill(struct linear *l);
void linear_pack_destroy(struct linear *l);

#endif
