/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CONFIG_TREE_H
#define DUSK_CONFIG_TREE_H

/* A small YAML document as a tree that knows where each value stands.
 *
 * Only what a run file needs: maps with plain keys, lists, scalars. Refused with a
 * place: anchors and aliases, tags, a second document, a key given twice (both places
 * are named), more than 8 levels, more than 10,000 values, more than 1 MiB, text that
 * is not UTF-8. Local. */

#include <stdbool.h>
#include <stddef.h>

#include "src/base/err.h"

enum { TREE_BYTES_MAX = 1 << 20, TREE_DEPTH_MAX = 8, TREE_NODES_MAX = 10000 };

enum tree_kind { TREE_SCALAR, TREE_LIST, TREE_MAP };

struct tree_place {
    const char *source; /* "run.yaml", "--set a.b"; borrowed, must outlive the node */
    int line, column;   /* from 1; line 0: only the source is shown */
};

struct tree_node {
    enum tree_kind kind;
    struct tree_place at;
    char *text;   /* a scalar's, owned; NULL for lists and maps */
    bool plain;   /* a scalar without quotes: may mean null, true or a number */
    bool has_nul; /* a zero byte hides in text */
    char *key;    /* owned; NULL: not the value of a map */
    struct tree_place key_at;
    struct tree_node *first, *next; /* children of a list or map; owned */
};

/* The document in text[bytes]; an empty one gives a null scalar. places false: places
 * have line 0. Owned (tree_free); NULL with err set (ERR_USAGE), its text starting with
 * the place. */
struct tree_node *tree_parse(const char *source, bool places, const char *text,
                             size_t bytes, struct err *err);
void tree_free(struct tree_node *node); /* NULL is fine; does not free node->next */

/* The value of a key of a map, or NULL. */
struct tree_node *tree_get(const struct tree_node *map, const char *key);

/* Puts an owned value under key, in the place of an older one. map becomes a map if it
 * is a null scalar. 0, or -1 with err set and value freed. */
int tree_put(struct tree_node *map, const char *key, struct tree_node *value,
             struct err *err);

/* An empty map at a place. Owned; NULL with err set. */
struct tree_node *tree_map(struct tree_place at, struct err *err);

/* null, ~ or nothing at all, without quotes. */
bool tree_is_null(const struct tree_node *node);

/* Sets err (ERR_USAGE) to "run.yaml:12:3: " and the text; returns -1. */
int tree_error(struct err *err, struct tree_place at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum { TREE_SHOWN = 96 };

/* What was found, for messages: `32x`, `the text "32"`, `a list of 2`, `nothing`.
 * Control characters are masked, long text is cut. Returns shown. */
const char *tree_found(const struct tree_node *node, char shown[TREE_SHOWN]);

/* A key or a word for messages, masked and cut the same way. */
const char *tree_shown(const char *text, char shown[TREE_SHOWN]);

#endif
