/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sealed_fill.h"

#include "src/base/mem.h"

enum { BUFFER_BYTES = 16 * SEALED_BLOCK_BYTES };

int sealed_fill_init(struct sealed_fill *f, struct sealed_writer *to, int array,
                     int64_t elements, size_t element_bytes, int rank, int ranks,
                     struct err *err)
{
    int64_t block = SEALED_BLOCK_BYTES / (int64_t)element_bytes;
    int64_t blocks = (elements + block - 1) / block;
    int64_t first = blocks * rank / ranks * block;
    int64_t last = blocks * (rank + 1) / ranks * block;
    *f = (struct sealed_fill){.to = to,
                              .array = array,
                              .at = first,
                              .start = first,
                              .end = last < elements ? last : elements,
                              .element_bytes = element_bytes};
    f->buffer = mem_array(BUFFER_BYTES, 1, err);
    return f->buffer ? 0 : -1;
}

void sealed_fill_fini(struct sealed_fill *f)
{
    mem_free(f->buffer);
    f->buffer = NULL;
}

int64_t sealed_fill_room(const struct sealed_fill *f)
{
    int64_t held = f->at - f->start, left = f->end - f->at;
    int64_t room = BUFFER_BYTES / (int64_t)f->element_bytes - held;
    return room < left ? room : left;
}

void *sealed_fill_next(const struct sealed_fill *f)
{
    return f->buffer + (size_t)(f->at - f->start) * f->element_bytes;
}

int sealed_fill_advance(struct sealed_fill *f, int64_t n, struct err *err)
{
    f->at += n;
    if (f->at < f->end && sealed_fill_room(f) > 0)
        return 0;
    if (sealed_write(f->to, f->array, 0, f->start * (int64_t)f->element_bytes,
                     f->buffer, (size_t)(f->at - f->start) * f->element_bytes, err))
        return -1;
    f->start = f->at;
    return 0;
}
