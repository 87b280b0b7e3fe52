/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_MODEL_ORACLE_MODEL_H
#define DUSK_TESTS_MODEL_ORACLE_MODEL_H

/* A model of tests/oracle/model with what it is expected to give, loaded into one stage
 * of all layers. Comparisons print the error beside its tolerance (those of the
 * oracle's README) and count themselves, so that a test can tell whether any was left
 * out. */

#include "src/model/stage.h"
#include "tests/support/arrays.h"
#include "tests/support/facts.h"

#define LOGITS 1e-5   /* also hidden states and cross-entropies, absolute */
#define LOSS 3e-6     /* absolute */
#define GRADIENT 1e-5 /* of the tensor's largest value */

struct oracle_model {
    struct model_shape shape;
    struct facts *expect;
    struct arrays *weights, *arrays;
    struct slab slab;
    float *w, *grads;
    void *rounded; /* w in bf16, what a bf16 stage reads */
    struct stage *stage;
    int segments, length, rows;
    int32_t *ids, *target;
    int *begin, *position;
    struct rows layout;
    double *nll;
    float *row_nll;
    int compared; /* arrays, facts and gradients that the oracle had */
};

/* A bf16 stage, or one of fp32; `round` gives the latter the former's weights. */
void model_init(struct oracle_model *m, const char *folder, int window, bool tied,
                enum dtype dtype, bool round, struct gemm *g);
void model_fini(struct oracle_model *m);

void *zeroed(int64_t n, size_t size); /* owned (free) */

/* Runs forward on the labels at `key` of expect.json (a label at t belongs to the
 * logits at t - 1) and gives their mean loss; a backward pass then adds to the zeroed
 * gradients. */
double model_forward(struct oracle_model *m, const char *key);

/* The tensor's gradient, both parts of a tied one added. Owned (free). */
float *model_gradient(const struct oracle_model *m, const struct slab_entry *e);

/* Largest |a - b|; NaN if there is any. */
double difference(int64_t n, const float *a, const float *b);
double worse(double a, double b); /* the larger; NaN wins and stays */

void expect_below(const char *what, double error, double tolerance);

/* Compare with the array or number of this name; nothing if the oracle has none. */
void expect_array(struct oracle_model *m, const char *name, const float *got,
                  double tolerance);
void expect_fact(struct oracle_model *m, const char *place, double got,
                 double tolerance);

/* cmocka's set-up and tear-down of a group: state is the gemm. */
int create_ref(void **state);
int create_blis(void **state);
int create_onednn(void **state); /* NULL where there is none */
int destroy_gemm(void **state);

#endif
