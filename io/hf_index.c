/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_index.h"

#include "io/json_read.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INDEX_BYTES_MAX = 100000000 };

static bool there(const char *folder, const char *name)
{
    struct err ignored;
    char *path = file_join(folder, name, &ignored);
    bool found = path && access(path, F_OK) == 0;
    free(path);
    return found;
}

static int no_weights(const char *folder, struct err *err)
{
    static const char *const others[] = {"pytorch_model.bin",
                                         "pytorch_model.bin.index.json",
                                         "consolidated.safetensors", "tf_model.h5"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (there(folder, others[i]))
            return err_set(err, ERR_INPUT,
                           "%s: expected model.safetensors or "
                           "model.safetensors.index.json, found %s: save the model "
                           "again with transformers' save_pretrained",
                           folder, others[i]);
    return err_set(err, ERR_INPUT,
                   "%s: expected model.safetensors or model.safetensors.index.json, "
                   "found neither",
                   folder);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A shard lies in the folder itself: an index must not send us elsewhere. */
static int check_name(const struct hf_index *x, const char *tensor, const json_t *value,
                      struct err *err)
{
    const char *file = json_string_value(value);
    char name[160], found[64];
    if (file && file[0] && file[0] != '.' && !strchr(file, '/'))
        return 0;
    json_read_describe(value, found, sizeof found);
    return err_set(err, ERR_INPUT,
                   "%s: weight_map: \"%s\": expected a file name, found %s", x->path,
                   text_printable(name, sizeof name, tensor), found);
}

static int collect_shards(struct hf_index *x, const char *folder, struct err *err)
{
    json_t *files = json_object(), *value;
    const char *tensor, *file;
    int rc = files ? 0 : err_set(err, ERR_OTHER, "out of memory reading %s", x->path);
    json_object_foreach(x->map, tensor, value)
    {
        if (rc == 0)
            rc = check_name(x, tensor, value, err);
        if (rc == 0)
            json_object_set_new(files, json_string_value(value), json_true());
    }
    if (rc == 0 && json_object_size(files) == 0)
        rc = err_set(err, ERR_INPUT, "%s: weight_map: expected tensors, found none",
                     x->path);
    if (rc == 0) {
        x->shard = mem_array((int64_t)json_object_size(files), sizeof *x->shard, err);
        rc = x->shard ? 0 : -1;
    }
    json_object_foreach(files, file, value)
    {
        if (rc == 0 && !there(folder, file))
            rc = err_set(err, ERR_INPUT, "%s: weight_map names %s, which is not there",
                         x->path, file);
        if (rc == 0 && !(x->shard[x->shards++] = file_join(folder, file, err)))
            rc = -1;
    }
    json_decref(files);
    if (rc == 0)
        qsort(x->shard, (size_t)x->shards, sizeof *x->shard, by_text);
    return rc;
}

static int read_index(struct hf_index *x, const char *folder, struct err *err)
{
    x->path = file_join(folder, "model.safetensors.index.json", err);
    if (!x->path)
        return -1;
    json_t *index = json_read_file(x->path, INDEX_BYTES_MAX, err);
    if (!index)
        return -1;
    x->map = json_incref(json_object_get(index, "weight_map"));
    json_decref(index);
    if (!json_is_object(x->map))
        return err_set(err, ERR_INPUT, "%s: expected an object \"weight_map\"",
                       x->path);
    return collect_shards(x, folder, err);
}

static int read_single(struct hf_index *x, const char *folder, struct err *err)
{
    x->shard = mem_array(1, sizeof *x->shard, err);
    if (!x->shard)
        return -1;
    x->shards = 1;
    x->shard[0] = file_join(folder, "model.safetensors", err);
    return x->shard[0] ? 0 : -1;
}

int hf_index_read(struct hf_index *x, const char *folder, struct err *err)
{
    *x = (struct hf_index){0};
    int rc;
    if (there(folder, "model.safetensors"))
        rc = read_single(x, folder, err);
    else if (there(folder, "model.safetensors.index.json"))
        rc = read_index(x, folder, err);
    else
        rc = no_weights(folder, err);
    if (rc)
        hf_index_fini(x);
    return rc;
}

void hf_index_fini(struct hf_index *x)
{
    for (int i = 0; i < x->shards; i++)
        free(x->shard[i]);
    mem_free(x->shard);
    json_decref(x->map);
    free(x->path);
    *x = (struct hf_index){0};
}

const char *hf_index_file(const struct hf_index *x, const char *tensor)
{
    return x->map ? json_string_value(json_object_get(x->map, tensor)) : NULL;
}
