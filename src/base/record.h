/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_RECORD_H
#define DUSK_BASE_RECORD_H

/* The words that the readers of records (io/records.h), the chat templates
 * (src/objective/template.h) and the encoder (io/record_ids.h) share: messages, a
 * record of them, and a string with marked spans. Texts are UTF-8, not NUL-terminated,
 * lengths and offsets in bytes. All local. */

#include <stdbool.h>
#include <stddef.h>

#include "src/base/err.h"

enum message_role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, MESSAGE_ROLES };

const char *message_role_name(enum message_role role); /* "system", ... */

/* One message; its texts are borrowed. `input` is Alpaca's second half of a user
 * message, which templates join to the text in their own ways; 0 bytes: none. */
struct message {
    enum message_role role;
    const char *text;
    size_t bytes;
    const char *input;
    size_t input_bytes;
};

enum record_shape {
    RECORD_MESSAGES,
    RECORD_SHAREGPT,
    RECORD_ALPACA,
    RECORD_COMPLETION,
    RECORD_OPENORCA,
    RECORD_TEXT,
    RECORD_PAIRS,
    RECORD_SHAPES
};

const char *record_shape_name(enum record_shape shape); /* "messages", ... */

/* What one line holds. In RECORD_TEXT message[0] is the text, whatever its role. In
 * RECORD_PAIRS message[] is the whole conversation with the chosen end, rejected[] the
 * one with the rejected end; their first `prompt` messages are common. Elsewhere
 * rejected_n and prompt are 0. */
struct record {
    enum record_shape shape;
    bool strings; /* prompt and completions were strings: plain templates take them raw
                   */
    const struct message *message, *rejected;
    int messages, rejected_n, prompt;
};

struct text_span {
    size_t begin, end; /* [begin, end) in bytes */
};

/* A string that grows, and spans of it in order that do not overlap. {0} is empty;
 * clear keeps the memory, fini frees it. Out of memory is remembered in `failed`, so
 * that a chain of appends is checked once. */
struct marked_text {
    char *text;
    size_t bytes, room;
    struct text_span *span;
    int spans, span_room;
    bool failed;
};

void marked_text_clear(struct marked_text *m);
void marked_text_fini(struct marked_text *m);
void marked_text_append(struct marked_text *m, const char *text, size_t bytes);

/* [begin, m->bytes) is marked; an empty span is left out, one that touches the last is
 * joined to it. begin is at or after the last span's end. */
void marked_text_mark(struct marked_text *m, size_t begin);

/* 0, or -1 with err set if an append found no memory. */
int marked_text_check(const struct marked_text *m, struct err *err);

#endif
