/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_CKPT_H
#define DUSK_IO_CKPT_H

/* The dusk checkpoint: one logical set of arrays in a sealed HDF5 file (io/sealed.h),
 * independent of the layout that wrote it.
 *
 *   /model/embed_tokens [V,D], /model/layers/q_proj [L,out,in], ..., /model/norm [D],
 * /model/lm_head /optimizer/exp_avg/..., /optimizer/exp_avg_sq/...   same paths and
 * shapes, F32 /tokenizer/FILE    the bytes of tokenizer.model, tokenizer.json, ... (U8)
 *   attributes of /model, /state, /source
 *
 * PATH may be a .h5 file or a training checkpoint's folder, which holds state.h5. A
 * link file's arrays are virtual datasets; the loader follows the recorded map itself
 * and checks that the source is the file that was linked (its seal's identity). */

#include <stdbool.h>
#include <stdint.h>

#include "io/added_tokens.h"
#include "io/sealed.h"
#include "src/base/dtype.h"
#include "src/param/layer_map.h"
#include "src/param/table.h"

enum ckpt_set { CKPT_MODEL, CKPT_EXP_AVG, CKPT_EXP_AVG_SQ, CKPT_SETS };

struct ckpt_pair {
    char *key, *value;
}; /* owned by the info that holds them */

struct ckpt_file {
    char *name;
    unsigned char *data;
    size_t bytes;
}; /* a tokenizer file */

/* What a checkpoint says of itself. All owned; ckpt_info_fini frees. Read back, pairs
 * and files come sorted by name. */
struct ckpt_info {
    struct model_shape shape;
    enum dtype dtype[ROLES]; /* as stored, of the stack */
    enum dtype
        *layer_dtype[ROLES]; /* [layers] as in the HF source, or NULL: all as stored */
    bool optimizer;          /* moments present */
    char *layers;            /* "0:24,8:32" if made by a remap, else NULL */
    char *source;            /* what it was made from, one line, or NULL */
    int source_layers;       /* that `layers` counts in; 0: not known */
    char *seam, *zero, *init_noise,
        *init_noise_seed; /* choices of up-scaling ("mean:2", "o_proj,down_proj",
                           * "0.01", "3"), or NULL; io/upscale_plan.h */
    int64_t step, samples,
        tokens;     /* training: updates done, samples and tokens seen; else 0 */
    int64_t adam_t; /* AdamW updates done: step less the skipped ones */
    int64_t skipped, skipped_in_a_row; /* updates dropped, in all and up to here */
    int pairs; /* free key = value strings of the run: seed, seq_len, ... */
    struct ckpt_pair *pair;
    int files;
    struct ckpt_file *file; /* tokenizer and generation files */
};

void ckpt_info_fini(struct ckpt_info *info);
int ckpt_info_copy(struct ckpt_info *to, const struct ckpt_info *from, struct err *err);

/* Forgets source, layers and all that says how they were made. */
void ckpt_info_clear_source(struct ckpt_info *info);
const char *ckpt_info_value(const struct ckpt_info *info,
                            const char *key); /* NULL: none */

/* NULL removes the key. */
int ckpt_info_set(struct ckpt_info *info, const char *key, const char *value,
                  struct err *err);
const struct ckpt_file *ckpt_info_file(const struct ckpt_info *info, const char *name);

/* What the ids mean (tokenizer_identity) by tokenizer.model and the added tokens, in
 * hex; size >= TOKENIZER_HASH_ROOM. "" if there is no tokenizer.model. -1 with err set
 * (ERR_INPUT): added_tokens_read. */
int ckpt_tokenizer_hash(const struct ckpt_info *info, char *hex, size_t size,
                        struct err *err);

struct ckpt;

/* Opens for reading. Owned; NULL on every rank with err set. Collective over c. */
struct ckpt *ckpt_open(struct comm *c, const char *path, struct err *err);
void ckpt_close(struct ckpt *k); /* NULL is fine. Local. */
const struct ckpt_info *ckpt_info(const struct ckpt *k);
uint64_t ckpt_identity(const struct ckpt *k);

const char *ckpt_path(const struct ckpt *k);      /* of the .h5 file; borrowed */
const char *ckpt_link_path(const struct ckpt *k); /* a link's source; NULL: no link */

/* The path without the folders above, so that what it goes into has the same bytes
 * anywhere; "step-00000100/state.h5" keeps its own folder. Borrowed. Local. */
const char *ckpt_short_name(const struct ckpt *k);

/* The sealed file in which the weights lie: a link's source, else the checkpoint's own,
 * and the layer of it that holds `layer`. Borrowed. Local. */
const struct sealed *ckpt_sealed(const struct ckpt *k);
int ckpt_source_layer(const struct ckpt *k, enum tensor_role role, int layer);

/* Elements [begin, begin + n) of a tensor of the file (its own layers; apply a
 * layer_map before calling), widened to fp32, checksums verified (ERR_INPUT). begin a
 * multiple of 32,768; the range ends on one or at the tensor's end. Local. */
int ckpt_read(struct ckpt *k, enum ckpt_set set, enum tensor_role role, int layer,
              int64_t begin, int64_t n, float *dst, struct err *err);

/* The same without conversion: dst gets n elements of the stored dtype. Local. */
int ckpt_read_raw(struct ckpt *k, enum ckpt_set set, enum tensor_role role, int layer,
                  int64_t begin, int64_t n, void *dst, struct err *err);

struct ckpt_writer;

/* Starts a checkpoint at PATH: a file, or with `folder` the folder PATH with state.h5
 * in it, which appears by one rename at commit. info (on rank 0) is copied. Owned; NULL
 * on every rank with err set. Collective over c. */
struct ckpt_writer *ckpt_create(struct comm *c, const char *path, bool folder,
                                bool replace, const struct ckpt_info *info,
                                struct err *err);

/* As ckpt_read, writing: src in the stored dtype (raw) or in fp32 (converted); NULL:
 * zeros, as cheap as none. Local. */
int ckpt_write(struct ckpt_writer *w, enum ckpt_set set, enum tensor_role role,
               int layer, int64_t begin, int64_t n, const float *src, struct err *err);
int ckpt_write_raw(struct ckpt_writer *w, enum ckpt_set set, enum tensor_role role,
                   int layer, int64_t begin, int64_t n, const void *src,
                   struct err *err);
int ckpt_commit(struct ckpt_writer *w, struct err *err); /* frees w. Collective. */
void ckpt_abort(struct ckpt_writer *w);                  /* frees w. Collective. */

/* Writes a checkpoint at PATH whose arrays are virtual datasets over those of `source`,
 * or over its own source if it is a link: layer i is layer map->source[i]. info, of
 * the new model and without optimizer, matters on rank 0. Nothing is left behind on
 * failure. Collective over c. */
int ckpt_link(struct comm *c, const char *path, bool replace,
              const struct ckpt_info *info, const struct ckpt *source,
              const struct layer_map *map, struct err *err);

#endif
