/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/stage_parts.h"

#include "src/base/check.h"
#include "src/model/element.h"
#include "src/model/embed.h"
#include "src/model/xent.h"

#include <string.h>

static struct slot *slot_at(const struct stage *s, int slot)
{
    CHECK(slot >= 0 && slot < s->spec.slots, "slot %d of %d", slot, s->spec.slots);
    return &s->slot[s->spec.training ? slot : 0];
}

static void begin_slot(const struct stage *s, struct slot *slot,
                       const struct rows *rows, const int32_t *ids)
{
    CHECK(rows->rows <= s->spec.max_rows, "a micro-batch of %d rows, %d planned",
          rows->rows, s->spec.max_rows);
    CHECK(rows->segments <= s->spec.max_rows, "%d segments of %d rows", rows->segments,
          s->spec.max_rows);
    slot->rows = *rows;
    if (!s->spec.training)
        return;
    size_t n = (size_t)rows->rows, segments = (size_t)rows->segments;
    memcpy(slot->segment_begin, rows->segment_begin,
           (segments + 1) * sizeof *slot->segment_begin);
    memcpy(slot->position, rows->position, n * sizeof *slot->position);
    slot->rows.segment_begin = slot->segment_begin;
    slot->rows.position = slot->position;
    if (rows->prefix) {
        memcpy(slot->prefix, rows->prefix, segments * sizeof *slot->prefix);
        slot->rows.prefix = slot->prefix;
    }
    if (s->spec.embed)
        memcpy(slot->ids, ids, n * sizeof *ids);
}

/* Sums the rows' losses. */
static void collect(const struct stage *s, const struct rows *rows,
                    const struct stage_loss *loss)
{
    for (int i = 0; i < rows->segments; i++) {
        double sum = 0;
        for (int t = rows->segment_begin[i]; t < rows->segment_begin[i + 1]; t++)
            sum += s->nll[t];
        loss->nll[i] = sum;
    }
    if (loss->row_nll)
        for (int t = 0; t < rows->rows; t++)
            loss->row_nll[t] = (float)s->nll[t];
}

/* Each segment's scale to its rows. */
static void spread(const struct stage *s, const struct rows *rows)
{
    for (int i = 0; i < rows->segments; i++)
        for (int t = rows->segment_begin[i]; t < rows->segment_begin[i + 1]; t++)
            s->row_scale[t] = s->scale[i];
}

static void head_forward(struct stage *s, struct slot *slot, const void *x,
                         const struct stage_loss *loss)
{
    const struct rows *rows = &slot->rows;
    const struct gemm *g = s->context.g;
    struct xent_rows r = {rows->rows, slot->normed, loss->target, s->row_scale};
    rmsnorm_forward(&s->norm, rows->rows, x, slot->rstd, slot->normed, NULL);
    if (s->spec.training && !loss->weigh)
        for (int t = 0; t < rows->rows; t++)
            s->row_scale[t] = loss->grad_scale;
    CHECK(!loss->weigh || s->spec.weighed || !s->spec.training,
          "a weighed loss in a stage that was not made for one");
    if (s->spec.training && loss->weigh)
        xent_loss(g, &s->head, &r, s->logits, s->nll);
    else
        xent(g, &s->head, &r, s->logits, s->nll, slot->dnormed);
    collect(s, rows, loss);
    if (!loss->weigh)
        return;
    loss->weigh(loss->context, loss->nll, s->scale);
    if (!s->spec.training)
        return;
    spread(s, rows);
    xent_gradient(g, &s->head, &r, s->logits, slot->dnormed);
}

void stage_forward(struct stage *s, int slot_index, const struct rows *rows,
                   const int32_t *ids, const void *in, void *out,
                   const struct stage_loss *loss)
{
    struct slot *slot = slot_at(s, slot_index);
    const struct stage *packs = s->spec.lender ? s->spec.lender : s;
    CHECK(packs->packed || s->spec.dtype == DTYPE_F32,
          "stage_weights_changed was never called");
    begin_slot(s, slot, rows, ids);
    const void *x = in;
    if (s->spec.embed) {
        bool only = s->spec.layers == 0 && !s->spec.head;
        void *embedded = only ? out : slot->embedded;
        embed_forward(rows->rows, s->shape.hidden, s->spec.dtype, ids, s->embed,
                      embedded);
        x = embedded;
    }
    slot->stream[0] = x;
    for (int l = 0; l < s->spec.layers; l++) {
        void *y = slot->y[l] ? slot->y[l] : out;
        block_forward(&s->context, &s->params[l], &slot->keep[l], &slot->rows, x, y);
        slot->stream[l + 1] = x = y;
    }
    if (s->spec.head)
        head_forward(s, slot, x, loss);
}

/* Through the final norm to dx, the gradient of the last layer's output, or to din if
 * there is no layer. Returns which. */
