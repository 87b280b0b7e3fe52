/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_MAKE_RECORDS_H
#define DUSK_TRAIN_MAKE_RECORDS_H

/* JSON lines -> record set (io/record_set.h), streaming, the work shared by all ranks.
 * The file is the same byte for byte whatever their number: inputs are cut into fixed
 * byte ranges, chunk i is encoded by rank i modulo ranks into a file of its own, and
 * the records are then put together in order, or in the order of their packs.
 *
 * Memory of a rank beside the buffers: 12 bytes a record (20 a pair), and while packs
 * are made 24 more. */

#include "io/tokenizer.h"
#include "mpi/comm.h"
#include "src/base/log.h"
#include "src/train/record_maker.h"

enum record_bos { RECORD_BOS_TEMPLATE, RECORD_BOS_YES, RECORD_BOS_NO };

enum { RECORD_SHAPE_AUTO = -1 };

struct make_records_options {
    const char *const *files; /* JSON lines */
    int files_n;
    const char *output;
    int shape;           /* enum record_shape, or RECORD_SHAPE_AUTO: of each file's
                            first record */
    const char *map;     /* as record_map_parse; NULL: no renames */
    const char *chat;    /* the template: as template_load */
    enum record_bos bos; /* in front of each record */
    bool all;            /* everything is learnt; not for pairs */
    int64_t max_length;  /* 0: pack_length */
    int64_t pack_length; /* 0: not packed; not for pairs */
    enum record_too_long too_long;
    bool skip_bad, force;
    int64_t chunk_bytes; /* 0: TEXT_CHUNK_BYTES. No result depends on it. */
};

enum { BAD_LINES = 20, BAD_LINE_BYTES = 240 };

struct make_records_result {
    enum record_set_kind kind;
    struct record_counts counts;
    int64_t packs;
    int64_t skipped; /* bad lines */
    int64_t bytes;   /* of the input files */
    int bad;         /* the first of the bad lines: "file:line: what is wrong" */
    char bad_line[BAD_LINES][BAD_LINE_BYTES];
};

/* Writes OUTPUT. The log is told each file's shape, and warned where replies get no end
 * mark. The result is given to all ranks (bad lines to rank 0). A bad line is ERR_INPUT
 * with file and line, of the first one, but with skip_bad; files of pairs and of
 * records together are ERR_USAGE. -1 with err set on every rank, nothing left behind,
 * an old file whole. Collective. */
int make_records(struct comm *c, const struct log *log, const struct tokenizer *t,
                 const struct make_records_options *o, struct make_records_result *r,
                 struct err *err);

#endif
