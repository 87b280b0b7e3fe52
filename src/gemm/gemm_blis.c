/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/gemm_backend.h"

#include <blis.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* The kernel family of each level, by BLIS's own numbers, where this build of BLIS has
 * it; -1 leaves the choice to BLIS. Its AVX2 families give the same speed on Intel and
 * AMD, so one of them serves both. */
static int family_of(enum gemm_level level)
{
#if defined(BLIS_CONFIG_SKX)
    if (level >= GEMM_LEVEL_AVX512)
        return BLIS_ARCH_SKX;
#endif
#if defined(BLIS_CONFIG_HASWELL)
    if (level >= GEMM_LEVEL_AVX2)
        return BLIS_ARCH_HASWELL;
#endif
#if defined(__x86_64__) && defined(BLIS_CONFIG_GENERIC)
    if (level == GEMM_LEVEL_GENERIC)
        return BLIS_ARCH_GENERIC;
#endif
    (void)level;
    return -1;
}

/* BLIS reads a name as 0 and aborts on a number that it does not know. */
static int check_user_family(const char *text, struct err *err)
{
    char *end;
    errno = 0;
    long id = strtol(text, &end, 10);
    if (end == text || *end || errno || id < 0 || id >= BLIS_NUM_ARCHS)
        return err_set(err, ERR_USAGE,
                       "BLIS_ARCH_TYPE=%s: expected a number from 0 to %d (%d is skx, "
                       "%d is haswell); unset it to let the program choose",
                       text, BLIS_NUM_ARCHS - 1, BLIS_ARCH_SKX, BLIS_ARCH_HASWELL);
    return 0;
}

int gemm_blis_start(enum gemm_level level, char *name, size_t size, struct err *err)
{
    static int started_for = -1; /* BLIS keeps its first choice for ever */

    if (started_for >= 0 && started_for != (int)level)
        return err_set(
            err, ERR_OTHER,
            "gemm: BLIS already runs at CPU level %d and cannot change to %d "
            "in the same process",
            started_for, (int)level);
    if (started_for < 0) {
        const char *user = getenv("BLIS_ARCH_TYPE");
        if (user && check_user_family(user, err))
            return -1;
        int family = family_of(level);
        if (!user && family >= 0) {
            char number[16];
            snprintf(number, sizeof number, "%d", family);
            if (setenv("BLIS_ARCH_TYPE", number, 1))
                return err_set_errno(err, 0, "gemm: setting BLIS_ARCH_TYPE");
        }
        bli_init();
        started_for = (int)level;
    }
    snprintf(name, size, "blis %s %s", bli_info_get_version_str(),
             bli_arch_string(bli_arch_query_id()));
    return 0;
}

/* BLIS's path for small matrices sums in an order that depends on the tile's place and
 * on the storage, so it is off; without it each element is one chain of fused
 * multiply-adds along k, in blocks of k that depend on the family only. */
void gemm_blis_tile(int64_t m, int64_t n, int64_t k, struct gemm_matrix a,
                    struct gemm_matrix b, float beta, float *c, int64_t ldc)
{
    rntm_t run = BLIS_RNTM_INITIALIZER;
    bli_rntm_set_num_threads(1, &run);
    bli_rntm_disable_l3_sup(&run);
    float one = 1.0f;
    union {
        const float *in;
        float *blis;
    } pa = {a.p}, pb = {b.p}; /* BLIS's prototypes lack const */
    bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, m, n, k, &one, pa.blis, a.row,
                 a.col, pb.blis, b.row, b.col, &beta, c, ldc, 1, NULL, &run);
}
