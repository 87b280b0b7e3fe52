/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_CKPT_PARTS_H
#define DUSK_IO_CKPT_PARTS_H

/* What the sources of io/ckpt.h share; nobody else includes it.
 *
 *   ckpt_info.c    what a checkpoint says of itself, in memory
 *   ckpt_attrs.c   the same as attributes of the file, and back
 *   ckpt_plan.c    the arrays of a checkpoint and their names
 *   ckpt_write.c, ckpt_link.c, ckpt_read.c   the public functions */

#include "io/ckpt.h"

enum { CKPT_VERSION = 1, CKPT_CONVERT_ELEMENTS = 1 << 19 };

/* "/model/layers/q_proj", "/optimizer/exp_avg/norm"; size >= 96. */
void ckpt_array_path(enum ckpt_set set, enum tensor_role role, char *path, size_t size);
enum sealed_type ckpt_sealed_type(enum dtype t);

/* Is this the name of a tokenizer's file? One part of a path, of 1 to 64 bytes, that
 * does not start with a dot: export makes a file of this name. */
bool ckpt_file_name(const char *name);

/* The arrays of a checkpoint, in the order of the file's table: index[set][role] is one
 * of them, or -1; tokenizer files follow from `files` on. */
struct ckpt_plan {
    int arrays, files;
    int index[CKPT_SETS][ROLES];
    struct sealed_array *array; /* owned */
};

/* 0, or -1 with err set. ckpt_plan_fini frees. Local. */
int ckpt_plan_init(struct ckpt_plan *p, const struct ckpt_info *info, struct err *err);
void ckpt_plan_fini(struct ckpt_plan *p);

/* Attributes and the memory that they borrow. */
struct ckpt_attrs {
    int n, room, texts;
    struct sealed_attr *attr;
    char **text; /* owned strings that attributes point at */
};

/* link_identity: of a link's source; 0: no link. Borrows from info. Local. */
int ckpt_attrs_init(struct ckpt_attrs *a, const struct ckpt_info *info,
                    uint64_t link_identity, struct err *err);
void ckpt_attrs_fini(struct ckpt_attrs *a);

/* Everything of a checkpoint's info but the files' bytes. ERR_INPUT names the file and
 * the attribute. ckpt_info_fini frees, also after a failure. Local. */
int ckpt_attrs_read(const struct sealed *s, const char *path, struct ckpt_info *info,
                    uint64_t *link_identity, struct err *err);

#endif
