/* SPDX-License-Identifier: Apache-2.0 */
#include "io/token_gather.h"

#include "io/sealed_fill.h"
#include "io/token_set.h"
#include "src/base/check.h"
#include "src/base/mem.h"
#include "src/base/rng.h"

#include <stdlib.h>

static const uint64_t valid_stream = 0x76616c6964u; /* "valid" */
enum { TRAIN, VALID, SETS };

static int set_of(const struct token_gather *g, int64_t document)
{
    return g->valid > 0 &&
                   rng_uniform(g->seed, valid_stream, (uint64_t)document) < g->valid
               ? VALID
               : TRAIN;
}

static int open_chunk(const struct token_gather *g, int64_t i, struct spill_reader *r,
                      char **path, struct err *err)
{
    *path = token_stage_spill_of(g->stage, (int)(i % g->ranks), err);
    if (!*path)
        return -1;
    if (spill_open_chunk(r, *path, g->id_bytes, &g->chunk[i], err)) {
        free(*path);
        return -1;
    }
    return 0;
}

static void close_chunk(struct spill_reader *r, char *path)
{
    spill_close_chunk(r);
    free(path);
}

/* What of chunk i goes to the validation set. */
static int count_valid(const struct token_gather *g, int64_t i,
                       struct token_totals *count, struct err *err)
{
    struct spill_reader r;
    char *path;
    if (open_chunk(g, i, &r, &path, err))
        return -1;
    for (int64_t k = 0; k < r.chunk.documents; k++)
        if (set_of(g, g->document[i] + k) == VALID) {
            count->documents++;
            count->ids += r.record[k].ids;
            count->text_bytes += r.record[k].text_bytes;
        }
    close_chunk(&r, path);
    return 0;
}

/* Each rank counts the chunks that it encoded. */
static int count_own(struct token_gather *g, struct comm *c, struct token_totals *valid,
                     struct err *err)
{
    int failed = 0;
    for (int64_t i = comm_rank(c); i < g->chunks && g->valid > 0 && !failed;
         i += g->ranks)
        failed = count_valid(g, i, &valid[i], err);
    if (comm_agree(c, failed, err))
        return -1;
    comm_sum_i64(c, (int64_t *)valid, g->chunks * (int64_t)(sizeof *valid / 8));
    return 0;
}

static void add(struct token_totals *to, struct token_totals a, struct token_totals b)
{
    to->documents = a.documents + b.documents;
    to->ids = a.ids + b.ids;
    to->text_bytes = a.text_bytes + b.text_bytes;
}

static void place_chunks(struct token_gather *g, const struct token_totals *valid)
{
    for (int64_t i = 0; i < g->chunks; i++) {
        const struct spill_chunk *k = &g->chunk[i];
        struct token_totals train = {k->documents - valid[i].documents,
                                     k->ids - valid[i].ids,
                                     k->text_bytes - valid[i].text_bytes};
        add(&g->before[TRAIN][i + 1], g->before[TRAIN][i], train);
        add(&g->before[VALID][i + 1], g->before[VALID][i], valid[i]);
    }
}

int token_gather_init(struct token_gather *g, struct comm *c,
                      const struct token_stage *stage, size_t id_bytes, int64_t chunks,
                      const struct spill_chunk *chunk, double valid, uint64_t seed,
                      struct err *err)
{
    *g = (struct token_gather){.stage = stage,
                               .id_bytes = id_bytes,
                               .ranks = comm_size(c),
                               .chunks = chunks,
                               .chunk = chunk,
                               .valid = valid,
                               .seed = seed};
    struct token_totals *count = mem_array(chunks, sizeof *count, err);
    int failed = !count || !(g->document = mem_array(chunks + 1, 8, err));
    for (int s = 0; s < SETS && !failed; s++)
        failed = !(g->before[s] = mem_array(chunks + 1, sizeof **g->before, err));
    if (comm_agree(c, failed, err))
        goto fail;
    for (int64_t i = 0; i < chunks; i++)
        g->document[i + 1] = g->document[i] + chunk[i].documents;
    if (count_own(g, c, count, err))
        goto fail;
    place_chunks(g, count);
    mem_free(count);
    return 0;
fail:
    mem_free(count);
    token_gather_fini(g);
    return -1;
}

