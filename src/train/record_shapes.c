/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/record_shapes.h"

#include "io/records.h"

#include <string.h>

bool text_is_blank(const struct text_document *d)
{
    size_t spaces = 0;
    if (d->cut)
        return false;
    while (spaces < d->bytes && strchr(" \t\r", d->text[spaces]))
        spaces++;
    return spaces == d->bytes;
}

int text_line_error(const char *path, int64_t offset, struct err *err)
{
    return err_prefix(err, "%s:%lld", path, (long long)text_line_number(path, offset));
}

/* The shape of a file's first record, bad lines skipped if they may be. */
static int find_shape(const char *path, int64_t bytes, struct record_maker *maker,
                      bool skip_bad, int *found, struct err *err)
{
    struct text_document d;
    enum record_shape shape;
    struct text_reader *r = text_reader_open(path, bytes, TEXT_LINE, 0, bytes, err);
    int more = -1, failed = !r;
    if (r)
        text_reader_cut(r, RECORD_LINE_BYTES);
    *found = -1;
    while (!failed && (more = text_reader_next(r, &d, err)) > 0) {
        if (text_is_blank(&d))
            continue;
        if (record_maker_shape(maker, d.text, d.bytes, &shape, err) == 0) {
            *found = (int)shape;
            break;
        }
        if (!skip_bad || err->code != ERR_INPUT)
            failed = text_line_error(path, d.offset, err);
    }
    text_reader_close(r);
    return failed || more < 0 ? -1 : 0;
}

static int check_kinds(const struct input_plan *plan, const int *shape, struct err *err)
{
    int pairs = -1, records = -1;
    for (int i = plan->files_n - 1; i >= 0; i--) {
        if (shape[i] == RECORD_PAIRS)
            pairs = i;
        else if (shape[i] >= 0)
            records = i;
    }
    return pairs < 0 || records < 0
               ? 0
               : err_set(err, ERR_USAGE,
                         "expected files of records or of pairs, found pairs in %s and "
                         "records (%s) in %s",
                         plan->files[pairs],
                         record_shape_name((enum record_shape)shape[records]),
                         plan->files[records]);
}

int record_shapes_find(struct comm *c, const struct log *log,
                       const struct input_plan *plan, struct record_maker *maker,
                       int given, bool skip_bad, int *shape, struct err *err)
{
    int failed = 0, n = plan->files_n;
    for (int i = 0; i < n; i++)
        shape[i] = given;
    if (given >= 0)
        return 0;
    for (int i = 0; i < n && comm_root(c) && !failed; i++)
        failed = find_shape(plan->files[i], plan->file_bytes[i], maker, skip_bad,
                            &shape[i], err);
    if (comm_agree(c, failed, err))
        return -1;
    comm_bcast(c, shape, (size_t)n * sizeof *shape, 0);
    for (int i = 0; i < n; i++)
        if (shape[i] >= 0)
            log_line(log, "%s: %s", plan->files[i],
                     record_shape_name((enum record_shape)shape[i]));
    return check_kinds(plan, shape, err);
}
