/* SPDX-License-Identifier: Apache-2.0 */
#include "io/token_ids.h"

#include <stdlib.h>

int token_ids_reserve(struct token_ids *ids, size_t n)
{
    int64_t need = ids->n + (int64_t)n, room = need + need / 2 + 64;
    if (need <= ids->room)
        return 0;
    int32_t *id = realloc(ids->id, (size_t)room * sizeof *id);
    if (!id)
        return -1;
    ids->id = id;
    ids->room = room;
    return 0;
}

int token_ids_push(struct token_ids *ids, int32_t id, struct err *err)
{
    if (token_ids_reserve(ids, 1))
        return err_set(err, ERR_OTHER, "memory: none left for token ids");
    ids->id[ids->n++] = id;
    return 0;
}

void spanned_ids_fini(struct spanned_ids *ids)
{
    free(ids->id);
    free(ids->span);
    *ids = (struct spanned_ids){0};
}

int spanned_ids_reserve(struct spanned_ids *ids, size_t n)
{
    int64_t need = ids->n + (int64_t)n, room = need + need / 2 + 64;
    if (need <= ids->room)
        return 0;
    int32_t *id = realloc(ids->id, (size_t)room * sizeof *id);
    if (!id)
        return -1;
    ids->id = id;
    struct text_span *span = realloc(ids->span, (size_t)room * sizeof *span);
    if (!span)
        return -1;
    ids->span = span;
    ids->room = room;
    return 0;
}

int spanned_ids_push(struct spanned_ids *ids, int32_t id, struct text_span span,
                     struct err *err)
{
    if (spanned_ids_reserve(ids, 1))
        return err_set(err, ERR_OTHER, "memory: none left for token ids");
    ids->id[ids->n] = id;
    ids->span[ids->n++] = span;
    return 0;
}