static const void *head_backward(struct stage *s, struct slot *slot, void *dx,
                                 void *din)
{
    int layers = s->spec.layers;
    if (layers == 0 && !s->spec.embed)
        dx = din;
    rmsnorm_backward(&s->norm, slot->rows.rows, slot->dnormed, slot->stream[layers],
                     slot->rstd, NULL, dx, NULL, s->norm_sums);
    return dx;
}

/* dy: the gradient of what the first layer reads. */
static void embedding_backward(struct stage *s, const struct slot *slot, const void *dy)
{
    if (s->dembed)
        embed_backward(slot->rows.rows, s->shape.hidden, s->spec.dtype, slot->ids, dy,
                       s->dembed);
}

void stage_backward(struct stage *s, int slot_index, const void *dout, void *din)
{
    struct slot *slot = slot_at(s, slot_index);
    CHECK(s->spec.training, "a backward pass of a stage that only runs forward");
    if (s->lowest > s->spec.layers)
        return;
    const void *dy = s->spec.head ? head_backward(s, slot, s->gradient[0], din) : dout;
    for (int l = s->spec.layers - 1; l >= 0 && l >= s->lowest; l--) {
        void *dx = l == 0 && !s->spec.embed ? din
                   : dy == s->gradient[0]   ? s->gradient[1]
                                            : s->gradient[0];
        const struct block_params *p = &s->params[l];
        struct block_keep *keep = &slot->keep[l];
        const struct block_left *left = &s->context.now;
        const void *x = slot->stream[l];
        block_backward_input(&s->context, p, keep, left, &slot->rows, x, dy, dx);
        block_backward_weight(&s->context, p, keep, left, &slot->rows, x, dy);
        dy = dx;
    }
    embedding_backward(s, slot, dy);
}

/* dnormed is read once, so the gradient that follows it waits in its place. */
void stage_backward_input(struct stage *s, int slot_index, const void *dout, void *din)
{
    struct slot *slot = slot_at(s, slot_index);
    CHECK(s->spec.training, "a backward pass of a stage that only runs forward");
    CHECK(s->waits_begun - s->waits_ended < s->spec.waiting,
          "slot %d would be one too many to wait, %d planned", slot_index,
          s->spec.waiting);
    struct wait *w = &s->wait[s->waits_begun++ % s->spec.waiting];
    w->slot = slot_index;
    if (s->lowest > s->spec.layers)
        return;
    const void *dy = s->spec.head ? head_backward(s, slot, slot->dnormed, din) : dout;
    for (int l = s->spec.layers - 1; l >= 0 && l >= s->lowest; l--) {
        void *dx = l > 0 ? w->dx[l] : s->spec.embed ? s->gradient[0] : din;
        block_backward_input(&s->context, &s->params[l], &slot->keep[l], &w->left[l],
                             &slot->rows, slot->stream[l], dy, dx);
        w->dy[l] = dy;
        dy = dx;
    }
    embedding_backward(s, slot, dy);
}

void stage_backward_weight(struct stage *s, int slot_index)
{
    struct slot *slot = slot_at(s, slot_index);
    CHECK(s->waits_ended < s->waits_begun, "slot %d: no backward pass is half done",
          slot_index);
    const struct wait *w = &s->wait[s->waits_ended++ % s->spec.waiting];
    CHECK(w->slot == slot_index, "slot %d, but slot %d has waited longer", slot_index,
          w->slot);
    for (int l = s->spec.layers - 1; l >= 0 && l >= s->lowest; l--)
        block_backward_weight(&s->context, &s->params[l], &slot->keep[l], &w->left[l],
                              &slot->rows, slot->stream[l], w->dy[l]);
}

void stage_logits(const struct stage *s, int slot, int row, int n, float *logits)
{
    CHECK(s->spec.head, "logits of a stage without head");
    enum dtype t = s->spec.dtype;
    int dim = s->shape.hidden;
    const void *x = element_at(t, slot_at(s, slot)->normed, (int64_t)row * dim);
    linear_forward(s->context.g, &s->head, n, x, dim, 0.0f, DTYPE_F32, logits,
                   s->shape.vocab);
}

/* Slots are alike. The logits of stage_logits may be of more rows than xent's at once.
 */
void stage_rehearse(struct stage *s)
{
    const struct slot *slot = &s->slot[0];
    for (int l = 0; l < s->spec.layers; l++)
        block_rehearse(&s->context, &s->params[l], &slot->keep[l], s->spec.max_rows,
                       s->spec.training);
    if (!s->spec.head)
        return;
    xent_rehearse(s->context.g, &s->head, s->spec.max_rows, slot->normed, s->logits,
                  slot->dnormed);
    stage_logits(s, 0, 0, s->spec.max_rows, s->logits);
}

const void *stage_residual(const struct stage *s, int slot_index, int layer)
{
    const struct slot *slot = slot_at(s, slot_index);
    int l = layer - s->spec.first_layer;
    if (!s->spec.training || l < 0 || l > s->spec.layers)
        return NULL;
    return l == s->spec.layers ? slot->normed : slot->y[l];
}
