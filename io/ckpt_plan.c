/* SPDX-License-Identifier: Apache-2.0 */
#include "io/ckpt_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ckpt_array_path(enum ckpt_set set, enum tensor_role role, char *path, size_t size)
{
    static const char *const group[CKPT_SETS] = {[CKPT_MODEL] = "/model",
                                                 [CKPT_EXP_AVG] = "/optimizer/exp_avg",
                                                 [CKPT_EXP_AVG_SQ] =
                                                     "/optimizer/exp_avg_sq"};
    snprintf(path, size, "%s/%s", group[set], role_path(role));
}

enum sealed_type ckpt_sealed_type(enum dtype t)
{
    return t == DTYPE_F32 ? SEALED_F32 : t == DTYPE_BF16 ? SEALED_BF16 : SEALED_F16;
}

static struct sealed_array tensor_array(const struct ckpt_info *info, enum ckpt_set set,
                                        enum tensor_role role)
{
    struct tensor t = table_find(&info->shape, role, role_per_layer(role) ? 0 : -1);
    struct sealed_array a = {
        .type = ckpt_sealed_type(set == CKPT_MODEL ? info->dtype[role] : DTYPE_F32),
        .stacked = role_per_layer(role)};
    ckpt_array_path(set, role, a.path, sizeof a.path);
    if (a.stacked)
        a.dim[a.dims++] = info->shape.layers;
    a.dim[a.dims++] = t.rows;
    if (t.ndim == 2)
        a.dim[a.dims++] = t.cols;
    return a;
}

/* Short enough for a path and that of its checksums. */
bool ckpt_file_name(const char *name)
{
    size_t n = strlen(name);
    return n >= 1 && n <= 64 && !strchr(name, '/') && name[0] != '.';
}

static int file_array(const struct ckpt_file *f, struct sealed_array *a,
                      struct err *err)
{
    if (!ckpt_file_name(f->name))
        return err_set(err, ERR_INPUT,
                       "tokenizer file %s: expected a plain name of 1 to 64 bytes",
                       f->name);
    *a =
        (struct sealed_array){.type = SEALED_U8, .dims = 1, .dim = {(int64_t)f->bytes}};
    snprintf(a->path, sizeof a->path, "/tokenizer/%s", f->name);
    return 0;
}

int ckpt_plan_init(struct ckpt_plan *p, const struct ckpt_info *info, struct err *err)
{
    *p = (struct ckpt_plan){0};
    p->array = calloc((size_t)(CKPT_SETS * ROLES + info->files), sizeof *p->array);
    if (!p->array)
        return err_set(err, ERR_OTHER, "no memory for a checkpoint's arrays");
    for (int set = 0; set < CKPT_SETS; set++)
        for (int r = 0; r < ROLES; r++) {
            bool there = role_present(&info->shape, (enum tensor_role)r) &&
                         (set == CKPT_MODEL || info->optimizer);
            p->index[set][r] = there ? p->arrays : -1;
            if (there)
                p->array[p->arrays++] =
                    tensor_array(info, (enum ckpt_set)set, (enum tensor_role)r);
        }
    p->files = p->arrays;
    for (int i = 0; i < info->files; i++)
        if (file_array(&info->file[i], &p->array[p->arrays++], err) < 0) {
            ckpt_plan_fini(p);
            return -1;
        }
    return 0;
}

void ckpt_plan_fini(struct ckpt_plan *p)
{
    free(p->array);
    p->array = NULL;
}
