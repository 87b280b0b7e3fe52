/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/pretrain.h"

#include "src/base/check.h"
#include "src/base/mem.h"

int batch_init(struct batch *b, int max_rows, int max_segments, struct err *err)
{
    *b = (struct batch){.max_rows = max_rows, .max_segments = max_segments};
    b->ids = mem_array(max_rows, sizeof *b->ids, err);
    b->target = mem_array(max_rows, sizeof *b->target, err);
    b->position = mem_array(max_rows, sizeof *b->position, err);
    b->segment_begin =
        mem_array((int64_t)max_segments + 1, sizeof *b->segment_begin, err);
    b->sample = mem_array(max_segments, sizeof *b->sample, err);
    b->prefix = mem_array(max_segments, sizeof *b->prefix, err);
    if (!b->ids || !b->target || !b->position || !b->segment_begin || !b->sample ||
        !b->prefix) {
        batch_fini(b);
        return -1;
    }
    b->rows.position = b->position;
    b->rows.segment_begin = b->segment_begin;
    return 0;
}

void batch_fini(struct batch *b)
{
    mem_free(b->ids);
    mem_free(b->target);
    mem_free(b->position);
    mem_free(b->segment_begin);
    mem_free(b->sample);
    mem_free(b->prefix);
    *b = (struct batch){0};
}

void pretrain_fill(struct batch *b, int windows, int seq_len, const int *length,
                   const int32_t *tokens)
{
    CHECK(windows <= b->max_segments, "%d windows, room for %d", windows,
          b->max_segments);
    int row = 0;
    b->segment_begin[0] = 0;
    for (int i = 0; i < windows; i++) {
        const int32_t *window = tokens + (int64_t)i * (seq_len + 1);
        int n = length ? length[i] : seq_len;
        CHECK(row + n <= b->max_rows, "row %d of %d", row + n, b->max_rows);
        for (int t = 0; t < n; t++, row++) {
            b->ids[row] = window[t];
            b->target[row] = window[t + 1];
            b->position[row] = t;
        }
        b->segment_begin[i + 1] = row;
        b->sample[i] = i;
    }
    b->rows.segments = windows;
    b->rows.rows = row;
}

int64_t batch_counted(const struct batch *b)
{
    int64_t n = 0;
    for (int i = 0; i < b->rows.rows; i++)
        n += b->target[i] >= 0;
    return n;
}
