/* SPDX-License-Identifier: Apache-2.0 */
#include "io/record_gather.h"

#include "io/sealed_fill.h"
#include "io/token_set.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { NARROW_VOCAB = 32768, PIECE = 8192, FILES = 64 };

size_t record_value_bytes(int vocab)
{
    return vocab <= NARROW_VOCAB ? 2 : 4;
}

/* Lengths of the parts of the chunks that this rank encoded. */
static int read_lengths(struct record_gather *g, int64_t i, struct err *err)
{
    struct spill_reader r;
    int32_t *length = g->length + g->first[i] * g->parts;
    if (spill_open_chunk(&r, g->stage->spill, record_value_bytes(g->vocab),
                         &g->chunk[i], err))
        return -1;
    for (int64_t k = 0; k < r.chunk.documents; k++)
        length[k] = (int32_t)r.record[k].ids;
    spill_close_chunk(&r);
    return 0;
}

static int64_t tokens_of(const struct record_gather *g, int64_t record)
{
    int64_t n = 0;
    for (int p = 0; p < g->parts; p++)
        n += g->length[record * g->parts + p];
    return n;
}

static void place_records(struct record_gather *g)
{
    int64_t value = (int64_t)record_value_bytes(g->vocab);
    for (int64_t i = 0; i < g->chunks; i++) {
        int64_t at = g->chunk[i].ids_at;
        for (int64_t r = g->first[i]; r < g->first[i + 1]; r++) {
            g->at[r] = at;
            at += value * tokens_of(g, r);
        }
        g->tokens += g->chunk[i].ids;
    }
}

int record_gather_init(struct record_gather *g, struct comm *c,
                       const struct token_stage *stage, int vocab, int parts,
                       int64_t chunks, const struct spill_chunk *chunk, struct err *err)
{
    *g = (struct record_gather){.stage = stage,
                                .ranks = comm_size(c),
                                .parts = parts,
                                .vocab = vocab,
                                .chunks = chunks,
                                .chunk = chunk};
    int failed = !(g->first = mem_array(chunks + 1, sizeof *g->first, err));
    for (int64_t i = 0; i < chunks && !failed; i++)
        g->first[i + 1] = g->first[i] + chunk[i].documents / parts;
    g->records = failed ? 0 : g->first[chunks];
    failed = failed ||
             !(g->length = mem_array(g->records * parts, sizeof *g->length, err)) ||
             !(g->at = mem_array(g->records, sizeof *g->at, err));
    for (int64_t i = comm_rank(c); i < chunks && !failed; i += g->ranks)
        failed = read_lengths(g, i, err);
    if (comm_agree(c, failed, err)) {
        record_gather_fini(g);
        return -1;
    }
    for (int64_t i = 0; i < chunks; i++)
        comm_bcast(c, g->length + g->first[i] * parts,
                   (size_t)chunk[i].documents * sizeof *g->length, (int)(i % g->ranks));
    place_records(g);
    return 0;
}

void record_gather_fini(struct record_gather *g)
{
    mem_free(g->first);
    mem_free(g->length);
    mem_free(g->at);
    *g = (struct record_gather){0};
}

/* The spill files that are open: rank r's in place r modulo FILES. */
struct files {
    const struct record_gather *g;
    struct {
        int fd, rank;
        char *path; /* owned */
    } file[FILES];
};

static void files_close(struct files *f, int i)
{
    if (f->file[i].path)
        close(f->file[i].fd);
    free(f->file[i].path);
    f->file[i].path = NULL;
}

static int files_open(struct files *f, int rank, struct err *err)
{
    int i = rank % FILES;
    if (f->file[i].path && f->file[i].rank == rank)
        return 0;
    files_close(f, i);
    char *path = token_stage_spill_of(f->g->stage, rank, err);
    if (!path)
        return -1;
    f->file[i].fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->file[i].fd < 0) {
        err_set_errno(err, 0, "%s: cannot open", path);
        free(path);
        return -1;
    }
    f->file[i].path = path;
    f->file[i].rank = rank;
    return 0;
}

