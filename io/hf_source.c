/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_source.h"

#include "io/hf_config.h"
#include "io/hf_index.h"
#include "io/hf_tied.h"
#include "io/json_read.h"
#include "io/safetensors.h"
#include "io/spm_model.h"
#include "io/tokenizer.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FILE_BYTES_MAX = 64 << 20, NAME_SHOWN = 160, LABEL_ROOM = 96 };

/* What travels inside the checkpoint, in this order. */
static const char *const carried[] = {"config.json",
                                      "tokenizer.model",
                                      "tokenizer.json",
                                      "tokenizer_config.json",
                                      "special_tokens_map.json",
                                      "added_tokens.json",
                                      "vocab.json",
                                      "merges.txt",
                                      "generation_config.json",
                                      "chat_template.jinja"};

enum { CARRIED = sizeof carried / sizeof *carried };

struct reading {
    struct hf_source *s;
    const struct hf_index *index;
    json_t *seen; /* names of all tensors of all shards */
    bool ignore_extra;
    const struct log *log;
    int dropped;
    char first_dropped[NAME_SHOWN];
    struct hf_place tied_head; /* lm_head.weight in the file of a tied model */
    struct err *err;
};

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* inv_freq is a table that old versions stored; an empty tensor holds nothing. */
static bool droppable(const struct safetensor *t)
{
    static const char inv_freq[] = "rotary_emb.inv_freq";
    size_t n = strlen(t->name), m = sizeof inv_freq - 1;
    return t->elements == 0 || (n >= m && strcmp(t->name + n - m, inv_freq) == 0);
}

static int take_other(struct reading *r, int shard, const struct safetensor *t)
{
    struct hf_source *s = r->s;
    char name[NAME_SHOWN];
    text_printable(name, sizeof name, t->name);
    if (s->shape.tied && strcmp(t->name, "lm_head.weight") == 0) {
        r->tied_head = (struct hf_place){.shard = shard, .offset = t->offset};
        if (safetensor_dtype(t, &r->tied_head.dtype) == 0 && t->ndim == 2 &&
            t->shape[0] == s->shape.vocab && t->shape[1] == s->shape.hidden)
            return 0;
        return err_set(r->err, ERR_INPUT,
                       "%s: tensor \"%s\": tie_word_embeddings is true, but it is not "
                       "of the shape and type of model.embed_tokens.weight",
                       s->shard[shard], name);
    }
    if (!droppable(t) && !r->ignore_extra)
        return err_set(r->err, ERR_INPUT,
                       "%s: tensor \"%s\" does not belong to a %s of %d layers%s "
                       "(--ignore-extra drops such tensors)",
                       s->shard[shard], name, arch_name(s->shape.arch), s->shape.layers,
                       s->shape.tied ? " with tied embeddings" : "");
    if (r->dropped++ == 0)
        memcpy(r->first_dropped, name, sizeof name);
    return 0;
}

static int wrong_shape(const struct reading *r, int shard, const struct safetensor *f,
                       const struct tensor *t)
{
    char found[128] = "[";
    size_t used = 1;
    for (int i = 0; i < f->ndim; i++)
        used += (size_t)snprintf(found + used, sizeof found - used, "%s%lld",
                                 i ? ", " : "", (long long)f->shape[i]);
    char expected[64];
    if (t->ndim == 1)
        snprintf(expected, sizeof expected, "[%lld]", (long long)t->rows);
    else
        snprintf(expected, sizeof expected, "[%lld, %lld]", (long long)t->rows,
                 (long long)t->cols);
    return err_set(r->err, ERR_INPUT,
                   "%s: tensor \"%s\": expected shape %s by config.json, found %s]",
                   r->s->shard[shard], f->name, expected, found);
}

static int take_tensor(struct reading *r, int shard, const struct safetensor *f)
{
    struct hf_source *s = r->s;
    struct tensor t;
    if (table_find_hf(&s->shape, f->name, &t))
        return take_other(r, shard, f);
    struct hf_place *place = &s->place[t.index];
    if (place->shard >= 0)
        return err_set(r->err, ERR_INPUT, "tensor \"%s\" is in two shards, %s and %s",
                       f->name, s->shard[place->shard], s->shard[shard]);
    const char *listed = hf_index_file(r->index, f->name);
    const char *here = file_name(s->shard[shard]);
    if (r->index->map && (!listed || strcmp(listed, here) != 0))
        return err_set(r->err, ERR_INPUT,
                       "%s: weight_map: tensor \"%s\" is in %s, but the index says %s",
                       r->index->path, f->name, here,
                       listed ? listed : "nothing of it");
    if (safetensor_dtype(f, &place->dtype))
        return err_set(r->err, ERR_INPUT,
                       "%s: tensor \"%s\": expected dtype F32, BF16 or F16 for a "
                       "weight, found %s",
                       s->shard[shard], f->name, f->dtype);
    if (f->ndim != t.ndim || f->shape[0] != t.rows ||
        (t.ndim == 2 && f->shape[1] != t.cols))
        return wrong_shape(r, shard, f, &t);
    place->shard = shard;
    place->offset = f->offset;
    return 0;
}

