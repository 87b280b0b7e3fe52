/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_CKPT_DIFF_H
#define DUSK_IO_CKPT_DIFF_H

/* How two checkpoints differ, tensor by tensor, as their values in fp32: a dtype alone
 * is no difference. Streaming: memory does not grow with the model. All local. */

#include "io/ckpt.h"

enum ckpt_diff_where { DIFF_BOTH, DIFF_SHAPE, DIFF_ONLY_A, DIFF_ONLY_B };

struct ckpt_diff_row {
    enum ckpt_set set;
    struct tensor tensor; /* as in the file that has it; A's if both do */
    enum ckpt_diff_where where;
    int64_t differing;  /* elements whose bits differ */
    double max_abs;     /* largest |a - b|; NaN if one of two differing ones is */
    double relative_l2; /* |a - b| / |a|; Infinity if a is 0 */
};

/* Of all compared tensors of one role, of one set: sums over layers. */
struct ckpt_diff_sum {
    int tensors, different; /* all; those that differ, or that one file lacks */
    int64_t elements, differing;
    double max_abs;              /* as of a row */
    double difference_2, base_2; /* sums of squares: |a - b|^2, |a|^2 */
};

struct ckpt_diff {
    int rows, compared;        /* tensors that differ; all */
    struct ckpt_diff_row *row; /* owned; [rows], in table order */
    struct ckpt_diff_sum sum[CKPT_SETS][ROLES];
    const char *shape; /* first field of the shape that differs, or NULL */
    int64_t elements;  /* compared */
    bool optimizer;    /* moments were compared too: both have them */
};

/* `at` hears of the elements compared so far, of ckpt_diff_elements; may be NULL. -1
 * with err set (a file cannot be read) and nothing to free. */
int ckpt_diff(struct ckpt *a, struct ckpt *b, void (*at)(void *context, int64_t done),
              void *context, struct ckpt_diff *d, struct err *err);
void ckpt_diff_fini(struct ckpt_diff *d);

/* The sums of all sets and roles. */
struct ckpt_diff_sum ckpt_diff_total(const struct ckpt_diff *d);

/* |a - b| / |a| of sums: 0 where nothing differs. */
double ckpt_diff_relative(const struct ckpt_diff_sum *s);
int64_t ckpt_diff_elements(const struct ckpt *a); /* about, for a progress line */

#endif