void token_gather_fini(struct token_gather *g)
{
    mem_free(g->document);
    for (int s = 0; s < SETS; s++)
        mem_free(g->before[s]);
    *g = (struct token_gather){0};
}

struct token_totals token_gather_totals(const struct token_gather *g, int set)
{
    return g->before[set][g->chunks];
}

/* The last chunk with fewer than `value` before it, by a field of `before`. */
static int64_t chunk_with(const struct token_gather *g, int set, int64_t value,
                          bool ids)
{
    const struct token_totals *before = g->before[set];
    int64_t low = 0, high = g->chunks;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if ((ids ? before[middle].ids : before[middle].documents) <= value)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* ids [from, from + n) of a chunk's stream, which lie at `at` in the set: the part that
 * is still to come within this rank's share. */
static int copy_run(const struct spill_reader *r, struct sealed_fill *f, int64_t at,
                    int64_t from, int64_t n, struct err *err)
{
    int64_t end = at + n;
    while (f->at < end && f->at < f->end) {
        CHECK(f->at >= at, "token %lld before %lld", (long long)f->at, (long long)at);
        int64_t part = end - f->at, room = sealed_fill_room(f);
        part = part < room ? part : room;
        if (spill_read_ids(r, from + f->at - at, part, sealed_fill_next(f), err) ||
            sealed_fill_advance(f, part, err))
            return -1;
    }
    return 0;
}

/* Documents of the set that follow one another in the chunk are copied as one run. */
static int copy_chunk_ids(const struct token_gather *g, int set, int64_t i,
                          struct sealed_fill *f, struct err *err)
{
    struct spill_reader r;
    char *path;
    int64_t at = g->before[set][i].ids, from = 0, run = 0;
    int failed = 0;
    if (open_chunk(g, i, &r, &path, err))
        return -1;
    for (int64_t k = 0; k < r.chunk.documents && !failed && at < f->end; k++) {
        int64_t ids = r.record[k].ids;
        if (set_of(g, g->document[i] + k) == set) {
            run += ids;
            continue;
        }
        failed = copy_run(&r, f, at, from, run, err);
        at += run;
        from += run + ids;
        run = 0;
    }
    failed = failed || copy_run(&r, f, at, from, run, err);
    close_chunk(&r, path);
    return failed;
}

static int copy_chunk_ends(const struct token_gather *g, int set, int64_t i,
                           struct sealed_fill *f, struct err *err)
{
    struct spill_reader r;
    char *path;
    int64_t end = g->before[set][i].ids, document = g->before[set][i].documents;
    int failed = 0;
    if (open_chunk(g, i, &r, &path, err))
        return -1;
    for (int64_t k = 0; k < r.chunk.documents && !failed && f->at < f->end; k++) {
        if (set_of(g, g->document[i] + k) != set)
            continue;
        end += r.record[k].ids;
        if (document++ < f->at)
            continue;
        *(int64_t *)sealed_fill_next(f) = end;
        failed = sealed_fill_advance(f, 1, err);
    }
    close_chunk(&r, path);
    return failed;
}

int token_gather_write(const struct token_gather *g, int set, int rank,
                       struct sealed_writer *w, struct err *err)
{
    struct token_totals all = token_gather_totals(g, set);
    struct sealed_fill f;
    int failed;
    if (sealed_fill_init(&f, w, TOKEN_SET_TOKENS, all.ids, g->id_bytes, rank, g->ranks,
                         err))
        return -1;
    failed = 0;
    for (int64_t i = chunk_with(g, set, f.at, true); f.at < f.end && !failed; i++)
        failed = copy_chunk_ids(g, set, i, &f, err);
    sealed_fill_fini(&f);
    if (failed || sealed_fill_init(&f, w, TOKEN_SET_DOCUMENT_ENDS, all.documents, 8,
                                   rank, g->ranks, err))
        return -1;
    for (int64_t i = chunk_with(g, set, f.at, false); f.at < f.end && !failed; i++)
        failed = copy_chunk_ends(g, set, i, &f, err);
    sealed_fill_fini(&f);
    return failed;
}
