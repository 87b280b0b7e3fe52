/* SPDX-License-Identifier: Apache-2.0 */
#include "io/ckpt_parts.h"

#include "src/base/check.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct ckpt {
    struct comm *c;
    char *path;          /* of the .h5 file */
    struct sealed *file; /* what was opened */
    struct sealed *base; /* a link's source, else NULL */
    char *base_path;     /* or NULL */
    struct sealed *data; /* borrowed: where the arrays lie, base or file */
    struct ckpt_info info;
    int array[CKPT_SETS][ROLES];               /* in data, -1: none */
    const int *source_layer[CKPT_SETS][ROLES]; /* of a link, borrowed; else NULL */
    void *buffer; /* CKPT_CONVERT_ELEMENTS of 2 bytes, made at need */
};

void ckpt_close(struct ckpt *k)
{
    if (!k)
        return;
    sealed_close(k->file);
    sealed_close(k->base);
    ckpt_info_fini(&k->info);
    mem_free(k->buffer);
    free(k->base_path);
    free(k->path);
    free(k);
}

const struct ckpt_info *ckpt_info(const struct ckpt *k)
{
    return &k->info;
}

uint64_t ckpt_identity(const struct ckpt *k)
{
    return sealed_identity(k->file);
}

const char *ckpt_path(const struct ckpt *k)
{
    return k->path;
}

const char *ckpt_short_name(const struct ckpt *k)
{
    const char *base = strrchr(k->path, '/');
    base = base ? base + 1 : k->path;
    if (strcmp(base, "state.h5") != 0)
        return base;
    const char *at = base;
    while (at > k->path && (at == base || at[-1] != '/'))
        at--;
    return at;
}

const char *ckpt_link_path(const struct ckpt *k)
{
    return k->base_path;
}

const struct sealed *ckpt_sealed(const struct ckpt *k)
{
    return k->data;
}

int ckpt_source_layer(const struct ckpt *k, enum tensor_role role, int layer)
{
    const int *list = k->source_layer[CKPT_MODEL][role];
    return list ? list[layer] : layer;
}

/* The file of a CKPT argument, owned: itself, or state.h5 of a folder. */
static char *resolve(const char *path, struct err *err)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        err_set_errno(err, 1, "%s: cannot open", path);
        return NULL;
    }
    if (!S_ISDIR(st.st_mode))
        return mem_printf(err, "%s", path);
    char *name = file_join(path, "state.h5", err);
    if (!name || access(name, F_OK) == 0)
        return name;
    free(name);
    char *config = file_join(path, "config.json", err);
    if (!config)
        return NULL;
    bool hf = access(config, F_OK) == 0;
    free(config);
    err_set(err, ERR_INPUT, "%s: a folder without state.h5 is no checkpoint%s", path,
            hf ? "; this is a Hugging Face model: dusk import makes a checkpoint of it"
               : "");
    return NULL;
}

/* The source of a link, owned: relative to the folder that the link really lies in. */
static char *link_target(const char *file, const char *source, struct err *err)
{
    char *real = realpath(file, NULL);
    if (!real) {
        err_set_errno(err, 1, "%s: cannot find its folder", file);
        return NULL;
    }
    char *target = file_join(dirname(real), source, err);
    free(real);
    return target;
}

static int dtype_of(enum sealed_type t, enum dtype *dtype)
{
    for (int d = DTYPE_F32; d <= DTYPE_F16; d++)
        if (ckpt_sealed_type((enum dtype)d) == t) {
            *dtype = (enum dtype)d;
            return 0;
        }
    return -1;
}

/* Is array i of the file what the shape says? `layers` is its length if stacked. */
static int check_array(const struct ckpt *k, const struct sealed *s, int i,
                       enum ckpt_set set, enum tensor_role role, int64_t layers,
                       struct err *err)
{
    const struct sealed_array *a = sealed_array_at(s, i);
    struct tensor t = table_find(&k->info.shape, role, role_per_layer(role) ? 0 : -1);
    int64_t want[SEALED_MAX_DIMS] = {0};
    int dims = 0;
    if (role_per_layer(role))
        want[dims++] = layers;
    want[dims++] = t.rows;
    if (t.ndim == 2)
        want[dims++] = t.cols;
    enum dtype dtype;
    if (dtype_of(a->type, &dtype) < 0 || (set != CKPT_MODEL && dtype != DTYPE_F32))
        return err_set(err, ERR_INPUT,
                       "%s: %s has a type that a checkpoint cannot have",
                       sealed_path(s), a->path);
    bool same =
        a->dims == dims && (a->source_path || a->stacked == role_per_layer(role));
    for (int d = 0; same && d < dims; d++)
        same = a->dim[d] == want[d];
    if (!same)
        return err_set(err, ERR_INPUT, "%s: %s: its shape is not that of the model",
                       sealed_path(s), a->path);
    return 0;
}

