/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sealed_parts.h"

#include "src/base/check.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    ALIGN_BYTES = SEAL_BYTES, /* of arrays; HDF5 wants the user block to be one unit */
    ALIGN_FROM_BYTES = 65536, /* smaller ones follow each other */
    METADATA_BYTES = 16384,   /* HDF5 keeps its own data together in runs of this */
};

static herr_t keep_first(unsigned n, const H5E_error2_t *e, void *why)
{
    if (n == 0 && e->desc)
        snprintf(why, SEALED_WHY_BYTES, "%s", e->desc);
    return 0;
}

/* HDF5 calls this as a call of it fails; the first failure is the cause. */
static herr_t keep_reason(hid_t stack, void *why)
{
    if (!*(char *)why)
        H5Ewalk2(stack, H5E_WALK_UPWARD, keep_first, why);
    return 0;
}

void sealed_h5_begin(char why[SEALED_WHY_BYTES])
{
    H5dont_atexit(); /* else a failed flush crashes the process at its end */
    setenv("HDF5_USE_FILE_LOCKING", "FALSE",
           1); /* fails on many cluster file systems */
    H5open();
    *why = '\0';
    H5Eset_auto2(H5E_DEFAULT, keep_reason, why); /* print nothing */
}

void sealed_h5_end(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

/* A little-endian float of 16 bits, IEEE style. */
static hid_t small_float(size_t exponent_bits, size_t fraction_bits, size_t bias)
{
    hid_t t = H5Tcopy(H5T_IEEE_F32LE);
    if (t < 0)
        return -1;
    if (H5Tset_fields(t, 15, fraction_bits, exponent_bits, 0, fraction_bits) < 0 ||
        H5Tset_precision(t, 16) < 0 || H5Tset_size(t, 2) < 0 ||
        H5Tset_ebias(t, bias) < 0) {
        H5Tclose(t);
        return -1;
    }
    return t;
}

int64_t sealed_h5_type(enum sealed_type t)
{
    switch (t) {
    case SEALED_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case SEALED_BF16:
        return small_float(8, 7, 127);
    case SEALED_F16:
        return small_float(5, 10, 15);
    case SEALED_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case SEALED_U16:
        return H5Tcopy(H5T_STD_U16LE);
    case SEALED_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case SEALED_U32:
        return H5Tcopy(H5T_STD_U32LE);
    case SEALED_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case SEALED_U64:
        return H5Tcopy(H5T_STD_U64LE);
    case SEALED_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    }
    return -1;
}

/* Makes the groups above `path`, and `path` itself if it is to be a group. HDF5's own
 * creation of missing groups would store times in them. */
static int make_groups(hid_t file, const char *path, bool itself)
{
    char name[160];
    snprintf(name, sizeof name, "%s", path);
    hid_t gcpl = H5Pcreate(H5P_GROUP_CREATE);
    int rc = gcpl < 0 || H5Pset_obj_track_times(gcpl, 0) < 0 ? -1 : 0;
    for (char *s = strchr(name + 1, '/'); rc == 0; s = strchr(s + 1, '/')) {
        if (!s && (!itself || !name[1]))
            break;
        if (s)
            *s = '\0';
        htri_t there = H5Lexists(file, name, H5P_DEFAULT);
        if (there < 0)
            rc = -1;
        if (there == 0) {
            hid_t g = H5Gcreate2(file, name, H5P_DEFAULT, gcpl, H5P_DEFAULT);
            if (g < 0 || H5Gclose(g) < 0)
                rc = -1;
        }
        if (!s)
            break;
        *s = '/';
    }
    if (gcpl >= 0)
        H5Pclose(gcpl);
    return rc;
}

static int select_layers(hid_t space, const struct sealed_array *a, int64_t first,
                         int64_t layers)
{
    hsize_t start[SEALED_MAX_DIMS] = {0}, count[SEALED_MAX_DIMS];
    for (int d = 0; d < a->dims; d++)
        count[d] = (hsize_t)a->dim[d];
    start[0] = (hsize_t)first;
    count[0] = (hsize_t)layers;
    return H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ? -1
                                                                                    : 0;
}

/* One mapping for each run of layers that are neighbours in the source too. */
static int map_source(hid_t dcpl, hid_t space, const struct sealed_array *a)
{
    hsize_t dim[SEALED_MAX_DIMS];
    for (int d = 0; d < a->dims; d++)
        dim[d] = (hsize_t)a->dim[d];
    if (a->source_layer)
        dim[0] = (hsize_t)a->source_layers;
    hid_t source = H5Screate_simple(a->dims, dim, NULL);
    int rc = source < 0 ? -1 : 0;
    for (int64_t i = 0, n; rc == 0 && i < a->dim[0]; i += n) {
        int64_t from = a->source_layer ? a->source_layer[i] : 0;
        n = a->source_layer ? 1 : a->dim[0];
        while (i + n < a->dim[0] && a->source_layer[i + n] == from + n)
            n++;
        if (select_layers(space, a, i, n) < 0 ||
            select_layers(source, a, from, n) < 0 ||
            H5Pset_virtual(dcpl, space, a->source_path, a->path, source) < 0)
            rc = -1;
    }
    if (source >= 0)
        H5Sclose(source);
    return rc;
}

/* What an outsider reads where the source is missing: NaN, not believable zeros. */
static int fill_with_nan(hid_t dcpl, hid_t type, enum sealed_type t)
{
    static const uint64_t f64 = UINT64_C(0x7ff8000000000000);
    static const uint32_t f32 = 0x7fc00000;
    static const uint16_t bf16 = 0x7fc0, f16 = 0x7e00;
    const void *value = t == SEALED_F64    ? (const void *)&f64
                        : t == SEALED_F32  ? (const void *)&f32
                        : t == SEALED_BF16 ? (const void *)&bf16
                        : t == SEALED_F16  ? (const void *)&f16
                                           : NULL;
    return value && H5Pset_fill_value(dcpl, type, value) < 0 ? -1 : 0;
}

/* Creates one dataset; *offset is where its bytes lie, 0 if it has none. */
static int make_dataset(hid_t file, const struct sealed_array *a, int64_t *offset)
{
    hsize_t dim[SEALED_MAX_DIMS];
    int64_t elements = 1;
    for (int d = 0; d < a->dims; d++) {
        dim[d] = (hsize_t)a->dim[d];
        elements *= a->dim[d];
    }
    hid_t type = sealed_h5_type(a->type), dataset = -1;
    hid_t space = H5Screate_simple(a->dims, dim, NULL);
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    int rc = -1;
    if (type < 0 || space < 0 || dcpl < 0 || H5Pset_obj_track_times(dcpl, 0) < 0 ||
        make_groups(file, a->path, false) < 0)
        goto done;
    if (a->source_path) {
        if (map_source(dcpl, space, a) < 0 || fill_with_nan(dcpl, type, a->type) < 0 ||
            H5Sselect_all(space) < 0)
            goto done;
    } else if (H5Pset_layout(dcpl, H5D_CONTIGUOUS) < 0 ||
               H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY) < 0 ||
               H5Pset_fill_time(dcpl, H5D_FILL_TIME_NEVER) < 0) {
        goto done;
    }
    dataset = H5Dcreate2(file, a->path, type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    if (dataset < 0)
        goto done;
    *offset = 0;
    if (!a->source_path && elements) {
        haddr_t at = H5Dget_offset(dataset);
        if (at == HADDR_UNDEF)
            goto done;
        *offset = (int64_t)at;
    }
    rc = 0;
done:
    if (dataset >= 0 && H5Dclose(dataset) < 0)
        rc = -1;
    if (dcpl >= 0)
        H5Pclose(dcpl);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return rc;
}

/* Strings have a fixed length: variable ones live in HDF5's global heap. */
static hid_t string_type(const char *s)
{
    hid_t t = H5Tcopy(H5T_C_S1);
    if (t >= 0 &&
        (H5Tset_size(t, strlen(s) + 1) < 0 || H5Tset_strpad(t, H5T_STR_NULLTERM) < 0 ||
         H5Tset_cset(t, H5T_CSET_UTF8) < 0)) {
        H5Tclose(t);
        return -1;
    }
    return t;
}

static int make_attribute(hid_t file, const struct sealed_attr *a)
{
    hsize_t n = (hsize_t)a->n;
    const void *value = a->kind == SEALED_INT      ? (const void *)&a->i
                        : a->kind == SEALED_DOUBLE ? (const void *)&a->d
                        : a->kind == SEALED_STRING ? (const void *)a->s
                                                   : (const void *)a->ints;
    hid_t type = a->kind == SEALED_STRING   ? string_type(a->s)
                 : a->kind == SEALED_DOUBLE ? H5Tcopy(H5T_IEEE_F64LE)
                                            : H5Tcopy(H5T_STD_I64LE);
    hid_t space =
        a->kind == SEALED_INTS ? H5Screate_simple(1, &n, NULL) : H5Screate(H5S_SCALAR);
    hid_t object = -1, attr = -1;
    int rc = -1;
    if (type < 0 || space < 0)
        goto done;
    if (H5Lexists(file, a->group, H5P_DEFAULT) <= 0 &&
        make_groups(file, a->group, true) < 0)
        goto done;
    object = H5Oopen(file, a->group, H5P_DEFAULT);
    if (object < 0)
        goto done;
    attr = H5Acreate2(object, a->name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attr >= 0 && H5Awrite(attr, type, value) >= 0)
        rc = 0;
done:
    if (attr >= 0 && H5Aclose(attr) < 0)
        rc = -1;
    if (object >= 0)
        H5Oclose(object);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return rc;
}

/* The stdio driver: the others look for the real path of a file that has none. */
static hid_t create_file(int fd)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS), fcpl = H5Pcreate(H5P_FILE_CREATE);
    hid_t file = -1;
    if (fapl >= 0 && fcpl >= 0 && H5Pset_fapl_stdio(fapl) >= 0 &&
        H5Pset_libver_bounds(fapl, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
        H5Pset_alignment(fapl, ALIGN_FROM_BYTES, ALIGN_BYTES) >= 0 &&
        H5Pset_meta_block_size(fapl, METADATA_BYTES) >= 0 &&
        H5Pset_userblock(fcpl, SEAL_BYTES) >= 0 && H5Pset_obj_track_times(fcpl, 0) >= 0)
        file = H5Fcreate(name, H5F_ACC_TRUNC, fcpl, fapl);
    if (fapl >= 0)
        H5Pclose(fapl);
    if (fcpl >= 0)
        H5Pclose(fcpl);
    return file;
}

