/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/xent.h"

#include "src/base/clones.h"
#include "src/model/element.h"
#include "src/model/lanes.h"
#include "src/model/vexp.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* A chunk has about so many logits (32 MB); more rows make better products. A bf16 head
 * gathers the gradients of so many chunks. */
enum { CHUNK_FLOATS = 8 << 20, CHUNK_MIN = 64, CHUNK_MAX = 512, GATHERED = 4 };

static int least(int a, int b)
{
    return a < b ? a : b;
}

static int chunk_rows(int vocab)
{
    int n = CHUNK_FLOATS / vocab / CHUNK_MIN * CHUNK_MIN;
    return n > CHUNK_MAX ? CHUNK_MAX : n < CHUNK_MIN ? CHUNK_MIN : n;
}

/* Rows whose gradients are gathered for one product. */
static int group_rows(enum dtype t, int vocab)
{
    return t == DTYPE_F32 ? chunk_rows(vocab) : GATHERED * chunk_rows(vocab);
}

struct scratch {
    float *logits; /* [chunk, V]; exp(logits - their maximum) once the loss is known */
    double *sum;   /* [chunk] of a row's exponentials */
    int *counted;  /* [rows] the rows that count, rising */
    void *x;       /* [group, D] those of one group; without dx, of one chunk */
    void *dz;      /* [group, V]; in fp32 the logits */
};

/* What xent_gradient reads of xent's lies the same with dx and without. */
static struct scratch lay_out(struct arena *a, const struct linear *head, int rows,
                              bool training)
{
    enum dtype t = head->dtype;
    int chunk = least(chunk_rows(head->out), rows);
    int64_t group = training ? least(group_rows(t, head->out), rows) : chunk;
    struct scratch s;
    s.logits = arena_floats(a, (int64_t)chunk * head->out);
    s.sum = arena_take(a, chunk, sizeof *s.sum);
    s.counted = arena_take(a, rows, sizeof *s.counted);
    s.x = arena_elements(a, group * head->in, t);
    s.dz = s.logits;
    if (training && t != DTYPE_F32)
        s.dz = arena_elements(a, group * head->out, t);
    return s;
}

int64_t xent_scratch_bytes(const struct linear *head, int max_rows, bool training)
{
    struct arena a = {0};
    lay_out(&a, head, max_rows, training);
    return a.used;
}

/* z becomes exp(z - max); its sum: blocks in lanes, their sums in double in order. */
CLONES static double exponentials(float *z, int n, float max)
{
    double total = 0;
    for (int begin = 0; begin < n; begin += LANES_BLOCK) {
        int end = n - begin < LANES_BLOCK ? n : begin + LANES_BLOCK;
        for (int j = begin; j < end; j++)
            z[j] = vexp_below(z[j] - max);
        total += lanes_total(z + begin, end - begin);
    }
    return total;
}

CLONES static float largest(const float *z, int n)
{
    return lanes_max(z, n);
}

/* dz may be z in fp32. */
ELEMENT_INLINE void scale_of(enum dtype t, const float *z, int n, float factor,
                             void *dz)
{
#pragma GCC ivdep
    for (int j = 0; j < n; j++)
        element_put(t, dz, j, z[j] * factor);
}

CLONES static void scale_row(enum dtype t, const float *z, int n, float factor,
                             void *dz)
{
    if (t == DTYPE_F32)
        scale_of(DTYPE_F32, z, n, factor, dz);
    else
        scale_of(DTYPE_BF16, z, n, factor, dz);
}

/* One row's loss. z becomes exp(z - max), *sum their sum. */
static double row_loss(float *z, int n, int target, double *sum)
{
    float max = largest(z, n), at_target = z[target];
    *sum = exponentials(z, n, max);
    return log(*sum) + (double)max - (double)at_target;
}

/* From what row_loss has left. dz may be z in fp32. */
static void row_gradient(const float *z, int n, int target, double sum, float scale,
                         enum dtype t, void *dz)
{
    float factor = (float)((double)scale / sum);
    float gradient = z[target] * factor - scale;
    scale_row(t, z, n, factor, dz);
    element_put(t, dz, target, gradient);
}

/* Every product of xent is in one of these two. */
static void chunk_products(const struct gemm *g, const struct linear *head, int n,
                           const void *x, float *logits)
{
    linear_forward(g, head, n, x, head->in, 0.0f, DTYPE_F32, logits, head->out);
}

/* dx may be x. */
static void group_products(const struct gemm *g, const struct linear *head, int n,
                           const void *dz, const void *x, void *dx)
{
    linear_backward_weight(g, head, n, dz, head->out, x, head->in);
    linear_backward_input(g, head, n, dz, head->out, 0.0f, dx, head->in);
}

void xent_rehearse(const struct gemm *g, const struct linear *head, int max_rows,
                   const void *x, void *scratch, void *dx)
{
    chunk_products(g, head, least(chunk_rows(head->out), max_rows), x, scratch);
    if (dx)
        group_products(g, head, least(group_rows(head->dtype, head->out), max_rows),
                       scratch, x, dx);
}

