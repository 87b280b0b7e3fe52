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

enum { RUN_BLOCKS = 16 };

struct check {
    struct sealed *s;
    unsigned char *run; /* RUN_BLOCKS blocks */
    void (*bad)(void *context, const struct err *what);
    void *context;
};

/* Up to RUN_BLOCKS blocks of one layer at once; one by one if something is wrong, to
 * name each. The number of damaged ones. */
static int64_t check_run(struct check *c, int array, int64_t layer, int64_t begin,
                         size_t bytes)
{
    struct err what;
    if (sealed_read(c->s, array, layer, begin, c->run, bytes, &what) == 0)
        return 0;
    int64_t damaged = 0;
    for (size_t done = 0, n; done < bytes; done += n) {
        n = bytes - done < SEALED_BLOCK_BYTES ? bytes - done : SEALED_BLOCK_BYTES;
        if (sealed_read(c->s, array, layer, begin + (int64_t)done, c->run, n, &what) ==
            0)
            continue;
        damaged++;
        if (c->bad)
            c->bad(c->context, &what);
    }
    return damaged;
}

int64_t sealed_verify(struct sealed *s,
                      void (*bad)(void *context, const struct err *what),
                      void (*at)(void *context, int64_t bytes_done), void *context,
                      struct err *err)
{
    const struct sealed_table *t = sealed_table_of(s);
    const int64_t most = (int64_t)RUN_BLOCKS * SEALED_BLOCK_BYTES;
    struct check c = {.s = s, .bad = bad, .context = context};
    int64_t damaged = 0, done = 0;
    c.run = mem_array(most, 1, err);
    if (!c.run)
        return -1;
    for (int i = 0; i < t->arrays; i++) {
        const struct sealed_place *p = &t->place[i];
        for (int64_t layer = 0; p->bytes && layer < p->layers; layer++)
            for (int64_t begin = 0, n; begin < p->layer_bytes; begin += n) {
                n = p->layer_bytes - begin < most ? p->layer_bytes - begin : most;
                damaged += check_run(&c, i, layer, begin, (size_t)n);
                done += n;
                if (at)
                    at(context, done);
            }
    }
    mem_free(c.run);
    return damaged;
}
