/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/precision.h"

#include "src/gemm/bf16.h"

enum dtype precision_here(void)
{
    return gemm_bf16_built() && gemm_bf16_native() ? DTYPE_BF16 : DTYPE_F32;
}

const char *precision_name(enum dtype t)
{
    return t == DTYPE_BF16 ? "bf16" : "fp32";
}

enum dtype precision_of(const struct run *r)
{
    return r->train.precision == RUN_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

int precision_check_program(const struct run *r, struct err *err)
{
    if (precision_of(r) != DTYPE_BF16 || r->train.allow_slow_bf16 || gemm_bf16_built())
        return 0;
    return err_set(
        err, ERR_USAGE,
        "train.precision is bf16, but this dusk was built without fast "
        "products for it (oneDNN, or a compiler that knows AVX512_BF16); use "
        "fp32, or set train.allow_slow_bf16");
}

int precision_check(const struct run *r, const struct gemm *g, struct err *err)
{
    if (precision_check_program(r, err))
        return -1;
    if (precision_of(r) != DTYPE_BF16 || r->train.allow_slow_bf16 || gemm_bf16_fast(g))
        return 0;
    return err_set(
        err, ERR_USAGE,
        "train.precision is bf16, but a CPU of this job does not multiply it "
        "(AVX512_BF16 or AMX; products by %s), or train.products or the checkpoint "
        "holds them below it, so that fp32 is faster; use fp32, or set "
        "train.allow_slow_bf16",
        gemm_bf16_name(g));
}

const char *precision_gemm(enum dtype t, const struct gemm *g)
{
    return t == DTYPE_BF16 ? gemm_bf16_name(g) : gemm_name(g);
}
