/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TOKEN_IDS_H
#define DUSK_IO_TOKEN_IDS_H

/* Lists of token ids that grow. All local. */

#include <stddef.h>
#include <stdint.h>

#include "src/base/err.h"
#include "src/base/record.h"

struct token_ids {
    int32_t *id;
    int64_t n, room;
}; /* {0} is empty; id is owned by the caller (free) */

int token_ids_push(struct token_ids *ids, int32_t id, struct err *err);
int token_ids_reserve(struct token_ids *ids, size_t n); /* n more; -1: no memory */

/* Ids with the bytes of the text that each stands for. */
struct spanned_ids {
    int32_t *id;
    struct text_span *span;
    int64_t n, room;
}; /* {0} is empty; owned by the caller */

void spanned_ids_fini(struct spanned_ids *ids);
int spanned_ids_push(struct spanned_ids *ids, int32_t id, struct text_span span,
                     struct err *err);
int spanned_ids_reserve(struct spanned_ids *ids, size_t n); /* n more; -1: no memory */

#endif
