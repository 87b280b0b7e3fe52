/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sealed_parts.h"

#include "src/base/check.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEPTH_MAX = 8,
    TYPES = SEALED_F64 + 1,
    TEXT_BYTES_MAX = 1 << 26,
    ROWS_MAX = 1 << 24 /* of a virtual array: layers, or a vocabulary */
};

/* What the walk over the file collects; grows. */
struct walk {
    const char *path; /* of the file, for messages */
    struct err *err;
    char why[SEALED_WHY_BYTES]; /* HDF5's reason for its first failure */
    hid_t type[TYPES];
    char object[256]; /* path of the object at hand */
    int depth, arrays, arrays_room, attrs, attrs_room;
    struct sealed_array *array;
    struct sealed_place *place;
    struct sealed_attr *attr;
};

static int bad(struct walk *w, const char *what)
{
    if (w->why[0])
        return err_set(w->err, ERR_INPUT, "%s: %s: %s (HDF5: %s)", w->path, w->object,
                       what, w->why);
    return err_set(w->err, ERR_INPUT, "%s: %s: %s", w->path, w->object, what);
}

/* Room for one more element of `size` bytes, zeroed. */
static void *grown(void *list, int n, int *room, size_t size)
{
    if (n < *room)
        return list;
    *room = 2 * *room + 16;
    list = realloc(list, (size_t)*room * size);
    CHECK(list, "no memory for %d table entries", *room);
    memset((char *)list + (size_t)n * size, 0, (size_t)(*room - n) * size);
    return list;
}

static void *owned(size_t bytes)
{
    void *p = calloc(1, bytes + 1);
    CHECK(p, "no memory for %zu bytes", bytes);
    return p;
}

static char *owned_text(const char *s)
{
    size_t n = strlen(s);
    return memcpy(owned(n), s, n + 1);
}

/* Type and shape of the dataset, and whether it is one that we know. */
static int read_shape(struct walk *w, hid_t dataset, struct sealed_array *a)
{
    hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    hsize_t dim[SEALED_MAX_DIMS];
    int t = 0, rc = -1;
    while (type >= 0 && t < TYPES && H5Tequal(type, w->type[t]) <= 0)
        t++;
    a->dims = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    if (type < 0 || space < 0)
        bad(w, "cannot read its type");
    else if (t == TYPES)
        bad(w, "has a type that dusk does not use");
    else if (a->dims < 1 || a->dims > SEALED_MAX_DIMS ||
             H5Sget_simple_extent_dims(space, dim, NULL) < 0)
        bad(w, "expected 1 to 3 dimensions");
    else
        rc = 0;
    for (int d = 0; rc == 0 && d < a->dims; d++) {
        if (dim[d] > INT64_MAX / 2)
            rc = bad(w, "impossible shape");
        a->dim[d] = (int64_t)dim[d];
    }
    a->type = (enum sealed_type)t;
    if (type >= 0)
        H5Tclose(type);
    if (space >= 0)
        H5Sclose(space);
    return rc;
}

/* First index and count along dim 0 of a mapping's selection. */
static int bounds(hid_t space, int dims, int64_t *first, int64_t *n)
{
    hsize_t low[SEALED_MAX_DIMS], high[SEALED_MAX_DIMS];
    if (space < 0 || H5Sget_simple_extent_ndims(space) != dims ||
        H5Sget_select_bounds(space, low, high) < 0)
        return -1;
    *first = (int64_t)low[0];
    *n = (int64_t)(high[0] - low[0]) + 1;
    return 0;
}

