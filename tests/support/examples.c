/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/examples.h"

#include "tests/support/facts.h"
#include "tests/support/need.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES = 16, PLACE_BYTES = 64 };

struct examples {
    struct facts *facts;
    char *text; /* of plain_text */
    struct message message[MESSAGES];
};

struct examples *examples_load(void)
{
    struct examples *e = need(calloc(1, sizeof *e), "examples", "no memory");
    e->facts = facts_load("../align/sft_examples.json");
    return e;
}

void examples_destroy(struct examples *e)
{
    facts_destroy(e->facts);
    free(e->text);
    free(e);
}

static const char *string_at(const struct examples *e, const char *list, int i,
                             const char *rest)
{
    char place[2 * PLACE_BYTES];
    snprintf(place, sizeof place, "%s/%d/%s", list, i, rest);
    return facts_string(e->facts, place);
}

static struct message message_of(enum message_role role, const char *text)
{
    return (struct message){.role = role, .text = text, .bytes = strlen(text)};
}

static int chat(struct examples *e, int i)
{
    char place[PLACE_BYTES];
    snprintf(place, sizeof place, "chats/%d/messages", i);
    int n = facts_count(e->facts, place);
    need(n <= MESSAGES ? e : NULL, place, "too many messages");
    for (int k = 0; k < n; k++) {
        snprintf(place, sizeof place, "messages/%d/role", k);
        const char *role = string_at(e, "chats", i, place);
        snprintf(place, sizeof place, "messages/%d/content", k);
        e->message[k] = message_of(strcmp(role, "system") == 0 ? ROLE_SYSTEM
                                   : strcmp(role, "user") == 0 ? ROLE_USER
                                                               : ROLE_ASSISTANT,
                                   string_at(e, "chats", i, place));
    }
    return n;
}

static void join(struct examples *e, int i)
{
    const char *a = string_at(e, "instructions", i, "instruction");
    const char *b = string_at(e, "instructions", i, "output");
    size_t room = strlen(a) + strlen(b) + 2;
    free(e->text);
    e->text = need(malloc(room), "examples", "no memory");
    snprintf(e->text, room, "%s %s", a, b);
}

struct record examples_record(struct examples *e, const char *template, int i)
{
    struct record r = {.shape = RECORD_ALPACA, .message = e->message, .messages = 2};
    bool plain = strncmp(template, "plain", 5) == 0 || strcmp(template, "alpaca") == 0;
    int chats = plain ? 0 : facts_count(e->facts, "chats");
    if (i < chats) {
        r.shape = RECORD_MESSAGES;
        r.messages = chat(e, i);
    } else if (strcmp(template, "plain_text") == 0) {
        join(e, i);
        r.shape = RECORD_TEXT;
        r.strings = true;
        r.messages = 1;
        e->message[0] = message_of(ROLE_USER, e->text);
    } else {
        i -= chats;
        e->message[0] =
            message_of(ROLE_USER, string_at(e, "instructions", i, "instruction"));
        e->message[0].input = string_at(e, "instructions", i, "input");
        e->message[0].input_bytes = strlen(e->message[0].input);
        e->message[1] =
            message_of(ROLE_ASSISTANT, string_at(e, "instructions", i, "output"));
    }
    return r;
}
