/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_MODEL_ATTENTION_RUN_H
#define DUSK_TESTS_MODEL_ATTENTION_RUN_H

/* A problem for attention, and what the code under test makes of it. */

#include "tests/model/plain.h"

enum { ATTENTION_SEGMENTS = 8 };

struct attention_problem {
    struct attention_dims d;
    struct rows rows;
    int begin[ATTENTION_SEGMENTS + 1], prefix[ATTENTION_SEGMENTS];
    int max_length;
    struct values q, k, v, dout; /* all numbers are bf16 */
    double *out;
};

/* lengths, prefix [segments], lengths ending early at a 0; prefix may be NULL. */
void attention_problem_init(struct attention_problem *p, struct attention_dims d,
                            int segments, const int *lengths, const int *prefix);
void attention_problem_fini(struct attention_problem *p);

/* Of an attention_problem: sum of dout out, in double; leaves out there. */
double attention_objective(void *context);

/* What one run forward and backward gives, widened to fp32 (exact is not used). */
struct attention_result {
    struct values out, lse, dq, dk, dv;
};
enum { ATTENTION_RESULTS = 5 };

/* threads: that there is scratch for. Nothing else may have been written. */
struct attention_result attention_run(const struct attention_problem *p,
                                      const struct gemm *g, int threads);
void attention_result_fini(struct attention_result *r);

/* Error of the root mean square, relative to that of b. */
double attention_rms_error(const struct values *a, const struct values *b);

void expect_attention_bits_of_any_threads(const struct attention_problem *p,
                                          const struct gemm *g);

#endif