static int read_mapping(hid_t dcpl, size_t i, struct sealed_array *a, int *layers)
{
    char source[sizeof a->path];
    hid_t to = H5Pget_virtual_vspace(dcpl, i), from = H5Pget_virtual_srcspace(dcpl, i);
    int64_t first, n, from_first, from_n;
    int rc = -1;
    if (H5Pget_virtual_dsetname(dcpl, i, source, sizeof source) > 0 &&
        strcmp(source, a->path) == 0 && bounds(to, a->dims, &first, &n) == 0 &&
        bounds(from, a->dims, &from_first, &from_n) == 0 && n == from_n && first >= 0 &&
        n <= a->dim[0] - first && from_first + n <= INT32_MAX) {
        for (int64_t k = 0; k < n; k++)
            layers[first + k] = (int)(from_first + k);
        rc = 0;
    }
    if (to >= 0)
        H5Sclose(to);
    if (from >= 0)
        H5Sclose(from);
    return rc;
}

/* The layer that each layer of a virtual dataset comes from. A whole mapping, too, is
 * given as a list; io/ckpt.c knows which arrays are stacks. */
static int read_virtual(struct walk *w, hid_t dcpl, struct sealed_array *a)
{
    size_t count = 0;
    ssize_t length = -1;
    if (H5Pget_virtual_count(dcpl, &count) < 0 || count < 1 ||
        (length = H5Pget_virtual_filename(dcpl, 0, NULL, 0)) < 1 || length > 4096 ||
        a->dim[0] > ROWS_MAX)
        return bad(w, "cannot read where its data comes from");
    char *file = owned((size_t)length + 1);
    int *layers = owned((size_t)a->dim[0] * sizeof *layers);
    a->source_path = file;
    a->source_layer = layers;
    H5Pget_virtual_filename(dcpl, 0, file, (size_t)length + 1);
    for (int64_t k = 0; k < a->dim[0]; k++)
        layers[k] = -1;
    for (size_t i = 0; i < count; i++) {
        char other[4097];
        if (H5Pget_virtual_filename(dcpl, i, other, sizeof other) != length ||
            strcmp(other, file) != 0 || read_mapping(dcpl, i, a, layers) < 0)
            return bad(w, "cannot follow where its data comes from");
    }
    for (int64_t k = 0; k < a->dim[0]; k++) {
        if (layers[k] < 0)
            return bad(w, "a part of it comes from nowhere");
        if (layers[k] >= a->source_layers)
            a->source_layers = layers[k] + 1;
    }
    return 0;
}

static int read_dataset(struct walk *w, hid_t dataset)
{
    w->array = grown(w->array, w->arrays, &w->arrays_room, sizeof *w->array);
    w->place = realloc(w->place, (size_t)w->arrays_room * sizeof *w->place);
    CHECK(w->place, "no memory for %d places", w->arrays_room);
    struct sealed_array *a = &w->array[w->arrays];
    struct sealed_place *p = &w->place[w->arrays];
    memset(p, 0, sizeof *p);
    w->arrays++;
    size_t n = strlen(w->object);
    if (n >= sizeof a->path)
        return bad(w, "its name is too long");
    memcpy(a->path, w->object, n + 1);
    if (read_shape(w, dataset, a) < 0)
        return -1;
    hid_t dcpl = H5Dget_create_plist(dataset);
    H5D_layout_t layout = dcpl < 0 ? H5D_LAYOUT_ERROR : H5Pget_layout(dcpl);
    int rc = 0;
    if (layout == H5D_VIRTUAL) {
        rc = read_virtual(w, dcpl, a);
    } else if (layout != H5D_CONTIGUOUS) {
        rc = bad(w, "expected a contiguous dataset");
    } else if (H5Dget_storage_size(dataset)) {
        haddr_t at = H5Dget_offset(dataset);
        p->offset = at == HADDR_UNDEF ? 0 : (int64_t)at;
    }
    if (dcpl >= 0)
        H5Pclose(dcpl);
    return rc;
}

static int read_ints(hid_t attr, hid_t space, struct sealed_attr *a)
{
    hssize_t n = H5Sget_simple_extent_npoints(space);
    if (n < 0 || n > TEXT_BYTES_MAX)
        return -1;
    a->n = (int64_t)n;
    int64_t *ints = owned((size_t)n * sizeof *ints);
    a->ints = ints;
    return H5Aread(attr, H5T_NATIVE_INT64, ints) < 0 ? -1 : 0;
}

