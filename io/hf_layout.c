/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_layout.h"

#include "io/safetensors.h"
#include "src/base/mem.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_ROOM = 96, FILE_ROOM = 64 };

int hf_shards_cut(const int64_t *bytes, int n, int64_t limit, int *shard)
{
    int shards = 0,
        open_from = 0; /* tensors from here on with shard -1: being filled */
    int64_t filled = 0;
    for (int i = 0; i < n; i++) {
        if (bytes[i] > limit) {
            shard[i] = shards++;
            continue;
        }
        if (filled > 0 && filled + bytes[i] > limit) {
            for (int k = open_from; k < i; k++)
                shard[k] = shard[k] < 0 ? shards : shard[k];
            shards++;
            open_from = i;
            filled = 0;
        }
        shard[i] = -1;
        filled += bytes[i];
    }
    if (filled > 0) {
        for (int k = open_from; k < n; k++)
            shard[k] = shard[k] < 0 ? shards : shard[k];
        shards++;
    }
    return shards;
}

/* The header of one file, and where its tensors lie. entry: room for all tensors. */
static int lay_out_shard(struct hf_layout *l, int shard,
                         struct safetensors_entry *entry, char (*name)[NAME_ROOM],
                         struct err *err)
{
    int n = 0;
    for (int i = 0; i < table_count(&l->shape); i++) {
        if (l->place[i].shard != shard)
            continue;
        struct tensor t = table_at(&l->shape, i);
        tensor_hf_name(&t, name[i], NAME_ROOM);
        entry[n++] = (struct safetensors_entry){.name = name[i],
                                                .dtype = l->place[i].dtype,
                                                .ndim = t.ndim,
                                                .shape = {t.rows, t.cols}};
    }
    struct hf_shard *f = &l->shard[shard];
    f->header = safetensors_header(entry, n, &f->header_bytes, err);
    if (!f->header)
        return -1;
    f->bytes = (int64_t)f->header_bytes;
    for (int i = 0; i < n; i++) {
        ptrdiff_t index = (const char(*)[NAME_ROOM])entry[i].name - name;
        l->place[index].offset = (int64_t)f->header_bytes + entry[i].offset;
        f->bytes += entry[i].bytes;
        l->tensor_bytes += entry[i].bytes;
    }
    return 0;
}

static int cut(struct hf_layout *l, const enum dtype *dtype, int64_t shard_bytes,
               struct err *err)
{
    int n = table_count(&l->shape);
    int64_t *bytes = mem_array(n, sizeof *bytes, err);
    int *shard = mem_array(n, sizeof *shard, err);
    l->place = mem_array(n, sizeof *l->place, err);
    int rc = bytes && shard && l->place ? 0 : -1;
    for (int i = 0; i < n && rc == 0; i++)
        bytes[i] = table_at(&l->shape, i).elements * (int64_t)dtype_bytes(dtype[i]);
    if (rc == 0) {
        l->shards = hf_shards_cut(bytes, n, shard_bytes, shard);
        l->shard = mem_array(l->shards, sizeof *l->shard, err);
        rc = l->shard ? 0 : -1;
    }
    for (int i = 0; i < n && rc == 0; i++)
        l->place[i] = (struct hf_place){.shard = shard[i], .dtype = dtype[i]};
    mem_free(bytes);
    mem_free(shard);
    return rc;
}

int hf_layout_init(struct hf_layout *l, const struct model_shape *s,
                   const enum dtype *dtype, int64_t shard_bytes, struct err *err)
{
    *l = (struct hf_layout){.shape = *s};
    int n = table_count(s);
    struct safetensors_entry *entry = mem_array(n, sizeof *entry, err);
    char(*name)[NAME_ROOM] = entry ? mem_array(n, sizeof *name, err) : NULL;
    int rc = name ? cut(l, dtype, shard_bytes, err) : -1;
    for (int i = 0; i < l->shards && rc == 0; i++)
        rc = lay_out_shard(l, i, entry, name, err);
    mem_free(entry);
    mem_free(name);
    if (rc)
        hf_layout_fini(l);
    return rc;
}

void hf_layout_fini(struct hf_layout *l)
{
    for (int i = 0; l->shard && i < l->shards; i++)
        free(l->shard[i].header);
    mem_free(l->shard);
    mem_free(l->place);
    *l = (struct hf_layout){0};
}

void hf_layout_file(const struct hf_layout *l, int shard, char *name, size_t size)
{
    if (l->shards == 1)
        snprintf(name, size, "model.safetensors");
    else
        snprintf(name, size, "model-%05d-of-%05d.safetensors", shard + 1, l->shards);
}

char *hf_layout_index(const struct hf_layout *l, struct err *err)
{
    json_t *map = json_object();
    char name[NAME_ROOM], file[FILE_ROOM], *text = NULL, *line = NULL;
    int rc = map ? 0 : -1;
    for (int i = 0; i < table_count(&l->shape) && rc == 0; i++) {
        struct tensor t = table_at(&l->shape, i);
        tensor_hf_name(&t, name, sizeof name);
        hf_layout_file(l, l->place[i].shard, file, sizeof file);
        rc = json_object_set_new(map, name, json_pack("s", file));
    }
    json_t *index =
        rc ? NULL
           : json_pack("{s:{s:I, s:I}, s:O}", "metadata", "total_parameters",
                       (json_int_t)table_elements(&l->shape), "total_size",
                       (json_int_t)l->tensor_bytes, "weight_map", map);
    if (index)
        text = json_dumps(index, JSON_INDENT(2) | JSON_SORT_KEYS);
    if (text)
        line = mem_printf(err, "%s\n", text);
    else
        err_set(err, ERR_OTHER, "out of memory writing the index");
    json_decref(index);
    json_decref(map);
    free(text);
    return line;
}