static int read_shard(struct reading *r, int shard)
{
    struct safetensors f;
    if (safetensors_read(&f, r->s->shard[shard], r->err))
        return r->index->path ? err_prefix(r->err, "shard named by %s", r->index->path)
                              : -1;
    int rc = 0;
    for (int i = 0; i < f.n && rc == 0; i++) {
        rc = take_tensor(r, shard, &f.tensor[i]);
        if (rc == 0 &&
            json_object_set_new(r->seen, f.tensor[i].name, json_integer(shard)))
            rc = err_set(r->err, ERR_INPUT, "%s: a tensor's name is not valid UTF-8",
                         r->s->shard[shard]);
    }
    safetensors_fini(&f);
    return rc;
}

/* Whatever the index promises must be there, even what we would drop. */
static int check_listed(const struct reading *r)
{
    const char *name;
    json_t *file;
    if (!r->index->map)
        return 0;
    json_object_foreach(r->index->map, name, file)
    {
        const json_t *at = json_object_get(r->seen, name);
        const char *path = at ? r->s->shard[json_integer_value(at)] : NULL;
        char shown[NAME_SHOWN];
        if (!path || strcmp(file_name(path), json_string_value(file)) != 0)
            return err_set(
                r->err, ERR_INPUT,
                "%s: weight_map: tensor \"%s\" is not in %s, where the index "
                "says",
                r->index->path, text_printable(shown, sizeof shown, name),
                json_string_value(file));
    }
    return 0;
}

static int check_complete(const struct reading *r, const char *folder)
{
    const struct hf_source *s = r->s;
    int missing = 0;
    char first[LABEL_ROOM] = "";
    for (int i = s->tensors; i-- > 0;)
        if (s->place[i].shard < 0) {
            struct tensor t = table_at(&s->shape, i);
            tensor_hf_name(&t, first, sizeof first);
            missing++;
        }
    if (missing)
        return err_set(r->err, ERR_INPUT,
                       "%s: %d of %d tensors are missing, first \"%s\"", folder,
                       missing, s->tensors, first);
    return 0;
}

static int check_tied_head(const struct reading *r)
{
    const struct hf_source *s = r->s;
    if (r->tied_head.shard < 0)
        return 0;
    struct tensor t = table_find(&s->shape, ROLE_EMBED_TOKENS, -1);
    const struct hf_place *embed = &s->place[t.index];
    if (hf_tied_compare(s->shard[embed->shard], embed, s->shard[r->tied_head.shard],
                        &r->tied_head, t.elements, r->err))
        return -1;
    log_line(r->log, "import: lm_head.weight equals model.embed_tokens.weight and is "
                     "tied to it: not stored twice");
    return 0;
}

static int read_tensors(struct hf_source *s, const char *folder, bool ignore_extra,
                        const struct log *log, struct err *err)
{
    struct hf_index index;
    if (hf_index_read(&index, folder, err))
        return -1;
    struct reading r = {.s = s,
                        .index = &index,
                        .seen = json_object(),
                        .ignore_extra = ignore_extra,
                        .log = log,
                        .tied_head = {.shard = -1},
                        .err = err};
    s->shard = index.shard;
    s->shards = index.shards;
    index.shard = NULL;
    index.shards = 0;
    int rc = r.seen ? 0 : err_set(err, ERR_OTHER, "out of memory reading %s", folder);
    for (int i = 0; i < s->shards && rc == 0; i++)
        rc = read_shard(&r, i);
    if (rc == 0)
        rc = check_listed(&r);
    if (rc == 0)
        rc = check_complete(&r, folder);
    if (rc == 0)
        rc = check_tied_head(&r);
    if (rc == 0 && r.dropped)
        log_line(log,
                 "import: dropped %d tensor%s that %s not a weight of the model: %s%s",
                 r.dropped, r.dropped > 1 ? "s" : "", r.dropped > 1 ? "are" : "is",
                 r.first_dropped, r.dropped > 1 ? ", ..." : "");
    json_decref(r.seen);
    hf_index_fini(&index);
    return rc;
}

/* Reads those of the carried files that are there. */
static int read_files(struct hf_source *s, const char *folder, struct err *err)
{
    s->file = mem_array(CARRIED, sizeof *s->file, err);
    if (!s->file)
        return -1;
    for (int i = 0; i < CARRIED; i++) {
        struct ckpt_file f = {0};
        struct stat st;
        char *path = file_join(folder, carried[i], err);
        if (!path)
            return -1;
        bool found =
            stat(path, &st) == 0 || i == 0; /* without config.json: its error */
        if (found)
            f.data = (unsigned char *)file_read(path, FILE_BYTES_MAX, &f.bytes, err);
        free(path);
        if (!found)
            continue;
        f.name = f.data ? mem_printf(err, "%s", carried[i]) : NULL;
        s->file[s->files++] = f;
        if (!f.name)
            return -1;
    }
    return 0;
}

