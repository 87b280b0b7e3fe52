/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_RECORDS_PARTS_H
#define DUSK_IO_RECORDS_PARTS_H

/* What records.c, record_chat.c and record_pairs.c share. */

#include <jansson.h>
#include <stdbool.h>

#include "io/records.h"

struct message_list {
    struct message *m;
    int n, room;
};

struct records {
    struct record_map map;
    json_t *root; /* of the line at hand: holds the texts */
    struct message_list list, rejected;
};

/* A field of an object; NULL: absent or null. Borrowed. */
json_t *records_get(const struct records *p, const json_t *object,
                    enum record_field field);

/* Appends a message. */
int records_push(struct message_list *list, enum message_role role, const json_t *text,
                 struct err *err);

/* Appends the string of a field as a message; an absent one is an error. */
int records_push_field(struct records *p, struct message_list *list,
                       enum message_role role, enum record_field field,
                       struct err *err);

/* Likewise where it is there and not empty; `field` must be a string all the same. */
int records_push_system(struct records *p, struct message_list *list,
                        enum record_field field, struct err *err);

/* Appends the messages of a JSON list, which is the value of `field`. */
int records_push_list(struct records *p, struct message_list *list, const json_t *value,
                      enum record_field field, struct err *err);

/* A system message is the first or none; from `first` on an assistant speaks. */
int records_check(const struct message_list *list, int first, struct err *err);

int records_parse_pairs(struct records *p, struct record *r, struct err *err);

/* "expected a field "chosen", found "text"" */
int records_missing(const struct records *p, enum record_field field, struct err *err);

/* "chosen: expected a string, found a list" */
int records_wrong_type(const struct records *p, enum record_field field,
                       const json_t *value, const char *expected, struct err *err);

#endif
