/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/tree.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

struct reader {
    yaml_parser_t parser;
    const char *source, *text;
    size_t bytes;
    bool places;
    int nodes;
    struct err *err;
};

int tree_error(struct err *err, struct tree_place at, const char *format, ...)
{
    char text[sizeof err->text];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    if (at.line) {
        err_set(err, ERR_USAGE, "%s", text);
        return err_prefix(err, "%s:%d:%d", at.source, at.line, at.column);
    }
    /* "--set a.b: a.b: expected" would say the key twice */
    const char *space = strrchr(at.source, ' '), *key = space ? space + 1 : at.source;
    size_t n = strlen(key);
    bool twice = strncmp(text, key, n) == 0 && strncmp(text + n, ": ", 2) == 0;
    err_set(err, ERR_USAGE, "%s", text + (twice ? n + 2 : 0));
    return err_prefix(err, "%s", at.source);
}

static struct tree_place place_of(const struct reader *r, yaml_mark_t mark)
{
    struct tree_place at = {.source = r->source};
    if (r->places) {
        at.line = mark.line < INT_MAX ? (int)mark.line + 1 : INT_MAX;
        at.column = mark.column < INT_MAX ? (int)mark.column + 1 : INT_MAX;
    }
    return at;
}

/* The place of a byte; libyaml gives marks for all errors but those of its decoder. */
static struct tree_place place_of_byte(const struct reader *r, size_t offset)
{
    yaml_mark_t mark = {0};
    for (size_t i = 0; i < offset && i < r->bytes; i++) {
        unsigned char c = (unsigned char)r->text[i];
        if (c == '\n') {
            mark.line++;
            mark.column = 0;
        } else if ((c & 0xc0u) != 0x80u) { /* columns count characters */
            mark.column++;
        }
    }
    return place_of(r, mark);
}

static int syntax_error(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    const char *problem = p->problem ? p->problem : "unreadable";
    if (p->error == YAML_MEMORY_ERROR)
        return err_set(r->err, ERR_OTHER, "%s: no memory", r->source);
    if (p->error == YAML_READER_ERROR)
        return tree_error(r->err, place_of_byte(r, p->problem_offset),
                          "not YAML in UTF-8: %s", problem);
    size_t at = p->problem_mark.index;
    bool tab = at < r->bytes && r->text[at] == '\t';
    return tree_error(r->err, place_of(r, p->problem_mark), "not YAML: %s%s%s%s",
                      p->context ? p->context : "", p->context ? ", " : "", problem,
                      tab ? ": a tab; indent with spaces" : "");
}

static int next_event(struct reader *r, yaml_event_t *e)
{
    if (!yaml_parser_parse(&r->parser, e))
        return syntax_error(r);
    return 0;
}

static struct tree_node *node_create(struct reader *r, enum tree_kind kind,
                                     yaml_mark_t mark)
{
    struct tree_place at = place_of(r, mark);
    if (++r->nodes > TREE_NODES_MAX) {
        tree_error(r->err, at, "more than %d values", TREE_NODES_MAX);
        return NULL;
    }
    struct tree_node *node = calloc(1, sizeof *node);
    if (!node) {
        err_set(r->err, ERR_OTHER, "%s: no memory", r->source);
        return NULL;
    }
    node->kind = kind;
    node->at = at;
    return node;
}

static int refuse_extras(struct reader *r, const yaml_event_t *e)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (e->type == YAML_ALIAS_EVENT)
        anchor = e->data.alias.anchor;
    else if (e->type == YAML_SCALAR_EVENT) {
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
    } else if (e->type == YAML_SEQUENCE_START_EVENT) {
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
    } else if (e->type == YAML_MAPPING_START_EVENT) {
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
    }
    if (!anchor && !tag)
        return 0;
    char shown[TREE_SHOWN];
    return tree_error(r->err, place_of(r, e->start_mark),
                      "%s %s: expected a plain value",
                      anchor ? "anchors and aliases are not read here, found"
                             : "tags are not read here, found",
                      tree_shown((const char *)(anchor ? anchor : tag), shown));
}

