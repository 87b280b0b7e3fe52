/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/packing.h"

#include "src/base/check.h"
#include "src/base/mem.h"

#include <stdbool.h>

/* ---- rooms: a set of integers that finds the next member ---- */

enum {
    LEVELS_MAX = 6, /* 64^6 > 2^31 */
    NONE = -1
};

/* Bit i of level 0 says that i is a member, bit i of level k + 1 that word i of level k
 * is not zero. */
struct room_set {
    int levels;
    int64_t words[LEVELS_MAX]; /* of a level */
    uint64_t *level[LEVELS_MAX];
};

static void room_set_fini(struct room_set *s)
{
    for (int k = 0; k < s->levels; k++)
        mem_free(s->level[k]);
    *s = (struct room_set){0};
}

/* An empty set for 0 .. n - 1. */
static int room_set_init(struct room_set *s, int64_t n, struct err *err)
{
    *s = (struct room_set){0};
    for (int64_t bits = n; s->levels == 0 || bits > 1; bits = (bits + 63) / 64) {
        int k = s->levels++;
        s->words[k] = (bits + 63) / 64;
        s->level[k] = mem_array(s->words[k], sizeof **s->level, err);
        if (!s->level[k]) {
            room_set_fini(s);
            return -1;
        }
    }
    return 0;
}

static void room_set_add(struct room_set *s, int64_t i)
{
    for (int k = 0; k < s->levels; k++, i /= 64)
        s->level[k][i / 64] |= UINT64_C(1) << i % 64;
}

static void room_set_remove(struct room_set *s, int64_t i)
{
    for (int k = 0; k < s->levels; k++, i /= 64) {
        s->level[k][i / 64] &= ~(UINT64_C(1) << i % 64);
        if (s->level[k][i / 64])
            return;
    }
}

static bool room_set_has(const struct room_set *s, int64_t i)
{
    return s->level[0][i / 64] >> i % 64 & 1;
}

/* The least member >= i, or NONE: up until a word has one, then down to it. */
static int64_t room_set_next(const struct room_set *s, int64_t i)
{
    for (int k = 0; k < s->levels; k++, i = i / 64 + 1) {
        if (i / 64 >= s->words[k])
            return NONE;
        uint64_t rest = s->level[k][i / 64] >> i % 64;
        if (!rest)
            continue;
        i += __builtin_ctzll(rest);
        while (k-- > 0)
            i = i * 64 + __builtin_ctzll(s->level[k][i]);
        return i;
    }
    return NONE;
}

/* ---- best fit ---- */

/* Packs with room, in a queue for each room. */
struct bins {
    int32_t max_length;
    struct room_set rooms; /* whose queue is not empty */
    int32_t *first, *last; /* [max_length + 1] of a room's queue */
    int32_t *next;         /* [packs] in its queue, or NONE */
    int32_t packs;
};

static void bins_fini(struct bins *b)
{
    room_set_fini(&b->rooms);
    mem_free(b->first);
    mem_free(b->last);
    mem_free(b->next);
    *b = (struct bins){0};
}

/* -1: no memory; what there is already is bins_fini's. */
static int bins_init(struct bins *b, int32_t max_length, int32_t documents,
                     struct err *err)
{
    int64_t rooms = (int64_t)max_length + 1;
    *b = (struct bins){.max_length = max_length};
    if (room_set_init(&b->rooms, rooms, err))
        return -1;
    b->first = mem_array(rooms, sizeof *b->first, err);
    b->last = mem_array(rooms, sizeof *b->last, err);
    b->next = mem_array(documents, sizeof *b->next, err);
    return b->first && b->last && b->next ? 0 : -1;
}

/* Puts a part of `length` tokens into its pack, which is returned. */
static int32_t bins_place(struct bins *b, int32_t length)
{
    int64_t room = room_set_next(&b->rooms, length);
    int32_t pack;
    if (room == NONE) {
        pack = b->packs++;
        room = b->max_length;
    } else {
        pack = b->first[room];
        b->first[room] = b->next[pack];
        if (b->next[pack] == NONE)
            room_set_remove(&b->rooms, room);
    }
    int64_t left = room - length;
    if (left == 0)
        return pack;
    b->next[pack] = NONE;
    if (room_set_has(&b->rooms, left))
        b->next[b->last[left]] = pack;
    else
        b->first[left] = pack;
    room_set_add(&b->rooms, left);
    b->last[left] = pack;
    return pack;
}

/* ---- the packing ---- */

