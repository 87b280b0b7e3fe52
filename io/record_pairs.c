/* SPDX-License-Identifier: Apache-2.0 */
#include "io/records_parts.h"

#include <string.h>

static bool same_message(const struct message *a, const struct message *b)
{
    return a->role == b->role && a->bytes == b->bytes &&
           memcmp(a->text, b->text, a->bytes) == 0;
}

/* The prompt as messages, the same at the head of both lists. */
static int push_prompt(struct records *p, bool *string, struct err *err)
{
    enum record_field field =
        records_get(p, p->root, FIELD_PROMPT) ? FIELD_PROMPT : FIELD_QUESTION;
    const json_t *prompt = records_get(p, p->root, field);
    if (!prompt) {
        records_missing(p, FIELD_PROMPT, err);
        return err_prefix(err, "a pair of replies");
    }
    *string = json_is_string(prompt);
    for (int k = 0; k < 2; k++) {
        struct message_list *list = k ? &p->rejected : &p->list;
        if (records_push_system(p, list, FIELD_SYSTEM, err))
            return -1;
        if (*string ? records_push(list, ROLE_USER, prompt, err)
                    : records_push_list(p, list, prompt, field, err))
            return -1;
    }
    return 0;
}

/* Replies, as strings or as messages, behind a prompt of their own. */
static int parse_replies(struct records *p, const json_t *chosen,
                         const json_t *rejected, struct record *r, struct err *err)
{
    bool string = false, strings = json_is_string(chosen);
    if (push_prompt(p, &string, err))
        return -1;
    r->prompt = p->list.n;
    r->strings = string && strings;
    if (strings)
        return records_push(&p->list, ROLE_ASSISTANT, chosen, err) ||
                       records_push(&p->rejected, ROLE_ASSISTANT, rejected, err)
                   ? -1
                   : 0;
    return records_push_list(p, &p->list, chosen, FIELD_CHOSEN, err) ||
                   records_push_list(p, &p->rejected, rejected, FIELD_REJECTED, err)
               ? -1
               : 0;
}

/* Whole conversations: what they have in common is the prompt; each keeps a message. */
static int parse_conversations(struct records *p, const json_t *chosen,
                               const json_t *rejected, struct record *r,
                               struct err *err)
{
    struct message_list *a = &p->list, *b = &p->rejected;
    if (records_push_system(p, a, FIELD_SYSTEM, err) ||
        records_push_system(p, b, FIELD_SYSTEM, err) ||
        records_push_list(p, a, chosen, FIELD_CHOSEN, err) ||
        records_push_list(p, b, rejected, FIELD_REJECTED, err))
        return -1;
    int n = (a->n < b->n ? a->n : b->n) - 1, same = 0;
    while (same < n && same_message(&a->m[same], &b->m[same]))
        same++;
    if (a->m[same].role != ROLE_ASSISTANT || b->m[same].role != ROLE_ASSISTANT)
        return err_set(err, ERR_INPUT,
                       "\"%s\" and \"%s\" part at message %d: expected an assistant's "
                       "in both, found %s and %s",
                       p->map.key[FIELD_CHOSEN], p->map.key[FIELD_REJECTED], same + 1,
                       message_role_name(a->m[same].role),
                       message_role_name(b->m[same].role));
    r->prompt = same;
    return 0;
}

/* Does the list begin with an assistant's message, so that it needs a prompt? */
static int begins_with_reply(struct records *p, const json_t *list,
                             enum record_field field, bool *reply, struct err *err)
{
    p->list.n = 0;
    if (records_push_list(p, &p->list, list, field, err))
        return -1;
    *reply = p->list.m[0].role == ROLE_ASSISTANT;
    p->list.n = 0;
    return 0;
}

static int parse_ends(struct records *p, const json_t *chosen, const json_t *rejected,
                      struct record *r, struct err *err)
{
    bool reply[2];
    if (json_is_string(chosen) != json_is_string(rejected))
        return err_set(err, ERR_INPUT,
                       "expected \"%s\" and \"%s\" to be two strings or two lists, "
                       "found one of each",
                       p->map.key[FIELD_CHOSEN], p->map.key[FIELD_REJECTED]);
    if (json_is_string(chosen))
        return parse_replies(p, chosen, rejected, r, err);
    if (begins_with_reply(p, chosen, FIELD_CHOSEN, &reply[0], err) ||
        begins_with_reply(p, rejected, FIELD_REJECTED, &reply[1], err))
        return -1;
    return reply[0] && reply[1] ? parse_replies(p, chosen, rejected, r, err)
                                : parse_conversations(p, chosen, rejected, r, err);
}

int records_parse_pairs(struct records *p, struct record *r, struct err *err)
{
    const json_t *chosen = records_get(p, p->root, FIELD_CHOSEN),
                 *rejected = records_get(p, p->root, FIELD_REJECTED);
    if (!chosen || !rejected)
        return records_missing(p, chosen ? FIELD_REJECTED : FIELD_CHOSEN, err);
    if (parse_ends(p, chosen, rejected, r, err))
        return -1;
    if (r->prompt < 1)
        return err_set(err, ERR_INPUT,
                       "expected a message in front of the replies, found none");
    if (records_check(&p->list, r->prompt, err))
        return err_prefix(err, "with \"%s\"", p->map.key[FIELD_CHOSEN]);
    if (records_check(&p->rejected, r->prompt, err))
        return err_prefix(err, "with \"%s\"", p->map.key[FIELD_REJECTED]);
    return 0;
}
