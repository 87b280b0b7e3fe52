/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_PARAM_FREEZE_H
#define DUSK_PARAM_FREEZE_H

/* Which tensors a run leaves as they are (train.freeze), as block expansion does with
 * the layers that it did not add (LLaMA Pro, arXiv 2401.02415). A pattern is one of
 *
 *     model.layers.3.*          a Hugging Face name by fnmatch(3): * ? [abc]; * passes
 *                               over points too
 *     layers.0-23, layers.5     all tensors of these layers, both ends included
 *
 * A tensor that any pattern matches is frozen: it has no gradient, moments, master rest
 * or decay, and no part in the norm. In a tied model embed_tokens is the head too. All
 * pure, local. */

#include <stdbool.h>
#include <stdint.h>

#include "src/base/err.h"
#include "src/param/table.h"

/* {0}: nothing is frozen. */
struct freeze {
    int patterns;
    char *const *pattern; /* [patterns], borrowed */
};

bool freeze_holds(const struct freeze *f, const struct tensor *t);

/* 0, or -1 with err set (ERR_USAGE) if a pattern matches no tensor of the model, names
 * layers that it does not have, or nothing is left to train. */
int freeze_check(const struct freeze *f, const struct model_shape *s, struct err *err);

/* How much of the model is frozen. */
struct freeze_count {
    int tensors;
    int64_t elements;
};
struct freeze_count freeze_count(const struct freeze *f, const struct model_shape *s);

/* Is the embedding, or any tensor of the layers before `layer`, trained? Then the
 * gradient by the input of `layer` is needed. */
bool freeze_trains_before(const struct freeze *f, const struct model_shape *s,
                          int layer);

#endif