static int32_t cut_length(int32_t length, int32_t max_length)
{
    return length < max_length ? length : max_length;
}

/* Counts what is kept, cut and dropped; at[n]: documents of n tokens after the cut. */
static void count(struct packing *p, const int32_t *length, int32_t documents,
                  int32_t max_length, int32_t *at)
{
    int32_t shortest = 0;
    for (int32_t i = 0; i < documents; i++)
        shortest = length[i] < shortest ? length[i] : shortest;
    CHECK(shortest == 0, "a document of %d tokens", shortest);
    for (int32_t i = 0; i < documents; i++) {
        int32_t n = cut_length(length[i], max_length);
        at[n]++;
        p->tokens += n;
        p->cut_tokens += length[i] - n;
        p->cut_documents += length[i] > n;
    }
    p->empty_documents = at[0];
    p->documents = documents - at[0];
}

/* sorted[documents kept]: longest first, then by index. at: from count, used up. */
static void sort_by_length(const int32_t *length, int32_t documents, int32_t max_length,
                           int32_t *at, int32_t *sorted)
{
    int32_t begin = 0;
    for (int32_t n = max_length; n > 0; n--) {
        int32_t those = at[n];
        at[n] = begin;
        begin += those;
    }
    for (int32_t i = 0; i < documents; i++)
        if (length[i] > 0)
            sorted[at[cut_length(length[i], max_length)]++] = i;
}

/* From the pack of each sorted document to the packs' lists. end[packs + 1]: zeros, in
 * the end the begin of each pack; the last is the end of all. */
static void gather(const int32_t *sorted, const int32_t *pack, int32_t documents,
                   int32_t packs, int32_t *begin, int32_t *document)
{
    for (int32_t k = 0; k < documents; k++)
        begin[pack[k]]++;
    int32_t sum = 0;
    for (int32_t i = 0; i < packs; i++) {
        sum += begin[i];
        begin[i] = sum;
    }
    begin[packs] = sum;
    for (int32_t k = documents; k-- > 0;)
        document[--begin[pack[k]]] = sorted[k];
}

/* Work that is gone after packing_init. */
struct work {
    int32_t *at, *sorted, *pack; /* [max_length + 1]; [documents kept] twice */
    struct bins bins;
};

static void work_fini(struct work *w)
{
    mem_free(w->at);
    mem_free(w->sorted);
    mem_free(w->pack);
    bins_fini(&w->bins);
}

static int pack_all(struct packing *p, struct work *w, const int32_t *length,
                    int32_t documents, int32_t max_length, struct err *err)
{
    w->at = mem_array((int64_t)max_length + 1, sizeof *w->at, err);
    if (!w->at)
        return -1;
    count(p, length, documents, max_length, w->at);
    w->sorted = mem_array(p->documents, sizeof *w->sorted, err);
    w->pack = mem_array(p->documents, sizeof *w->pack, err);
    if (!w->sorted || !w->pack)
        return -1;
    sort_by_length(length, documents, max_length, w->at, w->sorted);
    mem_free(w->at);
    w->at = NULL;
    if (bins_init(&w->bins, max_length, p->documents, err))
        return -1;
    for (int32_t k = 0; k < p->documents; k++)
        w->pack[k] = bins_place(&w->bins, cut_length(length[w->sorted[k]], max_length));
    p->packs = w->bins.packs;
    bins_fini(&w->bins);
    p->pack_begin = mem_array((int64_t)p->packs + 1, sizeof *p->pack_begin, err);
    p->document = mem_array(p->documents, sizeof *p->document, err);
    if (!p->pack_begin || !p->document)
        return -1;
    gather(w->sorted, w->pack, p->documents, p->packs, p->pack_begin, p->document);
    return 0;
}

int packing_init(struct packing *p, const int32_t *length, int64_t documents,
                 int32_t max_length, struct err *err)
{
    CHECK(documents >= 0 && max_length >= 1, "%lld documents, max_length %d",
          (long long)documents, max_length);
    *p = (struct packing){0};
    if (documents >= INT32_MAX)
        return err_set(err, ERR_INPUT,
                       "packing: expected fewer than %d documents, found %lld; split "
                       "the set",
                       INT32_MAX, (long long)documents);
    struct work w = {0};
    int failed = pack_all(p, &w, length, to_int(documents), max_length, err);
    work_fini(&w);
    if (failed)
        packing_fini(p);
    return failed;
}

void packing_fini(struct packing *p)
{
    mem_free(p->pack_begin);
    mem_free(p->document);
    *p = (struct packing){0};
}
