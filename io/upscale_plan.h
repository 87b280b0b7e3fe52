/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_UPSCALE_PLAN_H
#define DUSK_IO_UPSCALE_PLAN_H

/* What becomes of each layer of an up-scaled model: which source layer it comes from,
 * and what upscale's choices make of it. Pure, local.
 *
 * A joint is where the result does not go on with the next layer of the source. Over a
 * joint from source layer a to b, seam mean:K lets both runs go on for K layers, and
 * averages them where they cross (K = 2):
 *
 *     left run goes on      a-1      a     | a+1     a+2
 *     right run comes from  b-2      b-1   | b       b+1
 *     result                mean     mean  | mean    mean
 *
 * A layer whose counterpart the source does not have stays as it is. The number of
 * layers does not change.
 *
 * An inserted copy is a layer whose source layer came before in the result: the second
 * layer 3 of 0:4,3:8. Where o_proj and down_proj of all of them are zeros, each is the
 * identity (h + 0), and the model computes what its source does if it holds that in
 * order: block expansion (LLaMA Pro, arXiv 2401.02415). */

#include <stdbool.h>
#include <stdint.h>

#include "io/ckpt.h"
#include "src/base/err.h"
#include "src/param/layer_map.h"
#include "src/param/table.h"

struct upscale_choices {
    int seam;          /* K of mean:K; 0: none */
    bool zero[ROLES];  /* matrices of inserted copies that are zeros */
    double init_noise; /* of matrices of inserted copies, by their rms; 0: none */
    uint64_t seed;     /* of the noise */
};

struct upscale_layer {
    int source;    /* layer of the source */
    int mean_with; /* its counterpart over a joint; -1: not averaged */
    bool inserted; /* an inserted copy */
};

struct upscale_plan {
    struct upscale_choices choices;
    int layers, source_layers;
    struct upscale_layer *layer; /* [layers], owned */
};

/* "mean:K" and "o_proj,down_proj" of a command line; NULL: none. -1 with err set
 * (ERR_USAGE). */
int upscale_choices_read(struct upscale_choices *c, const char *seam, const char *zero,
                         struct err *err);

bool upscale_choices_any(const struct upscale_choices *c);

/* The plan of a map. -1 with err set and nothing to free; ERR_USAGE if a choice finds
 * nothing to do, or a layer would be averaged over two joints. */
int upscale_plan_init(struct upscale_plan *p, const struct layer_map *map,
                      const struct upscale_choices *c, struct err *err);
void upscale_plan_fini(struct upscale_plan *p);

/* Writes the choices to the description of the result, and from there makes the plan
 * again. Its info->layers must not be NULL; ERR_INPUT: a description that cannot be. */
int upscale_plan_record(const struct upscale_plan *p, struct ckpt_info *info,
                        struct err *err);
int upscale_plan_of(struct upscale_plan *p, const struct ckpt_info *info,
                    struct err *err);

/* Does a joint lie before layer l of the result? */
bool upscale_joint(const struct upscale_plan *p, int l);

/* Of a tensor of layer l of the result: is it zeros, does it get noise, is it anything
 * but a copy? A zero matrix gets no noise. */
bool upscale_zeroed(const struct upscale_plan *p, int l, enum tensor_role r);
bool upscale_noisy(const struct upscale_plan *p, int l, enum tensor_role r);
bool upscale_altered(const struct upscale_plan *p, int l, enum tensor_role r);

/* Does the result compute what the source does, but for the sign of zeros? (As far as
 * the plan can tell: false if not sure.) */
bool upscale_keeps_function(const struct upscale_plan *p);

#endif
