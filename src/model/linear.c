/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/linear.h"

#include "src/model/element.h"
#include "src/param/slab.h"

void linear_forward(const struct gemm *g, const struct linear *l, int rows,
                    const void *x, int64_t x_stride, float beta, enum dtype to, void *y,
                    int64_t y_stride)
{
    if (l->dtype == DTYPE_F32)
        gemm_f32(g, GEMM_N, GEMM_T, rows, l->out, l->in, x, x_stride, l->w, l->in, beta,
                 y, y_stride);
    else if (l->forward)
        gemm_bf16_packed(g, rows, l->out, l->in, x, x_stride, l->forward, to, beta, y,
                         y_stride);
    else
        gemm_bf16(g, GEMM_N, GEMM_T, rows, l->out, l->in, x, x_stride, l->w, l->in, to,
                  beta, y, y_stride);
}

void linear_backward_input(const struct gemm *g, const struct linear *l, int rows,
                           const void *dy, int64_t dy_stride, float beta, void *dx,
                           int64_t dx_stride)
{
    if (l->dtype == DTYPE_F32)
        gemm_f32(g, GEMM_N, GEMM_N, rows, l->in, l->out, dy, dy_stride, l->w, l->in,
                 beta, dx, dx_stride);
    else if (l->backward) {
        if (l->refill)
            gemm_packed_fill(l->backward, GEMM_N, l->w, l->in);
        gemm_bf16_packed(g, rows, l->in, l->out, dy, dy_stride, l->backward, DTYPE_BF16,
                         beta, dx, dx_stride);
    } else
        gemm_bf16(g, GEMM_N, GEMM_N, rows, l->in, l->out, dy, dy_stride, l->w, l->in,
                  DTYPE_BF16, beta, dx, dx_stride);
}

void linear_backward_weight(const struct gemm *g, const struct linear *l, int rows,
                            const void *dy, int64_t dy_stride, const void *x,
                            int64_t x_stride)
{
    if (!l->dw)
        return;
    if (l->dtype == DTYPE_F32)
        gemm_f32(g, GEMM_T, GEMM_N, l->out, l->in, rows, dy, dy_stride, x, x_stride,
                 1.0f, l->dw, l->in);
    else
        gemm_bf16(g, GEMM_T, GEMM_N, l->out, l->in, rows, dy, dy_stride, x, x_stride,
                  DTYPE_F32, 1.0f, l->dw, l->in);
}

struct linear_group linear_group_of(enum dtype dtype, int in, const int *out, int parts)
{
    struct linear_group group = {.in = in};
    for (int i = 0; i < parts; i++) {
        struct linear *last = group.parts ? &group.part[group.parts - 1] : NULL;
        group.out += out[i];
        if (last && slab_adjoins((int64_t)last->out * in))
            last->out += out[i];
        else
            group.part[group.parts++] =
                (struct linear){.in = in, .out = out[i], .dtype = dtype};
    }
    return group;
}

void linear_group_add_sum(struct linear_group *l, int at, int out, float *dw)
{
    struct linear_sum *last = l->sums ? &l->sum[l->sums - 1] : NULL;
    if (last && last->at + last->out == at &&
        last->dw + (int64_t)last->out * l->in == dw)
        last->out += out;
    else
        l->sum[l->sums++] = (struct linear_sum){at, out, dw};
}

void linear_group_forward(const struct gemm *g, const struct linear_group *l, int rows,
                          const void *x, void *y)
{
    for (int i = 0, at = 0; i < l->parts; at += l->part[i++].out) {
        enum dtype t = l->part[i].dtype;
        linear_forward(g, &l->part[i], rows, x, l->in, 0.0f, t, element_to(t, y, at),
                       l->out);
    }
}

void linear_group_backward_input(const struct gemm *g, const struct linear_group *l,
                                 int rows, const void *dy, void *dx)
{
    for (int i = 0, at = 0; i < l->parts; at += l->part[i++].out)
        linear_backward_input(g, &l->part[i], rows,
                              element_at(l->part[i].dtype, dy, at), l->out,
                              i == 0 ? 0.0f : 1.0f, dx, l->in);
}

void linear_group_backward_weight(const struct gemm *g, const struct linear_group *l,
                                  int rows, const void *dy, const void *x)
{
    enum dtype t = l->part[0].dtype;
    for (int i = 0; i < l->sums; i++) {
        const struct linear_sum *s = &l->sum[i];
        struct linear one = {.in = l->in, .out = s->out, .dtype = t, .dw = s->dw};
        linear_backward_weight(g, &one, rows, element_at(t, dy, s->at), l->out, x,
                               l->in);
    }
}

int64_t linear_pack_backward_bytes(const struct linear *l, const struct gemm *g)
{
    return l->dtype == DTYPE_F32 ? 0 : gemm_packed_bytes(g, l->out, l->in);
}

void linear_pack_lay_out(struct linear *l, struct arena *a, const struct gemm *g,
                         bool forward, enum linear_pack backward, void *shared)
{
    if (l->dtype == DTYPE_F32)
        return;
    if (forward)
        l->forward_at = arena_take(a, gemm_packed_bytes(g, l->in, l->out), 1);
    l->refill = backward == LINEAR_PACK_SHARED;
    if (backward == LINEAR_PACK_OWN)
        l->backward_at = arena_take(a, linear_pack_backward_bytes(l, g), 1);
    else if (backward == LINEAR_PACK_SHARED)
        l->backward_at = shared;
}

int linear_pack_create(struct linear *l, struct gemm *g, struct err *err)
{
    if (l->forward_at)
        l->forward = gemm_packed_create_at(g, l->in, l->out, l->forward_at, err);
    if (l->backward_at)
        l->backward = gemm_packed_create_at(g, l->out, l->in, l->backward_at, err);
    bool failed = (l->forward_at && !l->forward) || (l->backward_at && !l->backward);
    return failed ? -1 : 0;
}

void linear_pack_borrow(struct linear *l, const struct linear *from)
{
    l->forward = from->forward;
    l->backward = from->backward;
    l->refill = from->refill;
}

void linear_pack_fill(struct linear *l)
{
    if (l->forward_at)
        gemm_packed_fill(l->forward, GEMM_T, l->w, l->in);
    if (l->backward_at && !l->refill)
        gemm_packed_fill(l->backward, GEMM_N, l->w, l->in);
}

void linear_pack_destroy(struct linear *l)
{
    if (l->forward_at)
        gemm_packed_destroy(l->forward);
    if (l->backward_at)
        gemm_packed_destroy(l->backward);
}