/* The checksums' dataset of array i: [blocks], or [layers, blocks of a layer]. */
static int make_sums(hid_t file, struct sealed_table *t, int i)
{
    struct sealed_place *p = &t->place[i];
    struct sealed_array sums = {.type = SEALED_U64, .dims = 1, .dim = {p->blocks}};
    if (t->array[i].stacked) {
        sums.dims = 2;
        sums.dim[0] = p->layers;
        sums.dim[1] = p->layer_blocks;
    }
    char path[sizeof sums.path + 16];
    int n = snprintf(path, sizeof path, "/checksums%s", t->array[i].path);
    if (n < 0 || (size_t)n >= sizeof sums.path)
        return -1;
    memcpy(sums.path, path, (size_t)n + 1);
    return make_dataset(file, &sums, &p->sums);
}

static int fill_file(hid_t file, struct sealed_table *t, const char *why,
                     struct err *err)
{
    for (int i = 0; i < t->arrays; i++)
        if (make_dataset(file, &t->array[i], &t->place[i].offset) < 0)
            return err_set(err, ERR_OTHER, "cannot lay out %s (HDF5: %s)",
                           t->array[i].path, why);
    for (int i = 0; i < t->arrays; i++)
        if (t->place[i].blocks && make_sums(file, t, i) < 0)
            return err_set(err, ERR_OTHER,
                           "cannot lay out the checksums of %s (HDF5: %s)",
                           t->array[i].path, why);
    for (int i = 0; i < t->attrs; i++)
        if (make_attribute(file, &t->attr[i]) < 0)
            return err_set(err, ERR_OTHER, "cannot write attribute %s of %s (HDF5: %s)",
                           t->attr[i].name, t->attr[i].group, why);
    return 0;
}

int sealed_h5_layout(int fd, struct sealed_table *t, struct err *err)
{
    char why[SEALED_WHY_BYTES];
    struct stat st;
    sealed_h5_begin(why);
    hid_t file = create_file(fd);
    int rc = file < 0
                 ? err_set(err, ERR_OTHER, "cannot start its layout (HDF5: %s)", why)
                 : fill_file(file, t, why, err);
    if (file >= 0 && H5Fclose(file) < 0 && rc == 0)
        rc = err_set(err, ERR_OTHER, "cannot finish its layout (HDF5: %s)", why);
    sealed_h5_end();
    if (rc == 0 && fstat(fd, &st) < 0)
        rc = err_set_errno(err, 0, "cannot measure its layout");
    if (rc == 0)
        t->file_bytes = (int64_t)st.st_size;
    return rc;
}
