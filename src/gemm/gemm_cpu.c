/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/bf16.h"
#include "src/gemm/gemm.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if defined(__x86_64__)
/* Of a CPU with AVX-512. By CPUID itself: compilers learnt these names late. Whether
 * the system lends AMX's registers to a program is oneDNN's part: it asks for them. */
static enum gemm_level bf16_level(void)
{
    enum { LEAF = 7, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AVX512_BF16 = 1 << 5 };
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(LEAF, 0, &a, &b, &c, &d))
        return GEMM_LEVEL_AVX512;
    unsigned subleaves = a, amx = d & (AMX_BF16 | AMX_TILE);
    if (subleaves < 1 || !__get_cpuid_count(LEAF, 1, &a, &b, &c, &d) ||
        !(a & AVX512_BF16))
        return GEMM_LEVEL_AVX512;
    return amx == (AMX_BF16 | AMX_TILE) ? GEMM_LEVEL_AMX_BF16 : GEMM_LEVEL_AVX512_BF16;
}
#endif

enum gemm_level gemm_level_here(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return bf16_level();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return GEMM_LEVEL_AVX2;
#endif
    return GEMM_LEVEL_GENERIC;
}

static const char *const names[] = {[GEMM_LEVEL_GENERIC] = "generic",
                                    [GEMM_LEVEL_AVX2] = "avx2",
                                    [GEMM_LEVEL_AVX512] = "avx512",
                                    [GEMM_LEVEL_AVX512_BF16] = "avx512_bf16",
                                    [GEMM_LEVEL_AMX_BF16] = "amx_bf16"};

const char *gemm_level_name(enum gemm_level level)
{
    return names[level];
}

int gemm_level_named(const char *name)
{
    for (int i = 0; i <= GEMM_LEVEL_ANY; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

int gemm_bf16_native(void)
{
    return gemm_level_here() >= GEMM_LEVEL_AVX512_BF16;
}
