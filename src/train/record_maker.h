/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_RECORD_MAKER_H
#define DUSK_TRAIN_RECORD_MAKER_H

/* One line of a file of records -> its tokens and what of them is learnt: parsed
 * (io/records.h), rendered (src/objective/template.h), encoded (io/record_ids.h), cut
 * or dropped. All local. */

#include "io/record_map.h"
#include "io/record_set.h"
#include "io/tokenizer.h"
#include "src/objective/template.h"

enum record_too_long { TOO_LONG_TRUNCATE, TOO_LONG_DROP, TOO_LONG_ERROR };

struct record_rule {
    bool bos;           /* a BOS in front of every record */
    bool all;           /* everything is learnt, not the replies alone */
    int64_t max_length; /* 0: any */
    enum record_too_long too_long;
};

struct record_counts {
    int64_t records, tokens, counted;
    int64_t truncated, dropped_too_long, dropped_uncounted, dropped_equal;
    int64_t longest, longest_row; /* as in record_set_info */
};

struct record_maker;

/* t and chat are borrowed, map (NULL: no renames) is copied. Owned; NULL with err set
 * (ERR_USAGE: the template has a token that the tokenizer lacks). */
struct record_maker *record_maker_create(const struct tokenizer *t,
                                         const struct template *chat,
                                         const struct record_map *map,
                                         const struct record_rule *rule,
                                         struct err *err);
void record_maker_destroy(struct record_maker *m); /* NULL is fine */

/* The shape of a line; as records_recognise. */
int record_maker_shape(struct record_maker *m, const char *line, size_t bytes,
                       enum record_shape *shape, struct err *err);

enum record_made {
    RECORD_MADE,
    RECORD_DROPPED, /* by the rule; it is counted */
    RECORD_BAD,     /* err set (ERR_INPUT): the line is no record, or no template's */
    RECORD_FAILED   /* err set: any other reason to stop */
};

enum record_made record_maker_line(struct record_maker *m, enum record_shape shape,
                                   const char *line, size_t bytes, struct err *err);

/* The record made last: parts (1 or 3) of n tokens each, as 2 id + counted. They live
 * until the next line. */
int record_maker_parts(const struct record_maker *m);
const int32_t *record_maker_part(const struct record_maker *m, int part, int64_t *n);

const struct record_counts *record_maker_counts(const struct record_maker *m);

/* Id of the template's EOS, -1: it has none, or none that is one token. */
int record_maker_eos(const struct record_maker *m);

#endif
