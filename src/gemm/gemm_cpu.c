/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/gemm.h"

enum gemm_level gemm_level_here(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return GEMM_LEVEL_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return GEMM_LEVEL_AVX2;
#endif
    return GEMM_LEVEL_GENERIC;
}