static int read_text(hid_t attr, hid_t type, struct sealed_attr *a)
{
    size_t bytes = H5Tget_size(type);
    if (H5Tis_variable_str(type) != 0 || bytes < 1 || bytes > TEXT_BYTES_MAX)
        return -1;
    char *text = owned(bytes);
    a->s = text;
    return H5Aread(attr, type, text) < 0 ? -1 : 0;
}

static herr_t read_attribute(hid_t object, const char *name, const H5A_info_t *info,
                             void *context)
{
    (void)info;
    struct walk *w = context;
    w->attr = grown(w->attr, w->attrs, &w->attrs_room, sizeof *w->attr);
    struct sealed_attr *a = &w->attr[w->attrs++];
    a->group = owned_text(w->object);
    a->name = owned_text(name);
    hid_t attr = H5Aopen(object, name, H5P_DEFAULT);
    hid_t type = attr < 0 ? -1 : H5Aget_type(attr);
    hid_t space = attr < 0 ? -1 : H5Aget_space(attr);
    int rc = -1;
    if (type >= 0 && space >= 0) {
        bool scalar = H5Sget_simple_extent_type(space) == H5S_SCALAR;
        H5T_class_t class = H5Tget_class(type);
        if (class == H5T_INTEGER && scalar) {
            a->kind = SEALED_INT;
            rc = H5Aread(attr, H5T_NATIVE_INT64, &a->i) < 0 ? -1 : 0;
        } else if (class == H5T_INTEGER) {
            a->kind = SEALED_INTS;
            rc = read_ints(attr, space, a);
        } else if (class == H5T_FLOAT && scalar) {
            a->kind = SEALED_DOUBLE;
            rc = H5Aread(attr, H5T_NATIVE_DOUBLE, &a->d) < 0 ? -1 : 0;
        } else if (class == H5T_STRING && scalar) {
            a->kind = SEALED_STRING;
            rc = read_text(attr, type, a);
        }
    }
    if (rc < 0)
        err_set(w->err, ERR_INPUT, "%s: cannot read attribute %s of %s", w->path, name,
                w->object);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (attr >= 0)
        H5Aclose(attr);
    return rc;
}

/* Names of a group's members, as HDF5 lists them. Lists come in its native order and
 * are sorted here: for a sorted one HDF5 makes a table first, and where a damaged group
 * lets that fail it frees what it has not filled in (1.10.8). */
struct names {
    char **name; /* owned */
    int n, room;
    bool others; /* a link that is no hard one */
};

static herr_t take_name(hid_t group, const char *name, const H5L_info_t *info,
                        void *context)
{
    (void)group;
    struct names *names = context;
    names->name = grown(names->name, names->n, &names->room, sizeof *names->name);
    names->name[names->n++] = owned_text(name);
    names->others = names->others || info->type != H5L_TYPE_HARD;
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct sealed_attr *)a)->name,
                  ((const struct sealed_attr *)b)->name);
}

static int read_link(struct walk *w, hid_t group, const char *name);

/* What is in the group at w->object, in the order of the names. */
static int read_members(struct walk *w, hid_t group)
{
    struct names names = {0};
    hsize_t at = 0;
    int rc = 0;
    if (H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, &at, take_name, &names) < 0)
        rc = bad(w, "cannot list its members");
    else if (names.others)
        rc = bad(w, "holds a link that dusk did not write");
    if (names.n)
        qsort(names.name, (size_t)names.n, sizeof *names.name, by_text);
    w->depth++;
    for (int i = 0; i < names.n; i++) {
        if (rc == 0)
            rc = read_link(w, group, names.name[i]);
        free(names.name[i]);
    }
    w->depth--;
    free(names.name);
    return rc;
}

