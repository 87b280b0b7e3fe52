/* SPDX-License-Identifier: Apache-2.0 */
#include "io/record_set_parts.h"

#include "io/token_set.h"
#include "src/base/check.h"

#include <stdlib.h>

enum { PIECE_IDS = 8192, PIECE_RECORDS = 128, MAX_PARTS = 3 };

void record_tokens_fini(struct record_tokens *t)
{
    free(t->id);
    free(t->counted);
    free(t->end);
    *t = (struct record_tokens){0};
}

static int grow(void **list, int64_t n, size_t bytes, struct err *err)
{
    void *grown = realloc(*list, (size_t)n * bytes);
    if (!grown)
        return err_set(err, ERR_OTHER, "memory: none left for a run of %lld tokens",
                       (long long)n);
    *list = grown;
    return 0;
}

int record_tokens_reserve(struct record_tokens *t, int64_t tokens, int64_t parts,
                          struct err *err)
{
    if (tokens > t->room) {
        void *id = t->id, *counted = t->counted;
        int failed = grow(&id, tokens, sizeof *t->id, err);
        failed = failed || grow(&counted, tokens, sizeof *t->counted, err);
        t->id = id;
        t->counted = counted;
        if (failed)
            return -1;
        t->room = tokens;
    }
    if (parts > t->part_room) {
        void *end = t->end;
        if (grow(&end, parts, sizeof *t->end, err))
            return -1;
        t->end = end;
        t->part_room = parts;
    }
    return 0;
}

/* Are the parts of a record, from `begin` to end[parts], in order and no longer than
 * the set says? */
static int check_record(const struct record_set *s, int64_t record, int64_t begin,
                        const int64_t *end, struct err *err)
{
    const struct record_set_info *info = &s->info;
    int parts = record_set_parts(info->kind);
    for (int p = 0; p < parts; p++) {
        int64_t low = (p ? end[p - 1] : begin) + (p > 0 || parts == 1);
        if (end[p] < low || end[p] > info->tokens)
            return err_set(err, ERR_INPUT,
                           "%s: %s %lld: expected part %d to end at a token from %lld "
                           "to %lld, found %lld",
                           s->path, parts == 1 ? "record" : "pair", (long long)record,
                           p, (long long)low, (long long)info->tokens,
                           (long long)end[p]);
    }
    int64_t row = end[parts - 1] - begin, branch = row;
    if (parts == MAX_PARTS) {
        int64_t chosen = end[1] - begin, rejected = row - (end[1] - end[0]);
        branch = chosen > rejected ? chosen : rejected;
    }
    if (row > info->longest_row || branch > info->longest)
        return err_set(err, ERR_INPUT,
                       "%s: %s %lld: expected at most %lld tokens (%lld in all), found "
                       "%lld (%lld)",
                       s->path, parts == 1 ? "record" : "pair", (long long)record,
                       (long long)info->longest, (long long)info->longest_row,
                       (long long)branch, (long long)row);
    return 0;
}

/* Ends of the parts of records [first, first + n), and where the first begins. */
static int read_ends(struct record_set *s, int64_t first, int64_t n, int64_t *begin,
                     int64_t *ends, struct err *err)
{
    const struct record_set_info *info = &s->info;
    int64_t parts = record_set_parts(info->kind);
    CHECK(first >= 0 && n >= 0 && n <= info->records - first,
          "records %lld + %lld of %lld", (long long)first, (long long)n,
          (long long)info->records);
    *begin = 0;
    if ((first > 0 &&
         sealed_read_any(s->file, s->ends, 8 * (first * parts - 1), begin, 8, err)) ||
        sealed_read_any(s->file, s->ends, 8 * first * parts, ends,
                        (size_t)(8 * n * parts), err))
        return -1;
    if (*begin < 0 || *begin > info->tokens || (first > 0 && *begin == 0))
        return err_set(err, ERR_INPUT,
                       "%s: record %lld: expected its end within %lld tokens, found "
                       "%lld",
                       s->path, (long long)first - 1, (long long)info->tokens,
                       (long long)*begin);
    for (int64_t i = 0; i < n; i++)
        if (check_record(s, first + i, i ? ends[i * parts - 1] : *begin,
                         ends + i * parts, err))
            return -1;
    if (n > 0 && first + n == info->records && ends[n * parts - 1] != info->tokens)
        return err_set(err, ERR_INPUT,
                       "%s: expected the last record to end at token %lld, found %lld",
                       s->path, (long long)info->tokens,
                       (long long)ends[n * parts - 1]);
    return 0;
}

int record_set_lengths(struct record_set *s, int64_t first, int64_t n, int64_t *length,
                       struct err *err)
{
    int64_t parts = record_set_parts(s->info.kind);
    int64_t ends[PIECE_RECORDS * MAX_PARTS], begin;
    for (int64_t i = 0; i < n; i += PIECE_RECORDS) {
        int64_t piece = n - i < PIECE_RECORDS ? n - i : PIECE_RECORDS;
        if (read_ends(s, first + i, piece, &begin, ends, err))
            return -1;
        for (int64_t k = 0; k < piece * parts; k++)
            length[i * parts + k] = ends[k] - (k ? ends[k - 1] : begin);
    }
    return 0;
}