/* One pass over the rows that count. */
struct pass {
    const struct gemm *g;
    const struct linear *head;
    const struct xent_rows *r;
    struct scratch s;
    int counted; /* so many rows count, s.counted unless all do */
    bool held;   /* logits and sums are those of the loss: all are in one chunk */
    double *nll; /* NULL: not wanted again */
    void *dx;    /* NULL: loss only */
};

/* The counted row i. */
static int row_at(const struct pass *p, int i)
{
    return p->counted == p->r->rows ? i : p->s.counted[i];
}

/* Lists the rows that count; what the others get is written at once. */
static void begin_pass(struct pass *p)
{
    const struct xent_rows *r = p->r;
    enum dtype t = p->head->dtype;
    size_t bytes = (size_t)p->head->in * dtype_bytes(t);
    for (int i = 0; i < r->rows; i++)
        if (r->target[i] >= 0)
            p->s.counted[p->counted++] = i;
        else if (p->nll)
            p->nll[i] = 0;
    if (!p->dx || p->counted == r->rows)
        return;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < r->rows; i++)
        if (r->target[i] < 0)
            memset(element_to(t, p->dx, (int64_t)i * p->head->in), 0, bytes);
}

/* Counted rows [first, end) of x: where they lie, or gathered. */
static const void *take_rows(const struct pass *p, int first, int end)
{
    enum dtype t = p->head->dtype;
    int64_t dim = p->head->in;
    if (p->counted == p->r->rows)
        return element_at(t, p->r->x, first * dim);
#pragma omp parallel for schedule(static)
    for (int i = first; i < end; i++)
        memcpy(element_to(t, p->s.x, (i - first) * dim),
               element_at(t, p->r->x, row_at(p, i) * dim),
               (size_t)dim * dtype_bytes(t));
    return p->s.x;
}

/* Losses, and gradients of logits unless dz is NULL, of counted rows [begin, end). */
static void chunk_pass(const struct pass *p, int begin, int end, const void *x,
                       void *dz)
{
    enum dtype t = p->head->dtype;
    int vocab = p->head->out;
    if (!p->held)
        chunk_products(p->g, p->head, end - begin, x, p->s.logits);
#pragma omp parallel for schedule(static)
    for (int i = 0; i < end - begin; i++) {
        int row = row_at(p, begin + i), target = p->r->target[row];
        float *z = p->s.logits + (int64_t)i * vocab;
        if (!p->held) {
            double nll = row_loss(z, vocab, target, &p->s.sum[i]);
            if (p->nll)
                p->nll[row] = nll;
        }
        if (dz)
            row_gradient(z, vocab, target, p->s.sum[i], p->r->scale[row], t,
                         element_to(t, dz, (int64_t)i * vocab));
    }
}

/* dx of counted rows [first, end), whose x are as take_rows has returned them. */
static void gradient_pass(const struct pass *p, int first, int end, const void *x)
{
    enum dtype t = p->head->dtype;
    int64_t dim = p->head->in;
    bool all = p->counted == p->r->rows;
    void *dx = all ? element_to(t, p->dx, first * dim) : p->s.x;
    group_products(p->g, p->head, end - first, p->s.dz, x, dx);
    if (all)
        return;
#pragma omp parallel for schedule(static)
    for (int i = first; i < end; i++)
        memcpy(element_to(t, p->dx, row_at(p, i) * dim),
               element_at(t, dx, (i - first) * dim), (size_t)dim * dtype_bytes(t));
}

static void run_pass(const struct pass *p)
{
    enum dtype t = p->head->dtype;
    int vocab = p->head->out, chunk = chunk_rows(vocab);
    int group = p->dx ? group_rows(t, vocab) : chunk;
    for (int first = 0; first < p->counted; first += group) {
        int end = first + least(group, p->counted - first);
        const void *x = take_rows(p, first, end);
        for (int begin = first; begin < end; begin += chunk) {
            int64_t at = begin - first;
            chunk_pass(p, begin, begin + least(chunk, end - begin),
                       element_at(t, x, at * p->head->in),
                       p->dx ? element_to(t, p->s.dz, at * vocab) : NULL);
        }
        if (p->dx)
            gradient_pass(p, first, end, x);
    }
}

void xent(const struct gemm *g, const struct linear *head, const struct xent_rows *r,
          void *scratch, double *nll, void *dx)
{
    struct arena a = {.base = scratch};
    struct pass p = {.g = g, .head = head, .r = r, .nll = nll, .dx = dx};
    p.s = lay_out(&a, head, r->rows, dx);
    begin_pass(&p);
    run_pass(&p);
}

void xent_gradient(const struct gemm *g, const struct linear *head,
                   const struct xent_rows *r, void *scratch, void *dx)
{
    struct arena a = {.base = scratch};
    struct pass p = {.g = g, .head = head, .r = r, .dx = dx};
    p.s = lay_out(&a, head, r->rows, true);
    begin_pass(&p);
    p.held = p.counted <= chunk_rows(head->out);
    run_pass(&p);
}
