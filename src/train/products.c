/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/products.h"

#include "src/gemm/bf16.h"
#include "src/train/engine.h"

#include <string.h>

static const char level_key[] = "products", packing_key[] = "packing";

static const char *const packings[] = {[STAGE_PACK_BOTH] = "both",
                                       [STAGE_PACK_FORWARD] = "forward",
                                       [STAGE_PACK_NONE] = "none"};

static const char *resumed_value(const struct start *s, const char *key)
{
    return s->resumed ? ckpt_info_value(ckpt_info(s->ckpt), key) : NULL;
}

struct gemm *products_create(struct comm *world, const struct log *log, struct run *run,
                             const struct start *s, struct err *err)
{
    int64_t here = gemm_level_here();
    comm_min_i64(world, &here, 1);
    bool asked = run->train.products != RUN_PRODUCTS_AUTO;
    const char *was = resumed_value(s, level_key);
    int wanted = was ? gemm_level_named(was) : -1;
    if (asked)
        wanted = (int)run->train.products - 1;
    if (asked && wanted > here) {
        err_set(err, ERR_USAGE,
                "train.products is %s, but the lowest CPU of this job has %s",
                gemm_level_name((enum gemm_level)wanted),
                gemm_level_name((enum gemm_level)here));
        return NULL;
    }
    if (wanted < 0)
        wanted = GEMM_LEVEL_ANY;
    struct gemm *g = engine_gemm(world, (enum gemm_level)wanted, err);
    if (!g)
        return NULL;
    if (!asked && gemm_level(g) < here)
        log_line(log,
                 "products stay at CPU level %s, as in the checkpoint; this job has "
                 "%s: train.products: %s would use it, with other last bits",
                 was, gemm_level_name((enum gemm_level)here),
                 gemm_level_name((enum gemm_level)here));
    run->train.products = (enum run_products)(gemm_level(g) + 1);
    return g;
}

enum stage_packing products_packing(const struct start *s, const struct gemm *g)
{
    const char *was =
        gemm_bf16_packing_matters(g) ? resumed_value(s, packing_key) : NULL;
    for (int p = STAGE_PACK_BOTH; was && p <= STAGE_PACK_NONE; p++)
        if (strcmp(packings[p], was) == 0)
            return (enum stage_packing)p;
    return STAGE_PACK_BOTH;
}

int products_record(struct start *s, const struct gemm *g, enum stage_packing packing,
                    struct err *err)
{
    const char *was =
        gemm_bf16_packing_matters(g) ? resumed_value(s, packing_key) : NULL;
    if (was && strcmp(was, packings[packing]) != 0)
        log_warning(
            s->log,
            "packed copies were \"%s\", now memory holds \"%s\": bits may differ "
            "from those of an uninterrupted run",
            was, packings[packing]);
    return ckpt_info_set(&s->info, level_key, gemm_level_name(gemm_level(g)), err) ||
                   ckpt_info_set(&s->info, packing_key, packings[packing], err)
               ? -1
               : 0;
}
