/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sealed_parts.h"

#include "src/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
    [SEALED_F32] = {"F32", 4}, [SEALED_BF16] = {"BF16", 2}, [SEALED_F16] = {"F16", 2},
    [SEALED_U8] = {"U8", 1},   [SEALED_U16] = {"U16", 2},   [SEALED_I32] = {"I32", 4},
    [SEALED_U32] = {"U32", 4}, [SEALED_I64] = {"I64", 8},   [SEALED_U64] = {"U64", 8},
    [SEALED_F64] = {"F64", 8}};

size_t sealed_type_bytes(enum sealed_type t)
{
    return types[t].bytes;
}

const char *sealed_type_name(enum sealed_type t)
{
    return types[t].name;
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_OTHER, "no memory for a table of arrays");
}

/* Copies of count x size bytes; NULL for NULL. *failed is set if there is no memory. */
static void *copied(const void *from, size_t count, size_t size, bool *failed)
{
    if (!from)
        return NULL;
    void *to = malloc(count * size + 1);
    if (to)
        memcpy(to, from, count * size);
    else
        *failed = true;
    return to;
}

static char *copied_text(const char *from, bool *failed)
{
    return copied(from, from ? strlen(from) + 1 : 0, 1, failed);
}

static int place_fill(struct sealed_place *p, const struct sealed_array *a,
                      struct err *err)
{
    int64_t bytes = (int64_t)sealed_type_bytes(a->type), layers = 1;
    for (int d = 0; d < a->dims; d++)
        if (a->dim[d] < 0 || __builtin_mul_overflow(bytes, a->dim[d], &bytes))
            return err_set(err, ERR_OTHER, "array %s: impossible shape", a->path);
    if (a->stacked)
        layers = a->dim[0];
    if (a->source_path)
        bytes = 0;
    *p = (struct sealed_place){
        .offset = p->offset, .sums = p->sums, .bytes = bytes, .layers = layers};
    if (bytes) {
        p->layer_bytes = bytes / layers;
        p->layer_blocks = (p->layer_bytes - 1) / SEALED_BLOCK_BYTES + 1;
        p->blocks = p->layer_blocks * layers;
    }
    return 0;
}

int sealed_table_number(struct sealed_table *t, struct err *err)
{
    t->blocks = 0;
    for (int i = 0; i < t->arrays; i++) {
        if (place_fill(&t->place[i], &t->array[i], err) < 0)
            return -1;
        t->place[i].first_block = t->blocks;
        t->blocks += t->place[i].blocks;
        for (int j = 0; j < i; j++)
            if (strcmp(t->array[i].path, t->array[j].path) == 0)
                return err_set(err, ERR_OTHER, "array %s is listed twice",
                               t->array[i].path);
    }
    return 0;
}

int sealed_table_init(struct sealed_table *t, const struct sealed_array *arrays,
                      int arrays_n, const struct sealed_attr *attrs, int attrs_n,
                      struct err *err)
{
    *t = (struct sealed_table){.arrays = arrays_n, .attrs = attrs_n};
    t->array = calloc((size_t)arrays_n + 1, sizeof *t->array);
    t->place = calloc((size_t)arrays_n + 1, sizeof *t->place);
    t->attr = calloc((size_t)attrs_n + 1, sizeof *t->attr);
    bool failed = false;
    if (!t->array || !t->place || !t->attr) {
        sealed_table_fini(t);
        return no_memory(err);
    }
    for (int i = 0; i < arrays_n; i++) {
        struct sealed_array *to = &t->array[i];
        *to = arrays[i];
        to->source_path = copied_text(to->source_path, &failed);
        to->source_layer = copied(to->source_layer, (size_t)to->dim[0],
                                  sizeof *to->source_layer, &failed);
    }
    for (int i = 0; i < attrs_n; i++) {
        struct sealed_attr *to = &t->attr[i];
        *to = attrs[i];
        to->group = copied_text(to->group, &failed);
        to->name = copied_text(to->name, &failed);
        to->s = copied_text(to->s, &failed);
        to->ints = copied(to->ints, (size_t)to->n, sizeof *to->ints, &failed);
    }
    int rc = failed ? no_memory(err) : sealed_table_number(t, err);
    if (rc < 0)
        sealed_table_fini(t);
    return rc;
}

