/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OBJECTIVE_TEMPLATE_H
#define DUSK_OBJECTIVE_TEMPLATE_H

/* Chat templates: from the messages of a record to the one string that is tokenised,
 * with the spans of it that are learnt, the assistant's replies and their end marks.
 *
 * A template is data: what stands before and after each kind of message. All of the
 * built-in ones are rows of one table, those of a user's file are filled in by the
 * caller. In the parts, "{bos}" and "{eos}" stand for the tokenizer's pieces. The same
 * data is written as jinja, for transformers to render the same text. Pure, local. */

#include <stdbool.h>
#include <stddef.h>

#include "src/base/err.h"
#include "src/base/record.h"

enum template_part {
    PART_START,         /* in front of the first message */
    PART_SYSTEM_BEFORE, /* around a system text */
    PART_SYSTEM_AFTER,
    PART_USER_BEFORE,
    PART_USER_AFTER,
    PART_INPUT_BEFORE, /* in place of user_before where there is an input; NULL: same */
    PART_INPUT_JOINT,  /* between a user text and its input; NULL: a blank line */
    PART_REPLY_BEFORE, /* in front of a reply, not learnt: what asks for an answer */
    PART_REPLY_OPEN,   /* in front of a reply, learnt */
    PART_REPLY_END,    /* the end mark, learnt */
    PART_REPLY_AFTER,  /* not learnt */
    TEMPLATE_PARTS
};

const char *template_part_name(enum template_part part); /* "start", ... */

enum template_system {
    SYSTEM_TURN,   /* a turn of its own */
    SYSTEM_MERGED, /* in front of the first user text, within its marks */
    SYSTEM_REFUSED /* a record with one is an error */
};

enum { TEMPLATE_TOKENS = 8 };

/* A description. Strings are borrowed; NULL parts are empty but for the two above. */
struct template_spec {
    const char *name;
    const char *part[TEMPLATE_PARTS];
    const char *token[TEMPLATE_TOKENS]; /* added tokens that the tokenizer must have */
    const char *eos;                    /* NULL: the tokenizer's */
    enum template_system system;
    bool skip_empty_system; /* an empty system text leaves no turn (merged: always) */
    bool strip;             /* user and reply texts lose white space at their ends */
    bool bos;               /* the tokenizer puts a BOS in front of the string */
    bool raw;      /* records of strings: prompt and completion go in as they are */
    bool text;     /* takes texts and strings, no chats; everything is learnt */
    bool one_turn; /* at most one user message */
    bool end_once; /* no end mark where the reply already ends with it */
};

/* The built-in ones, NULL from i = their number on; [0] is the default. */
const struct template_spec *template_builtin(int i);

/* By name; NULL with err set (ERR_USAGE), naming all of them. */
const struct template_spec *template_find(const char *name, struct err *err);

struct template;

/* bos, eos: the tokenizer's pieces, NULL: it has none. Everything is copied. Owned;
 * NULL with err set (ERR_USAGE: no name, a piece that the tokenizer lacks). */
struct template *template_create(const struct template_spec *spec, const char *bos,
                                 const char *eos, struct err *err);
void template_destroy(struct template *t); /* NULL is fine */

const char *template_name(const struct template *t);
bool template_bos(const struct template *t);                 /* as in the spec */
const char *template_eos(const struct template *t);          /* NULL: none */
const char *template_token(const struct template *t, int i); /* NULL: no more */

/* The whole description as one line of JSON (and so YAML): parts by their names, flags
 * that are set, in one order, whoever made it. What a file keeps of a template, and
 * what is hashed to compare two. Owned (free); NULL with err set. */
char *template_describe(const struct template *t, struct err *err);

/* Do replies end with the EOS? If not, a model is not taught to stop: warn. */
bool template_ends_replies(const struct template *t);

/* The string of n messages into out (which is cleared) and its learnt spans: replies
 * with their end marks, or with `all` everything. -1 with err set (ERR_INPUT) if the
 * messages do not fit: none, a system message that is not the first, one that the
 * template has no place for, more turns than it takes. */
int template_render(const struct template *t, const struct message *m, int n, bool all,
                    struct marked_text *out, struct err *err);

/* As template_render, of any shape but pairs. */
int template_render_record(const struct template *t, const struct record *r, bool all,
                           struct marked_text *out, struct err *err);

/* The three strings of a pair: the prompt up to where a reply begins (no spans), and
 * the prompt with each end, in which the replies of the end are learnt. */
struct rendered_pair {
    struct marked_text prompt, chosen, rejected;
}; /* {0} is empty */
void rendered_pair_fini(struct rendered_pair *p);
int template_render_pair(const struct template *t, const struct record *r,
                         struct rendered_pair *out, struct err *err);

/* The template as jinja, in one line, for `chat_template`; bos_token and eos_token are
 * variables there. `marks`: with {% generation %} around what is learnt, which only
 * transformers knows. Owned (free). NULL with err set; ERR_USAGE where there is none:
 * `raw` and `text` templates hold no chats. */
char *template_jinja(const struct template *t, bool marks, struct err *err);

#endif
