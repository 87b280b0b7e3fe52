/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_PRECISION_H
#define DUSK_TRAIN_PRECISION_H

/* Which precision a run computes in, and whether program and CPUs are made for it. All
 * local. */

#include "src/base/dtype.h"
#include "src/config/run.h"
#include "src/gemm/gemm.h"

/* What this program multiplies faster on this CPU. */
enum dtype precision_here(void);

const char *precision_name(enum dtype t); /* "fp32", "bf16", as in a run file */
enum dtype precision_of(const struct run *r);

/* ERR_USAGE for bf16 without fast products, unless train.allow_slow_bf16. The first
 * knows the program, not the CPUs: for dusk check; the second knows the job's lowest
 * CPU. */
int precision_check_program(const struct run *r, struct err *err);
int precision_check(const struct run *r, const struct gemm *g, struct err *err);

/* What computes the products of this precision, for the log and the checkpoint. */
const char *precision_gemm(enum dtype t, const struct gemm *g);

#endif
