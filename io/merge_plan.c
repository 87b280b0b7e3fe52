/* SPDX-License-Identifier: Apache-2.0 */
#include "io/merge_plan.h"

#include "src/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sums below this are rounding: mergekit's limit. */
static const float least_total = 1e-8F;

static int check_weights(const struct merge_options *o, struct err *err)
{
    if (o->raw && !o->weight)
        return err_set(err, ERR_USAGE,
                       "--no-normalize: expected the weights that it is about: "
                       "--weight W,W,...");
    if (!o->weight)
        return 0;
    if (o->weights != o->models)
        return err_set(err, ERR_USAGE,
                       "--weight: expected %d numbers, one for each model, found %d",
                       o->models, o->weights);
    float total = 0;
    bool zero = true;
    for (int i = 0; i < o->weights; i++) {
        float w = (float)o->weight[i];
        if (!isfinite(w))
            return err_set(err, ERR_USAGE,
                           "--weight: expected numbers that fp32 holds, found %g",
                           o->weight[i]);
        total += w;
        zero = zero && !(w < 0 || w > 0);
    }
    if (zero)
        return err_set(err, ERR_USAGE,
                       "--weight: expected one that is not 0: a sum of nothing");
    if (!o->raw && !(isfinite(total) && total >= least_total))
        return err_set(err, ERR_USAGE,
                       "--weight: expected a positive sum, by which the weights are "
                       "divided, found %g (--no-normalize takes them as they are)",
                       (double)total);
    return 0;
}

int merge_check_options(const struct merge_options *o, struct err *err)
{
    if (o->models < 2 || o->models > MERGE_MODELS_MAX)
        return err_set(err, ERR_USAGE, "expected 2 to %d models, found %d",
                       MERGE_MODELS_MAX, o->models);
    if (o->method == MERGE_LINEAR)
        return check_weights(o, err);
    if (o->models != 2)
        return err_set(err, ERR_USAGE,
                       "--method slerp: expected 2 models, found %d (--method linear "
                       "takes more)",
                       o->models);
    if (!(o->t >= 0 && o->t <= 1))
        return err_set(err, ERR_USAGE, "--t: expected a number from 0 to 1, found %g",
                       o->t);
    return 0;
}

/* Is the file the same in both, or in neither? */
static bool same_file(const struct ckpt_info *a, const struct ckpt_info *b,
                      const char *name)
{
    const struct ckpt_file *x = ckpt_info_file(a, name), *y = ckpt_info_file(b, name);
    if (!x || !y)
        return x == y;
    return x->bytes == y->bytes && memcmp(x->data, y->data, x->bytes) == 0;
}

/* What the models' rows of embed_tokens mean: by tokenizer.model, and where that is in
 * none of them by tokenizer.json, which tools write in more than one way. */
static int check_tokenizer(const struct ckpt *a, const struct ckpt *b, struct err *err)
{
    const struct ckpt_info *x = ckpt_info(a), *y = ckpt_info(b);
    char hash_x[TOKENIZER_HASH_ROOM], hash_y[TOKENIZER_HASH_ROOM];
    if (ckpt_tokenizer_hash(x, hash_x, sizeof hash_x, err))
        return err_prefix(err, "%s", ckpt_path(a));
    if (ckpt_tokenizer_hash(y, hash_y, sizeof hash_y, err))
        return err_prefix(err, "%s", ckpt_path(b));
    if (strcmp(hash_x, hash_y) != 0)
        return err_set(err, ERR_INPUT,
                       "%s and %s: cannot be merged: tokenizer.model is %s and %s "
                       "(XXH3): expected one tokenizer",
                       ckpt_path(a), ckpt_path(b), *hash_x ? hash_x : "missing",
                       *hash_y ? hash_y : "missing");
    if (!*hash_x && !same_file(x, y, "tokenizer.json"))
        return err_set(err, ERR_INPUT,
                       "%s and %s: cannot be merged: tokenizer.json differs: expected "
                       "one tokenizer",
                       ckpt_path(a), ckpt_path(b));
    return 0;
}

int merge_check_models(struct ckpt *const *model, int models, struct err *err)
{
    for (int i = 1; i < models; i++) {
        char text[128];
        if (shape_difference_text(&ckpt_info(model[0])->shape,
                                  &ckpt_info(model[i])->shape, text, sizeof text))
            return err_set(err, ERR_INPUT,
                           "%s and %s: cannot be merged: %s: expected one shape",
                           ckpt_path(model[0]), ckpt_path(model[i]), text);
        if (check_tokenizer(model[0], model[i], err) < 0)
            return -1;
    }
    return 0;
}

/* "linear merge of a.h5 (weight 0.3, seal 0123...), b.h5 (...)"; owned. */
static char *describe(struct ckpt *const *model, const struct merge_options *o,
                      struct err *err)
{
    bool slerp = o->method == MERGE_SLERP;
    char *text = slerp ? mem_printf(err, "slerp merge, t %.9g, of ", o->t)
                       : mem_printf(err, "linear merge%s of ",
                                    o->raw ? ", weights as they are," : "");
    for (int i = 0; text && i < o->models; i++) {
        char weight[48] = "";
        if (!slerp)
            snprintf(weight, sizeof weight, "weight %.9g, ",
                     o->weight ? o->weight[i] : 1);
        char *longer = mem_printf(err, "%s%s%s (%sseal %016llx)", text, i ? ", " : "",
                                  ckpt_short_name(model[i]), weight,
                                  (unsigned long long)ckpt_identity(model[i]));
        free(text);
        text = longer;
    }
    return text;
}

/* The result is a new model: no optimizer, no steps, no keys of a run. */
int merge_make_info(struct ckpt_info *info, struct ckpt *const *model,
                    const struct merge_options *o, struct err *err)
{
    const struct ckpt_info *from = ckpt_info(model[0]);
    struct ckpt_info seen = {
        .shape = from->shape, .files = from->files, .file = from->file};
    for (int r = 0; r < ROLES; r++) {
        seen.dtype[r] = o->keep ? from->dtype[r] : o->dtype;
        seen.layer_dtype[r] = o->keep ? from->layer_dtype[r] : NULL;
    }
    if (ckpt_info_copy(info, &seen, err) < 0)
        return -1;
    info->source = describe(model, o, err);
    return info->source ? 0 : -1;
}
