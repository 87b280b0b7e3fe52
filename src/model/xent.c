/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/xent.h"

#include "src/base/clones.h"
#include "src/model/element.h"
#include "src/model/lanes.h"
#include "src/model/vexp.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* A chunk has about so many logits at most (32 MB), and so have the chunks that are
 * kept from the loss to its gradient; more rows make better products. A bf16 head
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

/* The first counted rows, whole chunks of them, that keep their logits. */
static int kept_rows(int vocab)
{
    int chunk = chunk_rows(vocab), n = CHUNK_FLOATS / vocab / chunk * chunk;
    return n > chunk ? n : chunk;
}

/* Rows whose gradients are gathered for one product. */
static int group_rows(enum dtype t, int vocab)
{
    return t == DTYPE_F32 ? chunk_rows(vocab) : GATHERED * chunk_rows(vocab);
}

struct scratch {
    float *logits; /* [chunk or kept, V]; exp(logits - their maximum) once the loss is
                      known */
    double *sum;   /* [chunk or kept] of a row's exponentials */
    int *counted;  /* [rows] the rows that count, rising */
    void *x;       /* [group, D] those of one group; without dx, of one chunk */
    void *dz;      /* [group, V]; in fp32 the logits */
};

static struct scratch lay_out(struct arena *a, const struct linear *head, int rows,
                              enum xent_use use)
{
    enum dtype t = head->dtype;
    int chunk = least(chunk_rows(head->out), rows);
    int kept = use == XENT_WEIGHED ? least(kept_rows(head->out), rows) : chunk;
    int64_t group = use == XENT_LOSS ? chunk : least(group_rows(t, head->out), rows);
    struct scratch s;
    s.logits = arena_floats(a, (int64_t)kept * head->out);
    s.sum = arena_take(a, kept, sizeof *s.sum);
    s.counted = arena_take(a, rows, sizeof *s.counted);
    s.x = arena_elements(a, group * head->in, t);
    s.dz = s.logits;
    if (use != XENT_LOSS && t != DTYPE_F32)
        s.dz = arena_elements(a, group * head->out, t);
    return s;
}

int64_t xent_scratch_bytes(const struct linear *head, int max_rows, enum xent_use use)
{
    struct arena a = {0};
    lay_out(&a, head, max_rows, use);
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
    int kept; /* so many counted rows at most keep what their loss has left; 0: none */
    double *nll; /* NULL: known */
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

/* Where the logits of the chunk that begins with counted row `begin` are. */
static int place_of(const struct pass *p, int begin)
{
    return begin < p->kept ? begin : 0;
}

/* Losses, and gradients of logits unless dz is NULL, of counted rows [begin, end). */
static void chunk_pass(const struct pass *p, int begin, int end, const void *x,
                       void *dz)
{
    enum dtype t = p->head->dtype;
    int vocab = p->head->out, place = place_of(p, begin);
    bool known = !p->nll && begin < p->kept;
    float *logits = p->s.logits + (int64_t)place * vocab;
    if (!known)
        chunk_products(p->g, p->head, end - begin, x, logits);
#pragma omp parallel for schedule(static)
    for (int i = 0; i < end - begin; i++) {
        int row = row_at(p, begin + i), target = p->r->target[row];
        float *z = logits + (int64_t)i * vocab;
        double *sum = &p->s.sum[place + i];
        if (!known) {
            double nll = row_loss(z, vocab, target, sum);
            if (p->nll)
                p->nll[row] = nll;
        }
        if (dz)
            row_gradient(z, vocab, target, *sum, p->r->scale[row], t,
                         element_to(t, dz, (int64_t)i * vocab));
    }
}

/* dx of counted rows [first, end), whose x are as take_rows has returned them. */
static void gradient_pass(const struct pass *p, int first, int end, const void *x,
                          const void *dz)
{
    enum dtype t = p->head->dtype;
    int64_t dim = p->head->in;
    bool all = p->counted == p->r->rows;
    void *dx = all ? element_to(t, p->dx, first * dim) : p->s.x;
    group_products(p->g, p->head, end - first, dz, x, dx);
    if (all)
        return;
#pragma omp parallel for schedule(static)
    for (int i = first; i < end; i++)
        memcpy(element_to(t, p->dx, row_at(p, i) * dim),
               element_at(t, dx, (i - first) * dim), (size_t)dim * dtype_bytes(t));
}

/* Losses alone: the rows that keep their logits last, so that these stay. */
static void loss_pass(const struct pass *p)
{
    int chunk = chunk_rows(p->head->out);
    for (int end = p->counted; end > 0;) {
        int begin = (end - 1) / chunk * chunk;
        chunk_pass(p, begin, end, take_rows(p, begin, end), NULL);
        end = begin;
    }
}

static void full_pass(const struct pass *p)
{
    enum dtype t = p->head->dtype;
    int vocab = p->head->out, chunk = chunk_rows(vocab);
    int group = group_rows(t, vocab);
    for (int first = 0; first < p->counted; first += group) {
        int end = first + least(group, p->counted - first);
        const void *x = take_rows(p, first, end);
        void *dz = p->s.dz;
        if (t == DTYPE_F32) /* where the logits are: a group is a chunk */
            dz = p->s.logits + (int64_t)place_of(p, first) * vocab;
        for (int begin = first; begin < end; begin += chunk) {
            int64_t at = begin - first;
            chunk_pass(p, begin, begin + least(chunk, end - begin),
                       element_at(t, x, at * p->head->in),
                       element_to(t, dz, at * vocab));
        }
        gradient_pass(p, first, end, x, dz);
    }
}

void xent(const struct gemm *g, const struct linear *head, const struct xent_rows *r,
          void *scratch, double *nll, void *dx)
{
    struct arena a = {.base = scratch};
    struct pass p = {.g = g, .head = head, .r = r, .nll = nll, .dx = dx};
    p.s = lay_out(&a, head, r->rows, dx ? XENT_AT_ONCE : XENT_LOSS);
    begin_pass(&p);
    if (dx)
        full_pass(&p);
    else
        loss_pass(&p);
}

void xent_loss(const struct gemm *g, const struct linear *head,
               const struct xent_rows *r, void *scratch, double *nll)
{
    struct arena a = {.base = scratch};
    struct pass p = {.g = g, .head = head, .r = r, .nll = nll};
    p.s = lay_out(&a, head, r->rows, XENT_WEIGHED);
    p.kept = kept_rows(head->out);
    begin_pass(&p);
    loss_pass(&p);
}

void xent_gradient(const struct gemm *g, const struct linear *head,
                   const struct xent_rows *r, void *scratch, void *dx)
{
    struct arena a = {.base = scratch};
    struct pass p = {.g = g, .head = head, .r = r, .dx = dx};
    p.s = lay_out(&a, head, r->rows, XENT_WEIGHED);
    p.kept = kept_rows(head->out);
    begin_pass(&p);
    full_pass(&p);
}