/* Finds the arrays of the opened file; fills in dtypes and source layers. */
static int find_arrays(struct ckpt *k, struct err *err)
{
    struct ckpt_info *info = &k->info;
    info->optimizer = sealed_find(k->file, "/optimizer/exp_avg/embed_tokens") >= 0;
    for (int set = 0; set < CKPT_SETS; set++)
        for (int r = 0; r < ROLES; r++) {
            enum tensor_role role = (enum tensor_role)r;
            k->array[set][r] = -1;
            if (!role_present(&info->shape, role) ||
                (set != CKPT_MODEL && !info->optimizer))
                continue;
            char path[96];
            ckpt_array_path((enum ckpt_set)set, role, path, sizeof path);
            int i = sealed_find(k->file, path);
            if (i < 0)
                return err_set(err, ERR_INPUT, "%s: %s is missing", k->path, path);
            if (check_array(k, k->file, i, (enum ckpt_set)set, role, info->shape.layers,
                            err) < 0)
                return -1;
            const struct sealed_array *a = sealed_array_at(k->file, i);
            k->array[set][r] = i;
            k->source_layer[set][r] = a->source_path ? a->source_layer : NULL;
            if (set == CKPT_MODEL)
                dtype_of(a->type, &info->dtype[r]);
        }
    return 0;
}

/* The one file that all virtual arrays come from; NULL if there are none. */
static int link_source(const struct ckpt *k, const char **source, struct err *err)
{
    *source = NULL;
    for (int i = 0; i < sealed_arrays(k->file); i++) {
        const struct sealed_array *a = sealed_array_at(k->file, i);
        if (!a->source_path)
            continue;
        if (*source && strcmp(*source, a->source_path) != 0)
            return err_set(err, ERR_INPUT, "%s: links to two files, %s and %s", k->path,
                           *source, a->source_path);
        *source = a->source_path;
    }
    return 0;
}

/* Points array[][] at the source's arrays and checks that they hold what is linked. */
static int follow_link(struct ckpt *k, uint64_t identity, struct err *err)
{
    if (sealed_identity(k->base) != identity)
        return err_set(err, ERR_INPUT,
                       "%s: its source %s is not the file that was linked: expected "
                       "seal %016llx, found %016llx; make the link again",
                       k->path, k->base_path, (unsigned long long)identity,
                       (unsigned long long)sealed_identity(k->base));
    for (int set = 0; set < CKPT_SETS; set++)
        for (int r = 0; r < ROLES; r++) {
            if (k->array[set][r] < 0)
                continue;
            const struct sealed_array *link =
                sealed_array_at(k->file, k->array[set][r]);
            int i = sealed_find(k->base, link->path);
            if (i < 0 || !link->source_path)
                return err_set(err, ERR_INPUT, "%s: %s is not linked to one of %s",
                               k->path, link->path, k->base_path);
            const struct sealed_array *a = sealed_array_at(k->base, i);
            if (a->source_path)
                return err_set(err, ERR_INPUT,
                               "%s: its source %s is a link itself; link to %s",
                               k->path, k->base_path, a->source_path);
            if (a->type != link->type || link->source_layers > a->dim[0])
                return err_set(err, ERR_INPUT, "%s: %s does not fit that of %s",
                               k->path, link->path, k->base_path);
            if (check_array(k, k->base, i, (enum ckpt_set)set, (enum tensor_role)r,
                            a->dim[0], err) < 0)
                return -1;
            for (int64_t j = 0;
                 !role_per_layer((enum tensor_role)r) && j < link->dim[0]; j++)
                if (link->source_layer[j] != j)
                    return err_set(err, ERR_INPUT, "%s: %s is not linked row by row",
                                   k->path, link->path);
            k->array[set][r] = i;
        }
    return 0;
}

static int open_base(struct ckpt *k, uint64_t identity, struct err *err)
{
    const char *source;
    int rc = link_source(k, &source, err);
    if (rc == 0 && source && comm_root(k->c)) {
        k->base_path = link_target(k->path, source, err);
        rc = k->base_path ? 0 : -1;
    }
    if (comm_agree(k->c, rc < 0, err) < 0)
        return -1;
    k->data = k->file;
    if (!source)
        return 0;
    comm_bcast_string(k->c, &k->base_path, 0);
    k->base = sealed_open(k->c, k->base_path, err);
    if (!k->base)
        return err_prefix(err, "%s: the source that it links to", k->path);
    k->data = k->base;
    return comm_agree(k->c, follow_link(k, identity, err) < 0, err);
}