static struct tree_node *read_scalar(struct reader *r, const yaml_event_t *e)
{
    struct tree_node *node = node_create(r, TREE_SCALAR, e->start_mark);
    if (!node)
        return NULL;
    const char *value = (const char *)e->data.scalar.value;
    node->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    node->has_nul = strlen(value) != e->data.scalar.length;
    node->text = strdup(value);
    if (node->text)
        return node;
    err_set(r->err, ERR_OTHER, "%s: no memory", r->source);
    tree_free(node);
    return NULL;
}

static struct tree_node *read_node(struct reader *r, const yaml_event_t *e, int depth);

/* Reads the children of `parent` up to the end of the list or map. */
static int read_children(struct reader *r, struct tree_node *parent, int depth)
{
    struct tree_node **end = &parent->first, *child = NULL;
    bool map = parent->kind == TREE_MAP, key_next = map;
    char *key = NULL;
    struct tree_place key_at = {0};
    int rc = 0;
    for (bool done = false; rc == 0 && !done;) {
        yaml_event_t e;
        if (next_event(r, &e) < 0) {
            rc = -1;
            break;
        }
        char shown[TREE_SHOWN];
        if (e.type == YAML_MAPPING_END_EVENT || e.type == YAML_SEQUENCE_END_EVENT) {
            done = true;
        } else if (!(child = read_node(r, &e, depth + 1))) {
            rc = -1;
        } else if (key_next) {
            key = child->text;
            key_at = child->at;
            child->text = NULL;
            const struct tree_node *twin = key ? tree_get(parent, key) : NULL;
            if (!key || child->has_nul)
                rc = tree_error(r->err, key_at, "expected a key, found %s",
                                key ? "a zero byte in it" : tree_found(child, shown));
            else if (twin && r->places)
                rc = tree_error(r->err, key_at,
                                "key \"%s\" is given twice, first at %s:%d:%d",
                                tree_shown(key, shown), r->source, twin->key_at.line,
                                twin->key_at.column);
            else if (twin)
                rc = tree_error(r->err, key_at, "key \"%s\" is given twice",
                                tree_shown(key, shown));
            tree_free(child);
            key_next = false;
        } else {
            child->key = key;
            child->key_at = key_at;
            key = NULL;
            *end = child;
            end = &child->next;
            key_next = map;
        }
        yaml_event_delete(&e);
    }
    free(key);
    return rc;
}

static struct tree_node *read_node(struct reader *r, const yaml_event_t *e, int depth)
{
    if (refuse_extras(r, e) < 0)
        return NULL;
    if (e->type == YAML_SCALAR_EVENT)
        return read_scalar(r, e);
    if (depth >= TREE_DEPTH_MAX) {
        tree_error(r->err, place_of(r, e->start_mark), "more than %d levels of nesting",
                   TREE_DEPTH_MAX);
        return NULL;
    }
    enum tree_kind kind = e->type == YAML_MAPPING_START_EVENT ? TREE_MAP : TREE_LIST;
    struct tree_node *node = node_create(r, kind, e->start_mark);
    if (node && read_children(r, node, depth) < 0) {
        tree_free(node);
        node = NULL;
    }
    return node;
}

/* Stream start, document start, the one node, document end, stream end. */
static int read_document(struct reader *r, struct tree_node **root)
{
    for (;;) {
        yaml_event_t e;
        if (next_event(r, &e) < 0)
            return -1;
        int rc = 0;
        yaml_event_type_t type = e.type;
        if (type == YAML_DOCUMENT_START_EVENT && *root)
            rc = tree_error(r->err, place_of(r, e.start_mark),
                            "expected one document, found another");
        else if (type == YAML_STREAM_END_EVENT && !*root)
            rc = (*root = node_create(r, TREE_SCALAR, (yaml_mark_t){0})) ? 0 : -1;
        else if (type != YAML_STREAM_START_EVENT && type != YAML_STREAM_END_EVENT &&
                 type != YAML_DOCUMENT_START_EVENT && type != YAML_DOCUMENT_END_EVENT)
            rc = (*root = read_node(r, &e, 0)) ? 0 : -1;
        yaml_event_delete(&e);
        if (rc < 0 || type == YAML_STREAM_END_EVENT)
            return rc;
    }
}

