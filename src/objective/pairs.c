/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/pairs.h"

#include <string.h>

#include "src/base/check.h"

/* A slot's first words, and a word of a token: the id above the mark of what counts. */
enum { PROMPT, CHOSEN, REJECTED, REFERENCE, HEAD = REFERENCE + 4 };
enum { COUNTS = 1, ID_SHIFT = 1, ID_MAX = INT32_MAX >> ID_SHIFT };

int pairs_slot_words(int seq_len)
{
    return HEAD + 2 * seq_len;
}

int pairs_max_rows(int seq_len)
{
    return 2 * seq_len;
}

void pairs_store(int32_t *slot, int seq_len, const struct pair_tokens *pair,
                 struct pair_sums reference)
{
    const int64_t *end = pair->end;
    int64_t n[] = {end[0], end[1] - end[0], end[2] - end[1]};
    CHECK(n[0] + n[1] <= seq_len && n[0] + n[2] <= seq_len,
          "a pair of %lld + %lld, %lld tokens, room for %d", (long long)n[0],
          (long long)n[1], (long long)n[2], seq_len);
    for (int i = 0; i < 3; i++)
        slot[i] = (int32_t)n[i];
    memcpy(slot + REFERENCE, &reference, sizeof reference);
    for (int64_t t = 0; t < end[2]; t++) {
        CHECK(pair->id[t] >= 0 && pair->id[t] <= ID_MAX, "id %d", (int)pair->id[t]);
        slot[HEAD + t] = pair->id[t] << ID_SHIFT | (pair->counted[t] ? COUNTS : 0);
    }
}

struct pair_sums pairs_reference(const int32_t *slot)
{
    struct pair_sums reference;
    memcpy(&reference, slot + REFERENCE, sizeof reference);
    return reference;
}

/* One answer: its words and those of the prompt. */
struct branch {
    const int32_t *prompt, *answer;
    int prompt_n, answer_n;
};

static struct branch branch_of(const int32_t *slot, bool rejected)
{
    int32_t prompt = slot[PROMPT], chosen = slot[CHOSEN];
    return (struct branch){.prompt = slot + HEAD,
                           .answer = slot + HEAD + prompt + (rejected ? chosen : 0),
                           .prompt_n = prompt,
                           .answer_n = rejected ? slot[REJECTED] : chosen};
}

/* Its counted tokens; the first of all has none before it that could predict it. */
static int64_t counted(const struct branch *x)
{
    int64_t n = 0;
    for (int t = x->prompt_n ? 0 : 1; t < x->answer_n; t++)
        n += x->answer[t] & COUNTS;
    return n;
}

struct pair_count pairs_count(const int32_t *slot)
{
    struct branch chosen = branch_of(slot, false), rejected = branch_of(slot, true);
    return (struct pair_count){.chosen = counted(&chosen),
                               .rejected = counted(&rejected),
                               .tokens = (int64_t)slot[PROMPT] + slot[CHOSEN] +
                                         slot[REJECTED]};
}

int64_t pairs_cost(const int64_t length[3], bool sharing)
{
    return (sharing ? 1 : 2) * length[0] + length[1] + length[2];
}

/* Token t of the prompt and the answer behind it. */
static int32_t word_at(const struct branch *x, int t)
{
    return t < x->prompt_n ? x->prompt[t] : x->answer[t - x->prompt_n];
}

/* Rows for the tokens from `first` on, as a segment of `sample`. */
static void add_segment(struct batch *b, int sample, const struct branch *x, int first,
                        int prefix)
{
    int last = x->prompt_n + x->answer_n - 1, segment = b->rows.segments;
    while (last > first && !(word_at(x, last) & COUNTS))
        last--;
    int row = b->rows.rows;
    CHECK(last > first, "an answer without a counted token");
    CHECK(segment < b->max_segments, "room for %d segments", b->max_segments);
    CHECK(row + last - first <= b->max_rows, "row %d of %d", row + last - first,
          b->max_rows);
    for (int t = first; t < last; t++, row++) {
        int32_t next = word_at(x, t + 1);
        b->ids[row] = word_at(x, t) >> ID_SHIFT;
        b->target[row] = next & COUNTS ? next >> ID_SHIFT : -1;
        b->position[row] = t;
    }
    b->sample[segment] = sample;
    b->prefix[segment] = prefix;
    b->segment_begin[segment + 1] = row;
    b->rows.segments = segment + 1;
    b->rows.rows = row;
}

void pairs_fill(struct batch *b, int pairs, int seq_len, const int32_t *slots,
                bool sharing)
{
    b->rows.segments = b->rows.rows = b->segment_begin[0] = 0;
    b->rows.prefix = sharing ? b->prefix : NULL;
    for (int i = 0; i < pairs; i++) {
        const int32_t *slot = slots + (int64_t)i * pairs_slot_words(seq_len);
        struct branch chosen = branch_of(slot, false), rejected = branch_of(slot, true);
        int shared = sharing && chosen.prompt_n > 0 ? chosen.prompt_n - 1 : 0;
        add_segment(b, i, &chosen, 0, 0);
        add_segment(b, i, &rejected, shared, shared);
    }
}