static int is_file(const struct sealed_array *a)
{
    return strncmp(a->path, "/tokenizer/", 11) == 0;
}

static int read_file(struct ckpt *k, int i, struct ckpt_file *f, struct err *err)
{
    const struct sealed_array *a = sealed_array_at(k->data, i);
    if (!ckpt_file_name(a->path + 11) || a->type != SEALED_U8 || a->dims != 1 ||
        a->stacked || a->source_path)
        return err_set(err, ERR_INPUT,
                       "%s: %s: expected the bytes of a file, under a plain name",
                       sealed_path(k->data), a->path);
    f->bytes = (size_t)a->dim[0];
    f->name = mem_printf(err, "%s", a->path + 11);
    f->data = malloc(f->bytes + 1);
    if (!f->name || !f->data)
        return err_set(err, ERR_OTHER, "no memory for %s", a->path);
    f->data[f->bytes] = '\0';
    if (!comm_root(k->c))
        return 0;
    return sealed_read(k->data, i, 0, 0, f->data, f->bytes, err);
}

/* The tokenizer's files: rank 0 reads them for all. */
static int read_files(struct ckpt *k, struct err *err)
{
    struct ckpt_info *info = &k->info;
    int rc = 0;
    info->file = calloc((size_t)sealed_arrays(k->data) + 1, sizeof *info->file);
    if (!info->file)
        rc = err_set(err, ERR_OTHER, "no memory for tokenizer files");
    for (int i = 0; rc == 0 && i < sealed_arrays(k->data); i++)
        if (is_file(sealed_array_at(k->data, i)))
            rc = read_file(k, i, &info->file[info->files++], err);
    if (comm_agree(k->c, rc < 0, err) < 0)
        return -1;
    for (int i = 0; i < info->files; i++)
        comm_bcast(k->c, info->file[i].data, info->file[i].bytes, 0);
    return 0;
}

struct ckpt *ckpt_open(struct comm *c, const char *path, struct err *err)
{
    struct ckpt *k = calloc(1, sizeof *k);
    CHECK(k, "no memory for a checkpoint");
    k->c = c;
    uint64_t identity;
    if (comm_root(c))
        k->path = resolve(path, err);
    if (comm_agree(c, comm_root(c) && !k->path, err) < 0)
        goto failed;
    comm_bcast_string(c, &k->path, 0);
    k->file = sealed_open(c, k->path, err);
    if (!k->file)
        goto failed;
    int rc = ckpt_attrs_read(k->file, k->path, &k->info, &identity, err);
    if (rc == 0)
        rc = find_arrays(k, err);
    if (comm_agree(c, rc < 0, err) < 0 || open_base(k, identity, err) < 0 ||
        read_files(k, err) < 0)
        goto failed;
    return k;
failed:
    ckpt_close(k);
    return NULL;
}

int ckpt_read_raw(struct ckpt *k, enum ckpt_set set, enum tensor_role role, int layer,
                  int64_t begin, int64_t n, void *dst, struct err *err)
{
    int array = k->array[set][role];
    CHECK(array >= 0, "%s has no %s", k->path, role_name(role));
    CHECK(!role_per_layer(role) || (layer >= 0 && layer < k->info.shape.layers),
          "layer %d of %d", layer, k->info.shape.layers);
    int64_t from = 0;
    if (role_per_layer(role))
        from = k->source_layer[set][role] ? k->source_layer[set][role][layer] : layer;
    size_t size = dtype_bytes(set == CKPT_MODEL ? k->info.dtype[role] : DTYPE_F32);
    return sealed_read(k->data, array, from, begin * (int64_t)size, dst,
                       (size_t)n * size, err);
}

int ckpt_read(struct ckpt *k, enum ckpt_set set, enum tensor_role role, int layer,
              int64_t begin, int64_t n, float *dst, struct err *err)
{
    enum dtype t = set == CKPT_MODEL ? k->info.dtype[role] : DTYPE_F32;
    if (t == DTYPE_F32)
        return ckpt_read_raw(k, set, role, layer, begin, n, dst, err);
    if (!k->buffer)
        k->buffer = mem_array(CKPT_CONVERT_ELEMENTS, sizeof(uint16_t), err);
    if (!k->buffer)
        return -1;
    for (int64_t done = 0, m; done < n; done += m) {
        m = n - done < CKPT_CONVERT_ELEMENTS ? n - done : CKPT_CONVERT_ELEMENTS;
        if (ckpt_read_raw(k, set, role, layer, begin + done, m, k->buffer, err) < 0)
            return -1;
        dtype_to_f32(t, k->buffer, m, dst + done);
    }
    return 0;
}
