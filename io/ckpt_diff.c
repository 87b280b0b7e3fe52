/* SPDX-License-Identifier: Apache-2.0 */
#include "io/ckpt_diff.h"

#include "src/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_ELEMENTS = 1 << 20 };

struct work {
    struct ckpt *a, *b;
    float *x, *y; /* [PIECE_ELEMENTS] */
    void (*at)(void *context, int64_t done);
    void *context;
};

void ckpt_diff_fini(struct ckpt_diff *d)
{
    mem_free(d->row);
    *d = (struct ckpt_diff){0};
}

int64_t ckpt_diff_elements(const struct ckpt *a)
{
    return table_elements(&ckpt_info(a)->shape) *
           (ckpt_info(a)->optimizer ? CKPT_SETS : 1);
}

/* The tensor of the same role and layer in a model, if it has one. */
static bool find_same(const struct model_shape *s, const struct tensor *t,
                      struct tensor *same)
{
    if (!role_present(s, t->role) || t->layer >= s->layers)
        return false;
    *same = table_find(s, t->role, t->layer);
    return true;
}

struct sums {
    double difference, base; /* of squares */
};

static void add_max(double *most, double x)
{
    if (isnan(x) || x > *most)
        *most = x;
}

static void compare_piece(const float *x, const float *y, int64_t n,
                          struct ckpt_diff_row *row, struct sums *sums)
{
    for (int64_t i = 0; i < n; i++) {
        sums->base += (double)x[i] * (double)x[i];
        if (memcmp(&x[i], &y[i], sizeof *x) == 0)
            continue;
        double difference = fabs((double)x[i] - (double)y[i]);
        row->differing++;
        sums->difference += difference * difference;
        add_max(&row->max_abs, difference);
    }
}

/* One tensor, or the sums of a role, into others. */
static void add_sum(struct ckpt_diff_sum *to, const struct ckpt_diff_sum *s)
{
    to->tensors += s->tensors;
    to->different += s->different;
    to->elements += s->elements;
    to->differing += s->differing;
    add_max(&to->max_abs, s->max_abs);
    to->difference_2 += s->difference_2;
    to->base_2 += s->base_2;
}

struct ckpt_diff_sum ckpt_diff_total(const struct ckpt_diff *d)
{
    struct ckpt_diff_sum total = {0};
    for (int set = 0; set < CKPT_SETS; set++)
        for (int r = 0; r < ROLES; r++)
            add_sum(&total, &d->sum[set][r]);
    return total;
}

double ckpt_diff_relative(const struct ckpt_diff_sum *s)
{
    return s->differing ? sqrt(s->difference_2) / sqrt(s->base_2) : 0;
}

/* Counts a tensor that was compared, or that cannot be. */
static void take(struct ckpt_diff *d, const struct ckpt_diff_row *row,
                 const struct sums *sums)
{
    bool both = row->where == DIFF_BOTH, differs = !both || row->differing;
    struct ckpt_diff_sum s = {.tensors = 1,
                              .different = differs,
                              .elements = both ? row->tensor.elements : 0,
                              .differing = row->differing,
                              .max_abs = row->max_abs,
                              .difference_2 = sums->difference,
                              .base_2 = sums->base};
    add_sum(&d->sum[row->set][row->tensor.role], &s);
    d->compared++;
    d->elements += s.elements;
    if (differs)
        d->row[d->rows++] = *row;
}

static int compare_tensor(struct work *w, struct ckpt_diff_row *row, int64_t before,
                          struct sums *total, struct err *err)
{
    const struct tensor *t = &row->tensor;
    struct sums sums = {0};
    for (int64_t at = 0, n; at < t->elements; at += n) {
        n = t->elements - at < PIECE_ELEMENTS ? t->elements - at : PIECE_ELEMENTS;
        if (ckpt_read(w->a, row->set, t->role, t->layer, at, n, w->x, err) < 0 ||
            ckpt_read(w->b, row->set, t->role, t->layer, at, n, w->y, err) < 0)
            return -1;
        compare_piece(w->x, w->y, n, row, &sums);
        if (w->at)
            w->at(w->context, before + at + n);
    }
    if (row->differing)
        row->relative_l2 = sqrt(sums.difference) / sqrt(sums.base);
    *total = sums;
    return 0;
}

/* All tensors of A in one set, those of B beside them. */
static int compare_set(struct work *w, enum ckpt_set set, struct ckpt_diff *d,
                       struct err *err)
{
    const struct model_shape *a = &ckpt_info(w->a)->shape, *b = &ckpt_info(w->b)->shape;
    for (int i = 0; i < table_count(a); i++) {
        struct tensor same;
        struct sums sums = {0};
        struct ckpt_diff_row row = {.set = set, .tensor = table_at(a, i)};
        if (!find_same(b, &row.tensor, &same))
            row.where = DIFF_ONLY_A;
        else if (same.rows != row.tensor.rows || same.cols != row.tensor.cols)
            row.where = DIFF_SHAPE;
        else if (compare_tensor(w, &row, d->elements, &sums, err) < 0)
            return -1;
        take(d, &row, &sums);
    }
    for (int i = 0; i < table_count(b); i++) {
        struct tensor same;
        struct ckpt_diff_row row = {
            .set = set, .tensor = table_at(b, i), .where = DIFF_ONLY_B};
        if (find_same(a, &row.tensor, &same))
            continue;
        take(d, &row, &(struct sums){0});
    }
    return 0;
}

int ckpt_diff(struct ckpt *a, struct ckpt *b, void (*at)(void *context, int64_t done),
              void *context, struct ckpt_diff *d, struct err *err)
{
    const struct ckpt_info *ia = ckpt_info(a), *ib = ckpt_info(b);
    int most = CKPT_SETS * (table_count(&ia->shape) + table_count(&ib->shape));
    struct work w = {.a = a, .b = b, .at = at, .context = context};
    *d = (struct ckpt_diff){.shape = shape_difference(&ia->shape, &ib->shape),
                            .optimizer = ia->optimizer && ib->optimizer};
    d->row = mem_array(most, sizeof *d->row, err);
    w.x = mem_array(PIECE_ELEMENTS, sizeof *w.x, err);
    w.y = mem_array(PIECE_ELEMENTS, sizeof *w.y, err);
    int rc = d->row && w.x && w.y ? 0 : -1;
    for (int set = 0; rc == 0 && set < (d->optimizer ? CKPT_SETS : 1); set++)
        rc = compare_set(&w, (enum ckpt_set)set, d, err);
    mem_free(w.x);
    mem_free(w.y);
    if (rc < 0)
        ckpt_diff_fini(d);
    return rc;
}
