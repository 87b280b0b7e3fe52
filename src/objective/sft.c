/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/sft.h"

#include "src/base/check.h"

/* A word: the id above two marks. */
enum { COUNTS = 1, BEGINS = 2, ID_SHIFT = 2, ID_MAX = INT32_MAX >> ID_SHIFT };

void sft_store(int32_t *slot, int seq_len, int64_t n, const int32_t *id,
               const uint8_t *counted, int64_t documents, const int64_t *end)
{
    CHECK(n <= seq_len, "%lld tokens, room for %d", (long long)n, seq_len);
    CHECK(documents == 0 || end[documents - 1] == n, "the last of %lld ends at %lld",
          (long long)documents, (long long)n);
    slot[0] = (int32_t)n;
    int64_t t = 0;
    for (int64_t d = 0; d < documents; d++)
        for (int64_t begin = t; t < end[d]; t++) {
            CHECK(id[t] >= 0 && id[t] <= ID_MAX, "id %d", (int)id[t]);
            slot[1 + t] = id[t] << ID_SHIFT | (t == begin ? BEGINS : 0) |
                          (counted[t] && t > begin ? COUNTS : 0);
        }
}

int64_t sft_counted(const int32_t *slot)
{
    int64_t counted = 0;
    for (int32_t t = 1; t <= slot[0]; t++)
        counted += slot[t] & COUNTS;
    return counted;
}

/* Adds the document words[0, n) as a segment of `sample`. */
static void add_document(struct batch *b, int sample, int n, const int32_t *words)
{
    int inputs = n - 1;
    while (inputs > 0 && !(words[inputs] & COUNTS))
        inputs--;
    if (inputs < 1)
        return;
    int row = b->rows.rows, segment = b->rows.segments;
    CHECK(segment < b->max_segments, "room for %d segments", b->max_segments);
    CHECK(row + inputs <= b->max_rows, "row %d of %d", row + inputs, b->max_rows);
    for (int t = 0; t < inputs; t++, row++) {
        b->ids[row] = words[t] >> ID_SHIFT;
        b->target[row] = words[t + 1] & COUNTS ? words[t + 1] >> ID_SHIFT : -1;
        b->position[row] = t;
    }
    b->sample[segment] = sample;
    b->segment_begin[segment + 1] = row;
    b->rows.segments = segment + 1;
    b->rows.rows = row;
}

void sft_fill(struct batch *b, int samples, int seq_len, const int32_t *slots)
{
    b->rows.segments = b->rows.rows = b->segment_begin[0] = 0;
    for (int i = 0; i < samples; i++) {
        const int32_t *words = slots + (int64_t)i * (seq_len + 1) + 1;
        int n = words[-1];
        CHECK(n >= 0 && n <= seq_len, "a sample of %d tokens", n);
        for (int begin = 0, end; begin < n; begin = end) {
            end = begin + 1;
            while (end < n && !(words[end] & BEGINS))
                end++;
            add_document(b, i, end - begin, words + begin);
        }
    }
}

int sft_max_segments(int samples, int seq_len, bool packs)
{
    int of_sample = packs && seq_len > 3 ? seq_len / 2 : 1;
    return samples * of_sample;
}

/* Moves key[i] down the heap key[0, n), the largest on top. */
static void sift(int64_t *key, int64_t n, int64_t i)
{
    int64_t moved = key[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && key[child + 1] > key[child])
            child++;
        if (key[child] <= moved)
            break;
        key[i] = key[child];
    }
    key[i] = moved;
}

/* Heap sort: rising, in place, n log n whatever the input. */
static void sort(int64_t *key, int64_t n)
{
    for (int64_t i = n / 2 - 1; i >= 0; i--)
        sift(key, n, i);
    for (int64_t end = n - 1; end > 0; end--) {
        int64_t largest = key[0];
        key[0] = key[end];
        key[end] = largest;
        sift(key, end, 0);
    }
}

void sft_order(int n, int micro_batch, int replicas, const int64_t *length,
               int64_t *key, int32_t *order)
{
    CHECK(n % (micro_batch * replicas) == 0, "%d samples by %d x %d", n, micro_batch,
          replicas);
    for (int i = 0; i < n; i++) {
        CHECK(length[i] >= 0 && length[i] <= INT32_MAX, "length %lld",
              (long long)length[i]);
        key[i] = (INT32_MAX - length[i]) << 32 | i;
    }
    sort(key, n);
    int of_replica = n / replicas;
    for (int i = 0; i < n; i++) {
        int group = i / micro_batch;
        int place = group % replicas * of_replica + group / replicas * micro_batch +
                    i % micro_batch;
        order[place] = (int32_t)(key[i] & INT32_MAX);
    }
}
