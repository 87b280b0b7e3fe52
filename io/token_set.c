/* SPDX-License-Identifier: Apache-2.0 */
#include "io/token_set.h"

#include "src/base/check.h"
#include "src/base/mem.h"

#include <stdlib.h>
#include <string.h>

static const char format_name[] = "dusk token set";
enum { VERSION = 1, U16_VOCAB = 65536, PIECE_IDS = 8192 };

struct token_set {
    struct sealed *file; /* owned */
    char *path;
    struct token_set_info info;
    int tokens, ends; /* arrays of the file */
};

size_t token_set_id_bytes(int vocab)
{
    return vocab <= U16_VOCAB ? 2 : 4;
}

struct sealed_writer *token_set_create(struct comm *c, const char *path, bool replace,
                                       const struct token_set_info *info,
                                       struct err *err)
{
    bool narrow = token_set_id_bytes(info->vocab) == 2;
    const struct sealed_array arrays[] = {
        [TOKEN_SET_TOKENS] = {.path = "/tokens",
                              .type = narrow ? SEALED_U16 : SEALED_U32,
                              .dims = 1,
                              .dim = {info->tokens}},
        [TOKEN_SET_DOCUMENT_ENDS] = {.path = "/document_ends",
                                     .type = SEALED_I64,
                                     .dims = 1,
                                     .dim = {info->documents}},
    };
    const struct sealed_attr attrs[] = {
        {.group = "/", .name = "format", .kind = SEALED_STRING, .s = format_name},
        {.group = "/", .name = "version", .kind = SEALED_INT, .i = VERSION},
        {.group = "/", .name = "vocab", .kind = SEALED_INT, .i = info->vocab},
        {.group = "/",
         .name = "tokenizer",
         .kind = SEALED_STRING,
         .s = info->tokenizer},
        {.group = "/", .name = "bos", .kind = SEALED_INT, .i = info->bos},
        {.group = "/", .name = "eos", .kind = SEALED_INT, .i = info->eos},
        {.group = "/", .name = "tokens", .kind = SEALED_INT, .i = info->tokens},
        {.group = "/", .name = "documents", .kind = SEALED_INT, .i = info->documents},
        {.group = "/",
         .name = "source_bytes",
         .kind = SEALED_INT,
         .i = info->source_bytes},
        {.group = "/", .name = "source", .kind = SEALED_STRING, .s = info->source},
        {.group = "/", .name = "document", .kind = SEALED_STRING, .s = info->document},
    };
    return sealed_create(c, path, replace, arrays, sizeof arrays / sizeof *arrays,
                         attrs, sizeof attrs / sizeof *attrs, err);
}

static int attr_int(const struct token_set *t, const char *name, int64_t min,
                    int64_t max, int64_t *value, struct err *err)
{
    const struct sealed_attr *a = sealed_attr_find(t->file, "/", name);
    if (!a || a->kind != SEALED_INT)
        return err_set(err, ERR_INPUT, "%s: not a token set: no number \"%s\" in it",
                       t->path, name);
    if (a->i < min || a->i > max)
        return err_set(err, ERR_INPUT, "%s: %s: expected %lld to %lld, found %lld",
                       t->path, name, (long long)min, (long long)max, (long long)a->i);
    *value = a->i;
    return 0;
}

/* Borrowed from the file; NULL with err set. */
static const char *attr_string(const struct token_set *t, const char *name,
                               struct err *err)
{
    const struct sealed_attr *a = sealed_attr_find(t->file, "/", name);
    if (a && a->kind == SEALED_STRING)
        return a->s;
    err_set(err, ERR_INPUT, "%s: not a token set: no text \"%s\" in it", t->path, name);
    return NULL;
}

static int copy_string(char **to, const char *from, struct err *err)
{
    *to = mem_printf(err, "%s", from);
    return *to ? 0 : -1;
}

static int read_info(struct token_set *t, struct err *err)
{
    struct token_set_info *info = &t->info;
    const char *format = attr_string(t, "format", err), *tokenizer, *source, *document;
    int64_t version = 0, vocab = 0, bos = 0, eos = 0;
    if (!format)
        return -1;
    if (strcmp(format, format_name) != 0)
        return err_set(err, ERR_INPUT, "%s: expected a token set, found a %s", t->path,
                       format);
    if (attr_int(t, "version", VERSION, VERSION, &version, err) ||
        attr_int(t, "vocab", 1, INT32_MAX, &vocab, err) ||
        attr_int(t, "bos", 0, 1, &bos, err) || attr_int(t, "eos", 0, 1, &eos, err) ||
        attr_int(t, "tokens", 1, INT64_MAX / 8, &info->tokens, err) ||
        attr_int(t, "documents", 1, INT64_MAX / 8, &info->documents, err) ||
        attr_int(t, "source_bytes", 0, INT64_MAX, &info->source_bytes, err) ||
        !(tokenizer = attr_string(t, "tokenizer", err)) ||
        !(source = attr_string(t, "source", err)) ||
        !(document = attr_string(t, "document", err)))
        return -1;
    if (strlen(tokenizer) >= sizeof info->tokenizer)
        return err_set(err, ERR_INPUT, "%s: tokenizer: expected 32 hex digits",
                       t->path);
    memcpy(info->tokenizer, tokenizer, strlen(tokenizer) + 1);
    info->vocab = (int)vocab;
    info->bos = bos;
    info->eos = eos;
    return copy_string(&info->source, source, err) ||
                   copy_string(&info->document, document, err)
               ? -1
               : 0;
}

