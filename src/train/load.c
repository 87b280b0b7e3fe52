/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/precision.h"
#include "src/train/setup.h"
#include "src/train/weights.h"

const char *trainer_products(const struct trainer *t)
{
    return precision_gemm(precision_of(&t->run), t->gemm);
}

int trainer_load(struct trainer *t, struct err *err)
{
    struct start *s = &t->start;
    if (!s->ckpt) {
        weights_random(t->engine, t->run.run.seed, t->run.model.init_std);
        return 0;
    }
    bool moments = s->resumed || t->run.model.optimizer == RUN_MAP;
    while (weights_load(t->engine, s->ckpt, s->path, &s->map, moments, err)) {
        if (!s->resumed || err->code != ERR_INPUT || start_next(s, err))
            return -1;
        const char *field = shape_difference(&ckpt_info(s->ckpt)->shape, &s->shape);
        if (field)
            return err_set(err, ERR_INPUT, "%s: has another %s than the run", s->path,
                           field);
        if (start_check(s, data_identity(t->data), trainer_products(t), err))
            return -1;
    }
    const struct ckpt_info *info = ckpt_info(s->ckpt);
    if (moments)
        t->at.adam_t = info->adam_t;
    if (s->resumed) {
        t->at = (struct position){.step = info->step,
                                  .samples = info->samples,
                                  .tokens = info->tokens,
                                  .adam_t = info->adam_t,
                                  .skipped = info->skipped,
                                  .skipped_in_a_row = info->skipped_in_a_row};
        t->saving.saved_step = info->step;
    }
    return 0;
}