struct tree_node *tree_parse(const char *source, bool places, const char *text,
                             size_t bytes, struct err *err)
{
    struct reader r = {
        .source = source, .text = text, .bytes = bytes, .places = places, .err = err};
    if (bytes > TREE_BYTES_MAX) {
        err_set(err, ERR_USAGE, "%s: expected at most %d bytes of YAML, found %zu",
                source, TREE_BYTES_MAX, bytes);
        return NULL;
    }
    if (!yaml_parser_initialize(&r.parser)) {
        err_set(err, ERR_OTHER, "%s: no memory", source);
        return NULL;
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, bytes);
    struct tree_node *root = NULL;
    if (read_document(&r, &root) < 0) {
        tree_free(root);
        root = NULL;
    }
    yaml_parser_delete(&r.parser);
    return root;
}

void tree_free(struct tree_node *node)
{
    if (!node)
        return;
    for (struct tree_node *child = node->first, *next; child; child = next) {
        next = child->next;
        tree_free(child);
    }
    free(node->text);
    free(node->key);
    free(node);
}

struct tree_node *tree_get(const struct tree_node *map, const char *key)
{
    for (struct tree_node *child = map->first; child; child = child->next)
        if (child->key && strcmp(child->key, key) == 0)
            return child;
    return NULL;
}

struct tree_node *tree_map(struct tree_place at, struct err *err)
{
    struct tree_node *node = calloc(1, sizeof *node);
    if (!node) {
        err_set(err, ERR_OTHER, "%s: no memory", at.source);
        return NULL;
    }
    node->kind = TREE_MAP;
    node->at = at;
    return node;
}

int tree_put(struct tree_node *map, const char *key, struct tree_node *value,
             struct err *err)
{
    free(value->key);
    value->key = strdup(key);
    value->key_at = value->at;
    if (!value->key) {
        tree_free(value);
        return err_set(err, ERR_OTHER, "no memory");
    }
    if (tree_is_null(map)) {
        map->kind = TREE_MAP;
        free(map->text);
        map->text = NULL;
    }
    struct tree_node **at = &map->first;
    while (*at && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    struct tree_node *old = *at;
    value->next = old ? old->next : NULL;
    *at = value;
    tree_free(old);
    return 0;
}

bool tree_is_null(const struct tree_node *node)
{
    if (node->kind != TREE_SCALAR)
        return false;
    if (!node->text) /* an empty document */
        return true;
    return node->plain &&
           (!*node->text || strcmp(node->text, "~") == 0 ||
            strcmp(node->text, "null") == 0 || strcmp(node->text, "Null") == 0 ||
            strcmp(node->text, "NULL") == 0);
}

const char *tree_shown(const char *text, char shown[TREE_SHOWN])
{
    enum { CUT = 60 };
    size_t n = 0;
    for (; text[n] && n < CUT; n++) {
        unsigned char c = (unsigned char)text[n];
        shown[n] = (char)(c < 0x20 || c == 0x7f ? '?' : c);
    }
    if (text[n]) {
        while (n && ((unsigned char)text[n] & 0xc0u) == 0x80u) /* whole characters */
            n--;
        memcpy(shown + n, "...", 3);
        n += 3;
    }
    shown[n] = '\0';
    return shown;
}

static int count_children(const struct tree_node *node)
{
    int n = 0;
    for (const struct tree_node *child = node->first; child; child = child->next)
        n++;
    return n;
}

const char *tree_found(const struct tree_node *node, char shown[TREE_SHOWN])
{
    char text[TREE_SHOWN];
    if (node->kind == TREE_MAP)
        snprintf(shown, TREE_SHOWN, "a map");
    else if (node->kind == TREE_LIST)
        snprintf(shown, TREE_SHOWN, node->first ? "a list of %d" : "an empty list",
                 count_children(node));
    else if (tree_is_null(node))
        snprintf(shown, TREE_SHOWN, "nothing");
    else if (node->plain)
        tree_shown(node->text, shown);
    else
        snprintf(shown, TREE_SHOWN, "the text \"%.64s\"", tree_shown(node->text, text));
    return shown;
}
