/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_MERGE_PLAN_H
#define DUSK_IO_MERGE_PLAN_H

/* What io/merge.c settles before it reads a weight: can these options be, do these
 * models fit, what will the result say of itself. All local, the same on every rank. */

#include "io/ckpt.h"
#include "io/merge.h"

/* ERR_USAGE names the option and what was expected. */
int merge_check_options(const struct merge_options *o, struct err *err);

/* Have all the first one's shape and tokenizer? ERR_INPUT names both files and the
 * first difference. */
int merge_check_models(struct ckpt *const *model, int models, struct err *err);

/* Of the result; ckpt_info_fini frees, also after a failure. */
int merge_make_info(struct ckpt_info *info, struct ckpt *const *model,
                    const struct merge_options *o, struct err *err);

#endif
