/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sealed_parts.h"

#include "src/base/mem.h"

int64_t sealed_data_bytes(const struct sealed *s)
{
    const struct sealed_table *t = sealed_table_of(s);
    int64_t bytes = 0;
    for (int i = 0; i < t->arrays; i++)
        bytes += t->place[i].bytes;
    return bytes;
}

int64_t sealed_verify(struct sealed *s,
                      void (*bad)(void *context, const struct err *what),
                      void (*at)(void *context, int64_t bytes_done), void *context,
                      struct err *err)
{
    const struct sealed_table *t = sealed_table_of(s);
    int64_t damaged = 0, done = 0;
    void *block = mem_array(SEALED_BLOCK_BYTES, 1, err);
    if (!block)
        return -1;
    for (int i = 0; i < t->arrays; i++) {
        const struct sealed_place *p = &t->place[i];
        for (int64_t b = 0; b < p->blocks; b++) {
            int64_t begin = b % p->layer_blocks * SEALED_BLOCK_BYTES;
            int64_t left = p->layer_bytes - begin;
            size_t n = left < SEALED_BLOCK_BYTES ? (size_t)left : SEALED_BLOCK_BYTES;
            struct err what;
            if (sealed_read(s, i, b / p->layer_blocks, begin, block, n, &what) < 0) {
                damaged++;
                if (bad)
                    bad(context, &what);
            }
            done += (int64_t)n;
            if (at)
                at(context, done);
        }
    }
    mem_free(block);
    return damaged;
}