/* Tokens that the tokenizer's files list, but the model has no row for. */
static void warn_rowless(const struct hf_source *s, const struct added_tokens *added,
                         const struct log *log)
{
    char shown[NAME_SHOWN];
    if (added->n == added->all)
        return;
    const struct added_token *t = &added->token[added->n];
    log_warning(log,
                "import: added token \"%s\" has id %d, but vocab_size is %d: the model "
                "has no row for it%s, and dusk does not know it",
                text_printable(shown, sizeof shown, t->text), (int)t->id,
                s->shape.vocab, added->all - added->n > 1 ? " and others" : "");
}

static int check_tokenizer(const struct hf_source *s, const char *folder,
                           const struct log *log, struct err *err)
{
    const struct ckpt_file *f = NULL;
    struct added_tokens added;
    for (int i = 0; i < s->files; i++)
        if (strcmp(s->file[i].name, "tokenizer.model") == 0)
            f = &s->file[i];
    if (!f)
        return 0;
    int pieces = spm_model_pieces(f->data, f->bytes);
    if (added_tokens_read(&added, s->file, s->files, pieces, s->shape.vocab, err))
        return err_prefix(err, "%s", folder);
    char *path = file_join(folder, f->name, err);
    struct tokenizer *t = path ? tokenizer_create_added(f->data, f->bytes, added.token,
                                                        added.n, path, err)
                               : NULL;
    int rc = t ? 0 : -1;
    if (t && tokenizer_vocab(t) > s->shape.vocab)
        rc = err_set(err, ERR_INPUT,
                     "%s: %d pieces, more than config.json's vocab_size %d: they do "
                     "not belong together",
                     path, tokenizer_vocab(t), s->shape.vocab);
    if (rc == 0)
        warn_rowless(s, &added, log);
    added_tokens_fini(&added);
    tokenizer_destroy(t);
    free(path);
    return rc;
}

static int read_folder(struct hf_source *s, const char *folder, bool ignore_extra,
                       const struct log *log, struct err *err)
{
    struct stat st;
    if (stat(folder, &st))
        return err_set_errno(err, 1, "%s", folder);
    if (!S_ISDIR(st.st_mode))
        return err_set(err, ERR_INPUT,
                       "%s: expected a Hugging Face model folder, found a file",
                       folder);
    if (read_files(s, folder, err))
        return -1;
    char *where = file_join(folder, carried[0], err);
    int rc = where ? hf_config_read((char *)s->file[0].data, s->file[0].bytes, where,
                                    log, &s->shape, err)
                   : -1;
    free(where);
    if (rc || check_tokenizer(s, folder, log, err))
        return -1;
    s->tensors = table_count(&s->shape);
    s->place = mem_array(s->tensors, sizeof *s->place, err);
    if (!s->place)
        return -1;
    for (int i = 0; i < s->tensors; i++)
        s->place[i].shard = -1;
    return read_tensors(s, folder, ignore_extra, log, err);
}

int hf_source_read(struct hf_source *s, const char *folder, bool ignore_extra,
                   const struct log *log, struct err *err)
{
    *s = (struct hf_source){0};
    if (read_folder(s, folder, ignore_extra, log, err)) {
        hf_source_fini(s);
        return -1;
    }
    return 0;
}

int hf_source_share(struct comm *c, struct hf_source *s, struct err *err)
{
    bool root = comm_root(c);
    comm_bcast(c, &s->shape, sizeof s->shape, 0);
    comm_bcast(c, &s->shards, sizeof s->shards, 0);
    if (!root) {
        s->tensors = table_count(&s->shape);
        s->place = mem_array(s->tensors, sizeof *s->place, err);
        s->shard = s->place ? mem_array(s->shards, sizeof *s->shard, err) : NULL;
    }
    if (comm_agree(c, !s->shard, err))
        return -1;
    for (int i = 0; i < s->shards; i++)
        comm_bcast_string(c, &s->shard[i], 0);
    comm_bcast(c, s->place, (size_t)s->tensors * sizeof *s->place, 0);
    return 0;
}

void hf_source_fini(struct hf_source *s)
{
    for (int i = 0; i < s->files; i++) {
        free(s->file[i].name);
        free(s->file[i].data);
    }
    for (int i = 0; s->shard && i < s->shards; i++)
        free(s->shard[i]);
    mem_free(s->file);
    mem_free(s->shard);
    mem_free(s->place);
    *s = (struct hf_source){0};
}
