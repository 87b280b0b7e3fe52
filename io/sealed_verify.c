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
    int share, shares;  /* of the runs, every shares-th */
    void (*bad)(void *context, const struct err *what);
    void (*at)(void *context, int64_t bytes_done);
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

/* The number of damaged blocks in this share of all runs. */
static int64_t check_runs(struct check *c)
{
    const struct sealed_table *t = sealed_table_of(c->s);
    const int64_t most = (int64_t)RUN_BLOCKS * SEALED_BLOCK_BYTES;
    int64_t damaged = 0, done = 0, run = 0;
    for (int i = 0; i < t->arrays; i++) {
        const struct sealed_place *p = &t->place[i];
        for (int64_t layer = 0; p->bytes && layer < p->layers; layer++)
            for (int64_t begin = 0, n; begin < p->layer_bytes; begin += n) {
                n = p->layer_bytes - begin < most ? p->layer_bytes - begin : most;
                if (run++ % c->shares == c->share)
                    damaged += check_run(c, i, layer, begin, (size_t)n);
                done += n;
                if (c->at)
                    c->at(c->context, done);
            }
    }
    return damaged;
}

int64_t sealed_verify(struct sealed *s,
                      void (*bad)(void *context, const struct err *what),
                      void (*at)(void *context, int64_t bytes_done), void *context,
                      struct err *err)
{
    struct check c = {.s = s, .shares = 1, .bad = bad, .at = at, .context = context};
    c.run = mem_array((int64_t)RUN_BLOCKS * SEALED_BLOCK_BYTES, 1, err);
    if (!c.run)
        return -1;
    int64_t damaged = check_runs(&c);
    mem_free(c.run);
    return damaged;
}

/* The first damage is the one that is told. */
static void keep_first(void *context, const struct err *what)
{
    struct err *err = context;
    if (err->code == ERR_NONE)
        *err = *what;
}

int sealed_check(struct comm *c, const char *path, struct err *err)
{
    struct sealed *s = sealed_open(c, path, err);
    if (!s)
        return -1;
    struct err first = {0};
    struct check share = {.s = s,
                          .share = comm_rank(c),
                          .shares = comm_size(c),
                          .bad = keep_first,
                          .context = &first};
    share.run = mem_array((int64_t)RUN_BLOCKS * SEALED_BLOCK_BYTES, 1, err);
    int failed = !share.run;
    if (!failed && check_runs(&share) > 0) {
        *err = first;
        failed = -1;
    }
    mem_free(share.run);
    sealed_close(s);
    return comm_agree(c, failed, err);
}
