/* SPDX-License-Identifier: Apache-2.0 */
#include "io/ckpt_parts.h"

#include "io/spm_model.h"
#include "src/base/check.h"

#include <stdlib.h>
#include <string.h>

void ckpt_info_fini(struct ckpt_info *info)
{
    for (int r = 0; r < ROLES; r++)
        free(info->layer_dtype[r]);
    for (int i = 0; i < info->pairs; i++) {
        free(info->pair[i].key);
        free(info->pair[i].value);
    }
    for (int i = 0; i < info->files; i++) {
        free(info->file[i].name);
        free(info->file[i].data);
    }
    free(info->pair);
    free(info->file);
    ckpt_info_clear_source(info);
    *info = (struct ckpt_info){0};
}

void ckpt_info_clear_source(struct ckpt_info *info)
{
    char **const texts[] = {&info->layers, &info->source,     &info->seam,
                            &info->zero,   &info->init_noise, &info->init_noise_seed};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        free(*texts[i]);
        *texts[i] = NULL;
    }
    info->source_layers = 0;
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_OTHER, "no memory for a checkpoint's description");
}

/* A copy with a zero byte behind it; NULL for NULL. */
static void *copied(const void *from, size_t bytes, bool *failed)
{
    if (!from)
        return NULL;
    char *to = malloc(bytes + 1);
    if (!to) {
        *failed = true;
        return NULL;
    }
    memcpy(to, from, bytes);
    to[bytes] = '\0';
    return to;
}

static char *copied_text(const char *from, bool *failed)
{
    return copied(from, from ? strlen(from) : 0, failed);
}

int ckpt_info_copy(struct ckpt_info *to, const struct ckpt_info *from, struct err *err)
{
    bool failed = false;
    *to = *from;
    size_t layers = (size_t)from->shape.layers;
    for (int r = 0; r < ROLES; r++)
        to->layer_dtype[r] = copied(from->layer_dtype[r],
                                    layers * sizeof *from->layer_dtype[r], &failed);
    to->layers = copied_text(from->layers, &failed);
    to->source = copied_text(from->source, &failed);
    to->seam = copied_text(from->seam, &failed);
    to->zero = copied_text(from->zero, &failed);
    to->init_noise = copied_text(from->init_noise, &failed);
    to->init_noise_seed = copied_text(from->init_noise_seed, &failed);
    to->pair = calloc((size_t)from->pairs + 1, sizeof *to->pair);
    to->file = calloc((size_t)from->files + 1, sizeof *to->file);
    if (!to->pair)
        to->pairs = 0;
    if (!to->file)
        to->files = 0;
    failed = failed || !to->pair || !to->file;
    for (int i = 0; i < to->pairs; i++) {
        to->pair[i].key = copied_text(from->pair[i].key, &failed);
        to->pair[i].value = copied_text(from->pair[i].value, &failed);
    }
    for (int i = 0; i < to->files; i++) {
        const struct ckpt_file *f = &from->file[i];
        to->file[i].name = copied_text(f->name, &failed);
        to->file[i].data =
            copied(f->data ? (const void *)f->data : "", f->bytes, &failed);
        to->file[i].bytes = f->bytes;
    }
    if (!failed)
        return 0;
    ckpt_info_fini(to);
    return no_memory(err);
}

const char *ckpt_info_value(const struct ckpt_info *info, const char *key)
{
    for (int i = 0; i < info->pairs; i++)
        if (strcmp(info->pair[i].key, key) == 0)
            return info->pair[i].value;
    return NULL;
}

static void remove_pair(struct ckpt_info *info, const char *key)
{
    int kept = 0;
    for (int i = 0; i < info->pairs; i++)
        if (strcmp(info->pair[i].key, key) == 0) {
            free(info->pair[i].key);
            free(info->pair[i].value);
        } else {
            info->pair[kept++] = info->pair[i];
        }
    info->pairs = kept;
}

int ckpt_info_set(struct ckpt_info *info, const char *key, const char *value,
                  struct err *err)
{
    if (!value) {
        remove_pair(info, key);
        return 0;
    }
    bool failed = false;
    char *text = copied_text(value, &failed);
    for (int i = 0; !failed && i < info->pairs; i++)
        if (strcmp(info->pair[i].key, key) == 0) {
            free(info->pair[i].value);
            info->pair[i].value = text;
            return 0;
        }
    struct ckpt_pair *grown =
        realloc(info->pair, ((size_t)info->pairs + 1) * sizeof *grown);
    if (grown)
        info->pair = grown;
    char *name = copied_text(key, &failed);
    if (!grown || failed) {
        free(text);
        free(name);
        return no_memory(err);
    }
    info->pair[info->pairs++] = (struct ckpt_pair){.key = name, .value = text};
    return 0;
}

const struct ckpt_file *ckpt_info_file(const struct ckpt_info *info, const char *name)
{
    for (int i = 0; i < info->files; i++)
        if (strcmp(info->file[i].name, name) == 0)
            return &info->file[i];
    return NULL;
}

int ckpt_tokenizer_hash(const struct ckpt_info *info, char *hex, size_t size,
                        struct err *err)
{
    CHECK(size >= TOKENIZER_HASH_ROOM, "room for %zu bytes", size);
    const struct ckpt_file *f = ckpt_info_file(info, "tokenizer.model");
    struct added_tokens added;
    *hex = '\0';
    if (!f)
        return 0;
    if (added_tokens_read(&added, info->file, info->files,
                          spm_model_pieces(f->data, f->bytes), info->shape.vocab, err))
        return -1;
    tokenizer_identity(f->data, f->bytes, added.token, added.n, hex);
    added_tokens_fini(&added);
    return 0;
}