static int find_array(const struct token_set *t, const char *path,
                      enum sealed_type type, int64_t n, int *index, struct err *err)
{
    *index = sealed_find(t->file, path);
    const struct sealed_array *a = *index < 0 ? NULL : sealed_array_at(t->file, *index);
    if (!a || a->type != type || a->dims != 1 || a->dim[0] != n || a->stacked)
        return err_set(err, ERR_INPUT,
                       "%s: expected an array %s of %lld %zu-byte numbers", t->path,
                       path, (long long)n, sealed_type_bytes(type));
    return 0;
}

/* All ranks were sent the same table and attributes, so they decide alike. */
static int check_file(struct token_set *t, struct err *err)
{
    if (read_info(t, err))
        return -1;
    enum sealed_type id =
        token_set_id_bytes(t->info.vocab) == 2 ? SEALED_U16 : SEALED_U32;
    return find_array(t, "/tokens", id, t->info.tokens, &t->tokens, err) ||
                   find_array(t, "/document_ends", SEALED_I64, t->info.documents,
                              &t->ends, err)
               ? -1
               : 0;
}

struct token_set *token_set_open(struct comm *c, const char *path, struct err *err)
{
    struct token_set *t = mem_array(1, sizeof *t, err);
    int failed = !t || copy_string(&t->path, path, err);
    if (comm_agree(c, failed, err))
        goto fail;
    t->file = sealed_open(c, path, err);
    if (!t->file)
        goto fail;
    if (comm_agree(c, check_file(t, err), err))
        goto fail;
    return t;
fail:
    token_set_close(t);
    return NULL;
}

void token_set_close(struct token_set *t)
{
    if (!t)
        return;
    if (t->file)
        sealed_close(t->file);
    free(t->path);
    free(t->info.source);
    free(t->info.document);
    mem_free(t);
}

const struct token_set_info *token_set_info(const struct token_set *t)
{
    return &t->info;
}

uint64_t token_set_identity(const struct token_set *t)
{
    return sealed_identity(t->file);
}

static int check_ids(const struct token_set *t, int64_t begin, int64_t n,
                     const int32_t *ids, struct err *err)
{
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= t->info.vocab)
            return err_set(err, ERR_INPUT,
                           "%s: token %lld: expected an id below %d, found %u", t->path,
                           (long long)(begin + i), t->info.vocab, (unsigned)ids[i]);
    return 0;
}

int token_set_read(struct token_set *t, int64_t begin, int64_t n, int32_t *ids,
                   struct err *err)
{
    CHECK(begin >= 0 && n >= 0 && n <= t->info.tokens - begin,
          "tokens %lld + %lld of %lld", (long long)begin, (long long)n,
          (long long)t->info.tokens);
    if (token_set_id_bytes(t->info.vocab) == 4)
        return sealed_read_any(t->file, t->tokens, 4 * begin, ids, (size_t)n * 4,
                               err) ||
                       check_ids(t, begin, n, ids, err)
                   ? -1
                   : 0;
    uint16_t piece[PIECE_IDS];
    for (int64_t i = 0; i < n; i += PIECE_IDS) {
        int64_t part = n - i < PIECE_IDS ? n - i : PIECE_IDS;
        if (sealed_read_any(t->file, t->tokens, 2 * (begin + i), piece,
                            (size_t)part * 2, err))
            return -1;
        for (int64_t k = 0; k < part; k++)
            ids[i + k] = piece[k];
    }
    return check_ids(t, begin, n, ids, err);
}

int token_set_document_ends(struct token_set *t, int64_t first, int64_t n,
                            int64_t *ends, struct err *err)
{
    CHECK(first >= 0 && n >= 0 && n <= t->info.documents - first,
          "documents %lld + %lld of %lld", (long long)first, (long long)n,
          (long long)t->info.documents);
    if (sealed_read_any(t->file, t->ends, 8 * first, ends, (size_t)n * 8, err))
        return -1;
    for (int64_t i = 0; i < n; i++)
        if (ends[i] < (i ? ends[i - 1] : 0) || ends[i] > t->info.tokens)
            return err_set(err, ERR_INPUT,
                           "%s: document %lld: expected its end within %lld tokens and "
                           "not before the last one's, found %lld",
                           t->path, (long long)(first + i), (long long)t->info.tokens,
                           (long long)ends[i]);
    return 0;
}