/* Attributes of the object at w->object, then the dataset or the group's members. */
static int read_object(struct walk *w, hid_t object)
{
    hsize_t at = 0;
    int first = w->attrs;
    H5I_type_t kind = H5Iget_type(object);
    if (w->depth > DEPTH_MAX)
        return bad(w, "its groups are nested too deep");
    if (H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_NATIVE, &at, read_attribute, w) < 0)
        return w->err->code ? -1 : bad(w, "cannot list its attributes");
    if (w->attrs > first)
        qsort(w->attr + first, (size_t)(w->attrs - first), sizeof *w->attr, by_name);
    if (kind == H5I_DATASET)
        return read_dataset(w, object);
    if (kind != H5I_GROUP)
        return bad(w, "is neither a group nor an array");
    return read_members(w, object);
}

static int read_link(struct walk *w, hid_t group, const char *name)
{
    size_t length = strlen(w->object), n = strlen(name);
    bool top = length == 1;
    if (top && strcmp(name, "checksums") == 0)
        return 0;
    if (length + n + 2 > sizeof w->object)
        return bad(w, "holds a longer name than dusk writes");
    if (!top)
        w->object[length] = '/';
    memcpy(w->object + length + !top, name, n + 1);
    hid_t object = H5Oopen(group, name, H5P_DEFAULT);
    int rc = object < 0 ? bad(w, "cannot open it") : read_object(w, object);
    if (object >= 0)
        H5Oclose(object);
    w->object[length] = '\0';
    return rc;
}

/* Blocks start anew in each layer exactly where the checksums are two-dimensional. */
static int read_sums(struct walk *w, hid_t file, int i)
{
    struct sealed_array *a = &w->array[i];
    struct sealed_place *p = &w->place[i];
    char path[sizeof w->object];
    if (!p->offset)
        return 0;
    snprintf(path, sizeof path, "/checksums%s", a->path);
    hid_t sums = H5Dopen2(file, path, H5P_DEFAULT);
    hid_t space = sums < 0 ? -1 : H5Dget_space(sums);
    haddr_t at = sums < 0 ? HADDR_UNDEF : H5Dget_offset(sums);
    int dims = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    int rc = 0;
    if (at == HADDR_UNDEF || dims < 1 || dims > 2)
        rc = err_set(w->err, ERR_INPUT, "%s: no checksums for %s", w->path, a->path);
    p->sums = rc < 0 ? 0 : (int64_t)at;
    a->stacked = dims == 2;
    if (space >= 0)
        H5Sclose(space);
    if (sums >= 0)
        H5Dclose(sums);
    return rc;
}

static int read_file(struct walk *w, hid_t file)
{
    hid_t root = H5Gopen2(file, "/", H5P_DEFAULT);
    if (root < 0)
        return bad(w, "cannot open it");
    int rc = read_object(w, root);
    H5Gclose(root);
    for (int i = 0; rc == 0 && i < w->arrays; i++)
        rc = read_sums(w, file, i);
    return rc;
}

int sealed_h5_read(int fd, const char *path, struct sealed_table *t, struct err *err)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    struct walk w = {.path = path, .err = err, .object = "/"};
    sealed_h5_begin(w.why);
    err->code = ERR_NONE;
    for (int i = 0; i < TYPES; i++)
        w.type[i] = (hid_t)sealed_h5_type((enum sealed_type)i);
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS), file = -1;
    if (fapl >= 0 && H5Pset_fapl_sec2(fapl) >= 0)
        file = H5Fopen(name, H5F_ACC_RDONLY, fapl);
    int rc = file < 0 ? bad(&w, "cannot open it") : read_file(&w, file);
    if (file >= 0)
        H5Fclose(file);
    if (fapl >= 0)
        H5Pclose(fapl);
    for (int i = 0; i < TYPES; i++)
        if (w.type[i] >= 0)
            H5Tclose(w.type[i]);
    sealed_h5_end();
    *t = (struct sealed_table){.arrays = w.arrays,
                               .attrs = w.attrs,
                               .array = w.array,
                               .place = w.place,
                               .attr = w.attr};
    return rc;
}