int record_set_pack_ends(struct record_set *s, int64_t first, int64_t n, int64_t *ends,
                         struct err *err)
{
    int64_t packs = s->info.packs, records = s->info.records, before = 0;
    CHECK(first >= 0 && n >= 0 && n <= packs - first, "packs %lld + %lld of %lld",
          (long long)first, (long long)n, (long long)packs);
    if ((first > 0 &&
         sealed_read_any(s->file, s->pack_ends, 8 * (first - 1), &before, 8, err)) ||
        sealed_read_any(s->file, s->pack_ends, 8 * first, ends, (size_t)(8 * n), err))
        return -1;
    for (int64_t i = 0; i < n; i++) {
        int64_t low = (i ? ends[i - 1] : before) + 1;
        bool last = first + i == packs - 1;
        if (low < first + i + 1 || ends[i] < low || ends[i] > records ||
            (last && ends[i] != records))
            return err_set(err, ERR_INPUT,
                           "%s: pack %lld: expected it to end at a record from %lld to "
                           "%lld, found %lld",
                           s->path, (long long)(first + i),
                           (long long)(last ? records : low), (long long)records,
                           (long long)ends[i]);
    }
    return 0;
}

static int read_ids(struct record_set *s, int64_t begin, int64_t n, int32_t *ids,
                    struct err *err)
{
    if (token_set_id_bytes(s->info.vocab) == 4) {
        if (sealed_read_any(s->file, s->tokens, 4 * begin, ids, (size_t)n * 4, err))
            return -1;
    } else {
        uint16_t piece[PIECE_IDS];
        for (int64_t i = 0; i < n; i += PIECE_IDS) {
            int64_t part = n - i < PIECE_IDS ? n - i : PIECE_IDS;
            if (sealed_read_any(s->file, s->tokens, 2 * (begin + i), piece,
                                (size_t)part * 2, err))
                return -1;
            for (int64_t k = 0; k < part; k++)
                ids[i + k] = piece[k];
        }
    }
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->info.vocab)
            return err_set(err, ERR_INPUT,
                           "%s: token %lld: expected an id below %d, found %u", s->path,
                           (long long)(begin + i), s->info.vocab, (unsigned)ids[i]);
    return 0;
}

static int read_counted(struct record_set *s, int64_t begin, int64_t n,
                        uint8_t *counted, struct err *err)
{
    if (sealed_read_any(s->file, s->counted, begin, counted, (size_t)n, err))
        return -1;
    for (int64_t i = 0; i < n; i++)
        if (counted[i] > 1)
            return err_set(err, ERR_INPUT,
                           "%s: token %lld: expected a mark of 0 or 1, found %d",
                           s->path, (long long)(begin + i), counted[i]);
    return 0;
}

/* Is in each part counted what may and must be? */
static int check_counted(const struct record_set *s, int64_t first,
                         const struct record_tokens *t, struct err *err)
{
    int parts = record_set_parts(s->info.kind);
    for (int64_t p = 0; p < t->parts; p++) {
        int64_t begin = p ? t->end[p - 1] : 0, part = p % parts, found = 0;
        int64_t record = begin; /* where the part's record begins */
        if (part > 0)
            record = p > part ? t->end[p - part - 1] : 0;
        for (int64_t i = begin; i < t->end[p]; i++)
            found += t->counted[i];
        bool starts = t->end[p] > begin && begin == record && t->counted[begin];
        bool prompt = parts > 1 && part == 0;
        if (starts || (prompt ? found > 0 : found == 0))
            return err_set(err, ERR_INPUT,
                           "%s: %s %lld, part %lld: expected %s, found %lld", s->path,
                           parts == 1 ? "record" : "pair",
                           (long long)(first + p / parts), (long long)part,
                           starts   ? "a first token that does not count"
                           : prompt ? "no counted token"
                                    : "counted tokens",
                           (long long)found);
    }
    return 0;
}

int record_set_read(struct record_set *s, int64_t first, int64_t n,
                    struct record_tokens *out, struct err *err)
{
    int64_t parts = n * record_set_parts(s->info.kind), begin;
    if (record_tokens_reserve(out, 0, parts, err) ||
        read_ends(s, first, n, &begin, out->end, err))
        return -1;
    int64_t tokens = out->end[parts - 1] - begin;
    if (record_tokens_reserve(out, tokens, parts, err) ||
        read_ids(s, begin, tokens, out->id, err) ||
        read_counted(s, begin, tokens, out->counted, err))
        return -1;
    out->n = tokens;
    out->parts = parts;
    for (int64_t i = 0; i < parts; i++)
        out->end[i] -= begin;
    return check_counted(s, first, out, err);
}

int record_set_read_pack(struct record_set *s, int64_t pack, int64_t *first,
                         struct record_tokens *out, struct err *err)
{
    int64_t ends[2] = {0, 0};
    if (pack ? record_set_pack_ends(s, pack - 1, 2, ends, err)
             : record_set_pack_ends(s, 0, 1, &ends[1], err))
        return -1;
    if (first)
        *first = ends[0];
    if (ends[1] - ends[0] > s->info.pack_length)
        return err_set(err, ERR_INPUT,
                       "%s: pack %lld: expected at most %lld records, found %lld",
                       s->path, (long long)pack, (long long)s->info.pack_length,
                       (long long)(ends[1] - ends[0]));
    if (record_set_read(s, ends[0], ends[1] - ends[0], out, err))
        return -1;
    if (out->n > s->info.pack_length)
        return err_set(err, ERR_INPUT,
                       "%s: pack %lld: expected at most %lld tokens, found %lld",
                       s->path, (long long)pack, (long long)s->info.pack_length,
                       (long long)out->n);
    return 0;
}