void sealed_table_fini(struct sealed_table *t)
{
    for (int i = 0; t->array && i < t->arrays; i++) {
        free((void *)t->array[i].source_path);
        free((void *)t->array[i].source_layer);
    }
    for (int i = 0; t->attr && i < t->attrs; i++) {
        free((void *)t->attr[i].group);
        free((void *)t->attr[i].name);
        free((void *)t->attr[i].s);
        free((void *)t->attr[i].ints);
    }
    free(t->array);
    free(t->place);
    free(t->attr);
    *t = (struct sealed_table){0};
}

/* On rank 0 *p is sent, elsewhere an owned copy is received. NULL stays NULL. */
static void bcast_bytes(struct comm *c, const void **p, size_t bytes)
{
    char there = *p != NULL;
    comm_bcast(c, &there, 1, 0);
    if (!there) {
        *p = NULL;
        return;
    }
    void *to = (void *)*p;
    if (!comm_root(c)) {
        to = malloc(bytes + 1);
        CHECK(to, "no memory for %zu bytes", bytes);
    }
    comm_bcast(c, to, bytes, 0);
    *p = to;
}

static void bcast_text(struct comm *c, const char **text)
{
    char *s = (char *)*text;
    comm_bcast_string(c, &s, 0);
    *text = s;
}

void sealed_table_bcast(struct comm *c, struct sealed_table *t)
{
    if (comm_size(c) == 1)
        return;
    struct sealed_table head = *t;
    comm_bcast(c, &head, sizeof head, 0);
    if (!comm_root(c)) {
        *t = head;
        t->array = NULL;
        t->place = NULL;
        t->attr = NULL;
    }
    bcast_bytes(c, (const void **)&t->array, (size_t)t->arrays * sizeof *t->array);
    bcast_bytes(c, (const void **)&t->place, (size_t)t->arrays * sizeof *t->place);
    bcast_bytes(c, (const void **)&t->attr, (size_t)t->attrs * sizeof *t->attr);
    for (int i = 0; i < t->arrays; i++) {
        struct sealed_array *a = &t->array[i];
        bcast_text(c, &a->source_path);
        bcast_bytes(c, (const void **)&a->source_layer,
                    (size_t)a->dim[0] * sizeof *a->source_layer);
    }
    for (int i = 0; i < t->attrs; i++) {
        struct sealed_attr *a = &t->attr[i];
        bcast_text(c, &a->group);
        bcast_text(c, &a->name);
        bcast_text(c, &a->s);
        bcast_bytes(c, (const void **)&a->ints, (size_t)a->n * sizeof *a->ints);
    }
}

int64_t sealed_table_block(const struct sealed_table *t, int array, int64_t layer,
                           int64_t begin, size_t bytes)
{
    CHECK(array >= 0 && array < t->arrays, "array %d of %d", array, t->arrays);
    const struct sealed_place *p = &t->place[array];
    int64_t end = begin + (int64_t)bytes;
    CHECK(layer >= 0 && layer < p->layers, "%s: layer %lld of %lld",
          t->array[array].path, (long long)layer, (long long)p->layers);
    CHECK(begin >= 0 && begin % SEALED_BLOCK_BYTES == 0 && end >= begin &&
              end <= p->layer_bytes &&
              (end % SEALED_BLOCK_BYTES == 0 || end == p->layer_bytes),
          "%s: bytes [%lld, %lld) of a layer of %lld are not whole blocks",
          t->array[array].path, (long long)begin, (long long)end,
          (long long)p->layer_bytes);
    return p->first_block + layer * p->layer_blocks + begin / SEALED_BLOCK_BYTES;
}

void sealed_table_name(const struct sealed_table *t, int array, int64_t layer,
                       char *name, size_t size)
{
    if (t->array[array].stacked)
        snprintf(name, size, "layer %lld of %s", (long long)layer,
                 t->array[array].path);
    else
        snprintf(name, size, "%s", t->array[array].path);
}
