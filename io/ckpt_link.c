/* SPDX-License-Identifier: Apache-2.0 */
#include "io/ckpt_parts.h"

#include "src/base/mem.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where `to` lies as seen from the folder that `file` will be in: both absolute and
 * real, "../base/base.h5". Owned. */
static char *relative(const char *folder, const char *to, struct err *err)
{
    size_t common = 0; /* up to and with the last '/' of both that is the same */
    for (size_t i = 0; folder[i] == to[i] && to[i]; i++)
        if (to[i] == '/')
            common = i + 1;
    size_t n = strlen(folder);
    if (strncmp(folder, to, n) == 0 && to[n] == '/')
        common = n + 1;
    size_t up = common < n;
    for (size_t i = common; i < n; i++)
        up += folder[i] == '/';
    char *path = calloc(3 * up + strlen(to) + 1, 1);
    if (!path) {
        err_set(err, ERR_OTHER, "no memory for a path");
        return NULL;
    }
    for (size_t i = 0; i < up; i++)
        strcat(path, "../");
    strcat(path, to + common);
    return path;
}

/* Path of a link's source as it is stored. Owned; NULL with err set. */
static char *stored_path(const char *output, const char *source, struct err *err)
{
    char *copy = mem_printf(err, "%s", output);
    if (!copy)
        return NULL;
    char *folder = realpath(dirname(copy), NULL), *real = realpath(source, NULL);
    char *path = NULL;
    char *old = realpath(output, NULL);
    if (old && real && strcmp(old, real) == 0)
        err_set(err, ERR_USAGE, "%s: is the file that the link would point to", output);
    else if (!folder)
        err_set_errno(err, 0, "%s: cannot create", output);
    else if (!real)
        err_set_errno(err, 1, "%s: cannot find its place", source);
    else
        path = relative(strcmp(folder, "/") == 0 ? "" : folder, real, err);
    free(copy);
    free(old);
    free(folder);
    free(real);
    return path;
}

/* Makes all arrays virtual; `lists` [ROLES] of layers are owned by the caller. */
static int link_arrays(struct ckpt_plan *plan, const struct ckpt *source,
                       const struct layer_map *map, const char *stored, int **lists,
                       struct err *err)
{
    for (int i = 0; i < plan->arrays; i++)
        plan->array[i].source_path = stored;
    for (int r = 0; r < ROLES; r++) {
        int at = plan->index[CKPT_MODEL][r];
        if (at < 0 || !role_per_layer((enum tensor_role)r))
            continue;
        struct sealed_array *a = &plan->array[at];
        lists[r] = calloc((size_t)map->layers, sizeof *lists[r]);
        if (!lists[r])
            return err_set(err, ERR_OTHER, "no memory for %d layers", map->layers);
        for (int l = 0; l < map->layers; l++)
            lists[r][l] =
                ckpt_source_layer(source, (enum tensor_role)r, map->source[l]);
        a->source_layer = lists[r];
        const struct sealed *s = ckpt_sealed(source);
        a->source_layers = (int)sealed_array_at(s, sealed_find(s, a->path))->dim[0];
    }
    return 0;
}

static int create_and_commit(struct comm *c, const char *path, bool replace,
                             const struct ckpt_plan *plan,
                             const struct ckpt_attrs *attrs, struct err *err)
{
    struct sealed_writer *w = sealed_create(c, path, replace, plan->array, plan->arrays,
                                            attrs->attr, attrs->n, err);
    return w ? sealed_commit(w, err) : -1;
}

int ckpt_link(struct comm *c, const char *path, bool replace,
              const struct ckpt_info *info, const struct ckpt *source,
              const struct layer_map *map, struct err *err)
{
    struct ckpt_plan plan = {0};
    struct ckpt_attrs attrs = {0};
    int *lists[ROLES] = {0};
    char *stored = NULL;
    int rc = 0;
    if (comm_root(c)) {
        const char *base = ckpt_link_path(source);
        stored = stored_path(path, base ? base : ckpt_path(source), err);
        rc = !stored || ckpt_plan_init(&plan, info, err) < 0 ||
                     ckpt_attrs_init(&attrs, info, sealed_identity(ckpt_sealed(source)),
                                     err) < 0 ||
                     link_arrays(&plan, source, map, stored, lists, err) < 0
                 ? -1
                 : 0;
    }
    rc = comm_agree(c, rc < 0, err);
    if (rc == 0)
        rc = create_and_commit(c, path, replace, &plan, &attrs, err);
    for (int r = 0; r < ROLES; r++)
        free(lists[r]);
    ckpt_attrs_fini(&attrs);
    ckpt_plan_fini(&plan);
    free(stored);
    return rc;
}
