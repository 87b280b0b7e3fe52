/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/check.h"
#include "src/gemm/bf16_backend.h"

int bf16_onednn_built(void)
{
    return 0;
}

struct bf16_onednn *bf16_onednn_create(enum gemm_level level, int threads, char *name,
                                       size_t size, struct err *err)
{
    (void)level, (void)threads, (void)name, (void)size;
    err_set(err, ERR_USAGE,
            "this program was built without oneDNN: install libdnnl-dev (Debian) or "
            "onednn (Spack) and configure again");
    return NULL;
}

/* Nothing was created: the others are never reached. */
void bf16_onednn_destroy(struct bf16_onednn *o)
{
    (void)o;
}

int64_t bf16_onednn_bytes(const struct bf16_onednn *o)
{
    (void)o;
    return 0;
}

int64_t bf16_onednn_primitives(const struct bf16_onednn *o)
{
    (void)o;
    return 0;
}

int64_t bf16_onednn_packed_bytes(struct bf16_onednn *o, int64_t k, int64_t n,
                                 struct err *err)
{
    (void)o, (void)k, (void)n;
    return err_set(err, ERR_OTHER, "no oneDNN");
}

int bf16_onednn_fill_prepare(struct bf16_onednn *o, int64_t k, int64_t n,
                             struct bf16_matrix b, struct err *err)
{
    (void)o, (void)k, (void)n, (void)b;
    return err_set(err, ERR_OTHER, "no oneDNN");
}

void bf16_onednn_fill(struct bf16_onednn *o, int64_t k, int64_t n, struct bf16_matrix b,
                      uint16_t *to)
{
    (void)o, (void)k, (void)n, (void)b, (void)to;
    CHECK(0, "no oneDNN");
}

int bf16_onednn_prepare(struct bf16_onednn *o, int64_t m, int64_t n, int64_t k,
                        struct bf16_matrix a, struct bf16_matrix b, int packed,
                        struct bf16_target t, struct err *err)
{
    (void)o, (void)m, (void)n, (void)k, (void)a, (void)b, (void)packed, (void)t;
    return err_set(err, ERR_OTHER, "no oneDNN");
}

void bf16_onednn_all(struct bf16_onednn *o, int64_t m, int64_t n, int64_t k,
                     struct bf16_matrix a, struct bf16_matrix b, const uint16_t *packed,
                     struct bf16_target t)
{
    (void)o, (void)m, (void)n, (void)k, (void)a, (void)b, (void)packed, (void)t;
    CHECK(0, "no oneDNN");
}
