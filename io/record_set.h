/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_RECORD_SET_H
#define DUSK_IO_RECORD_SET_H

/* A record set: records of instruction tuning, or pairs of preference tuning, as token
 * ids and what of them is learnt, in a sealed HDF5 file.
 *
 *   /tokens     [tokens] U16 (vocabulary up to 65,536) or U32: all records end to end
 *   /counted    [tokens] U8: 1: this token is learnt, as the target of the one before
 *               it; 0: prompts, BOS, the first token of a record
 *   /ends       [records x parts] I64: the stream offset after each part. A record is
 *               one part; a pair is three: prompt, chosen, rejected, both completions
 *               without the prompt, which they have in common
 *   /pack_ends  [packs] I64: the number of records in this and all packs before it; in
 *               packed sets only. Records lie in the order of their packs
 *   attributes of /: format "dusk record set", version, and the fields of
 *   record_set_info by their names
 *
 * Every record has at least one counted token; in a pair both completions have one.
 * Parts are never empty, but the prompt of a pair may be. */

#include "io/sealed.h"

enum record_set_kind { RECORD_SET_RECORDS, RECORD_SET_PAIRS };

const char *record_set_kind_name(enum record_set_kind kind); /* "records", "pairs" */
int record_set_parts(enum record_set_kind kind);             /* of a record: 1 or 3 */

enum { RECORD_SET_HASH = 33 };

/* XXH3-128 of a template's description in hex. */
void record_set_template_hash(const char *template_text, char hex[RECORD_SET_HASH]);

struct record_set_info {
    enum record_set_kind kind;
    int64_t records; /* or pairs */
    int64_t tokens, counted_tokens;
    int64_t longest; /* tokens of the longest record; of pairs, of the longest prompt
                        with one completion */
    int64_t longest_row; /* of pairs, with both completions; of records = longest */
    int64_t packs;       /* 0: not packed; only records are */
    int64_t pack_length; /* no pack has more tokens; 0: not packed */
    int64_t max_length;  /* no record has more, no pair with one completion; 0: any */
    int vocab;           /* of the tokenizer: ids are below it */
    char tokenizer[RECORD_SET_HASH];     /* XXH3-128 of tokenizer.model, hex */
    char template_hash[RECORD_SET_HASH]; /* of template_text */
    char *template_name;
    char *template_text; /* template_describe() */
    char *jinja;         /* for chat_template; "": the template holds no chats */
    char *bos;           /* the rule: "template", "yes", "no" */
    char *train_on;      /* "replies", "all" */
    char *too_long;      /* "truncate", "drop", "error" */
    int eos_id;          /* of the template's EOS; -1: none */
    char *shape;         /* of the files, "alpaca, messages" */
    char *source;        /* names of the files, without folders */
    /* What became of the lines that are not records as they were: */
    int64_t truncated;         /* records cut to max_length; they are in the set */
    int64_t dropped_too_long;  /* longer than max_length, with too_long "drop" */
    int64_t dropped_uncounted; /* nothing of them is learnt */
    int64_t dropped_equal;     /* pairs with the same ids chosen and rejected */
    int64_t skipped;           /* bad lines */
};                             /* strings are owned by the set that gives it */

/* Tokens of a run of records, such as a pack, end to end. */
struct record_tokens {
    int64_t n;        /* tokens */
    int32_t *id;      /* [n] */
    uint8_t *counted; /* [n] */
    int64_t parts;    /* records x parts of one */
    int64_t *end;     /* [parts] after each part, from the run's first token: a run of
                         one-part records has its document boundaries here */
    int64_t room, part_room;
}; /* {0} is empty; grows, and keeps its memory; owned by the caller */

void record_tokens_fini(struct record_tokens *t);

/* Room for so many tokens and parts, so that a read within it allocates nothing. -1
 * with err set (no memory). */
int record_tokens_reserve(struct record_tokens *t, int64_t tokens, int64_t parts,
                          struct err *err);

struct record_set;

/* Is PATH a sealed file that says it is a record set? False for all that cannot be
 * read, without a message. Rank 0 looks. Collective over c. */
bool record_set_is(struct comm *c, const char *path);

/* A file that is no record set, or whose numbers do not fit one another, is ERR_INPUT.
 * Owned; NULL on every rank with err set. Collective over c. */
struct record_set *record_set_open(struct comm *c, const char *path, struct err *err);
void record_set_close(struct record_set *s); /* NULL is fine. Local. */
const struct record_set_info *record_set_info(const struct record_set *s);
const char *record_set_path(const struct record_set *s); /* as given, for messages */
uint64_t record_set_identity(const struct record_set *s);

/* Tokens of each part of records [first, first + n), into length[n x parts]. Ends that
 * fall or leave the stream, empty parts, a record longer than info.longest are
 * ERR_INPUT naming file and record. Blocks are verified once. Local. */
int record_set_lengths(struct record_set *s, int64_t first, int64_t n, int64_t *length,
                       struct err *err);

/* Packs [first, first + n): the records after each, into ends[n]. Ends that fall, an
 * empty pack, records out of range: ERR_INPUT. Local. */
int record_set_pack_ends(struct record_set *s, int64_t first, int64_t n, int64_t *ends,
                         struct err *err);

/* The tokens of records [first, first + n), n >= 1. Ids >= vocab, a mark that is
 * neither 0 nor 1, a first token or a pair's prompt that counts, a record or completion
 * without a counted token, ends as above: ERR_INPUT naming file and position. Local. */
int record_set_read(struct record_set *s, int64_t first, int64_t n,
                    struct record_tokens *out, struct err *err);

/* Of one pack; *first: its first record (NULL is fine). A pack longer than pack_length
 * is ERR_INPUT. Local. */
int record_set_read_pack(struct record_set *s, int64_t pack, int64_t *first,
                         struct record_tokens *out, struct err *err);

/* Writing. The arrays of the file, by index, in the form that sealed_write takes. */
enum { RECORD_SET_TOKENS, RECORD_SET_COUNTED, RECORD_SET_ENDS, RECORD_SET_PACK_ENDS };

/* A file with this info (rank 0's; template_hash is made here), records and tokens >=
 * 1, to be filled by sealed_write and finished by sealed_commit. As sealed_create.
 * Collective over c. */
struct sealed_writer *record_set_create(struct comm *c, const char *path, bool replace,
                                        const struct record_set_info *info,
                                        struct err *err);

#endif