static int64_t chunk_of(const struct record_gather *g, int64_t record)
{
    int64_t low = 0, high = g->chunks;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (g->first[middle] <= record)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* What of a number an array holds. */
enum what { WHAT_ID, WHAT_COUNTED };

static void put(const struct sealed_fill *f, enum what what, const uint32_t *value,
                int64_t n)
{
    void *to = sealed_fill_next(f);
    for (int64_t i = 0; i < n; i++)
        if (what == WHAT_COUNTED)
            ((uint8_t *)to)[i] = value[i] & 1;
        else if (f->element_bytes == 2)
            ((uint16_t *)to)[i] = (uint16_t)(value[i] >> 1);
        else
            ((uint32_t *)to)[i] = value[i] >> 1;
}

static int read_values(struct files *files, int64_t record, int64_t from, int64_t n,
                       uint32_t *value, struct err *err)
{
    const struct record_gather *g = files->g;
    size_t bytes = record_value_bytes(g->vocab);
    int rank = (int)(chunk_of(g, record) % g->ranks), i = rank % FILES;
    uint16_t narrow[PIECE];
    if (files_open(files, rank, err))
        return -1;
    void *to = bytes == 2 ? (void *)narrow : value;
    if (file_pread(files->file[i].fd, files->file[i].path, to, (size_t)n * bytes,
                   g->at[record] + from * (int64_t)bytes, err))
        return -1;
    for (int64_t k = 0; k < n && bytes == 2; k++)
        value[k] = narrow[k];
    return 0;
}

/* The part of a record, which lies at `at` in the set, that is still to come within
 * this rank's share. */
static int copy_record(struct files *files, int64_t record, int64_t at, int64_t end,
                       enum what what, struct sealed_fill *f, struct err *err)
{
    uint32_t value[PIECE];
    while (f->at < end && f->at < f->end) {
        int64_t n = end - f->at, room = sealed_fill_room(f);
        n = n < room ? n : room;
        n = n < PIECE ? n : PIECE;
        if (read_values(files, record, f->at - at, n, value, err))
            return -1;
        put(f, what, value, n);
        if (sealed_fill_advance(f, n, err))
            return -1;
    }
    return 0;
}

static int write_tokens(struct files *files, const int32_t *order, enum what what,
                        struct sealed_fill *f, struct err *err)
{
    const struct record_gather *g = files->g;
    int64_t at = 0;
    for (int64_t k = 0; k < g->records && f->at < f->end; k++) {
        int64_t record = order ? order[k] : k, n = tokens_of(g, record);
        if (copy_record(files, record, at, at + n, what, f, err))
            return -1;
        at += n;
    }
    return 0;
}

static int write_ends(const struct record_gather *g, const int32_t *order,
                      struct sealed_fill *f, struct err *err)
{
    int64_t at = 0;
    for (int64_t i = 0; i < g->records * g->parts && f->at < f->end; i++) {
        int64_t k = i / g->parts, record = order ? order[k] : k;
        at += g->length[record * g->parts + i % g->parts];
        if (i < f->at)
            continue;
        *(int64_t *)sealed_fill_next(f) = at;
        if (sealed_fill_advance(f, 1, err))
            return -1;
    }
    return 0;
}

static int write_pack_ends(const int32_t *pack_end, struct sealed_fill *f,
                           struct err *err)
{
    while (f->at < f->end) {
        *(int64_t *)sealed_fill_next(f) = pack_end[f->at];
        if (sealed_fill_advance(f, 1, err))
            return -1;
    }
    return 0;
}

int record_gather_write(const struct record_gather *g, const int32_t *order,
                        const int32_t *pack_end, int64_t packs, int rank,
                        struct sealed_writer *w, struct err *err)
{
    const struct {
        int array;
        int64_t elements;
        size_t bytes;
    } row[] = {{RECORD_SET_TOKENS, g->tokens, token_set_id_bytes(g->vocab)},
               {RECORD_SET_COUNTED, g->tokens, 1},
               {RECORD_SET_ENDS, g->records * g->parts, 8},
               {RECORD_SET_PACK_ENDS, packs, 8}};
    struct files files = {.g = g};
    int failed = 0;
    for (int i = 0; i < (packs ? 4 : 3) && !failed; i++) {
        struct sealed_fill f;
        failed = sealed_fill_init(&f, w, row[i].array, row[i].elements, row[i].bytes,
                                  rank, g->ranks, err);
        if (!failed && i < 2)
            failed = write_tokens(&files, order, i ? WHAT_COUNTED : WHAT_ID, &f, err);
        else if (!failed && i == 2)
            failed = write_ends(g, order, &f, err);
        else if (!failed)
            failed = write_pack_ends(pack_end, &f, err);
        sealed_fill_fini(&f);
    }
    for (int i = 0; i < FILES; i++)
        files_close(&files, i);
    return failed ? -1 : 0;
}
