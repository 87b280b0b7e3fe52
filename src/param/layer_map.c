/* SPDX-License-Identifier: Apache-2.0 */
#include "src/param/layer_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS_MAX = 65536 };

struct range {
    int from, to; /* half-open */
};

/* The text up to the next comma, for messages. */
static int item_length(const char *item)
{
    size_t n = strcspn(item, ",");
    return n > 80 ? 80 : (int)n;
}

/* A run of digits; more than LAYERS_MAX stays just above it. NULL if there is none. */
static const char *read_count(const char *text, int *value)
{
    if (*text < '0' || *text > '9')
        return NULL;
    *value = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        if (*value <= LAYERS_MAX)
            *value = 10 * *value + (*text - '0');
    return text;
}

/* Reads the range at `item`; returns what follows it (a comma or the end). */
static const char *read_range(const char *item, int source_layers, struct range *r,
                              struct err *err)
{
    const char *at = read_count(item, &r->from);
    if (at)
        at = *at == ':' ? read_count(at + 1, &r->to) : NULL;
    if (!at || (*at != ',' && *at != '\0')) {
        err_set(err, ERR_USAGE,
                "layers: expected half-open ranges such as 0:24,8:32, found '%.*s'",
                item_length(item), item);
        return NULL;
    }
    if (r->from >= r->to) {
        err_set(err, ERR_USAGE, "layers: range %.*s is %s: expected FROM < TO",
                item_length(item), item, r->from == r->to ? "empty" : "reversed");
        return NULL;
    }
    if (r->to > source_layers) {
        err_set(err, ERR_USAGE,
                "layers: range %.*s is out of bounds: the source has layers 0 to %d "
                "(0:%d takes all)",
                item_length(item), item, source_layers - 1, source_layers);
        return NULL;
    }
    return at;
}

static int append(struct layer_map *m, struct range r, struct err *err)
{
    int n = r.to - r.from;
    if (m->layers + n > LAYERS_MAX)
        return err_set(err, ERR_USAGE, "layers: more than %d layers result",
                       LAYERS_MAX);
    int *grown = realloc(m->source, (size_t)(m->layers + n) * sizeof *grown);
    if (!grown)
        return err_set(err, ERR_OTHER, "layers: no memory");
    m->source = grown;
    for (int i = 0; i < n; i++)
        m->source[m->layers + i] = r.from + i;
    m->layers += n;
    return 0;
}

int layer_map_parse(struct layer_map *m, const char *ranges, int source_layers,
                    struct err *err)
{
    *m = (struct layer_map){.source_layers = source_layers};
    const char *at = ranges;
    for (;;) {
        struct range r;
        at += strspn(at, " ");
        at = read_range(at, source_layers, &r, err);
        if (!at || append(m, r, err) < 0)
            goto fail;
        if (*at == '\0')
            return 0;
        at++;
    }
fail:
    layer_map_fini(m);
    return -1;
}

int layer_map_drop(struct layer_map *m, int drop, int source_layers, struct err *err)
{
    *m = (struct layer_map){.source_layers = source_layers};
    if (drop < 1 || drop >= source_layers)
        return err_set(err, ERR_USAGE,
                       "drop: expected 1 to %d of the source's %d layers, found %d",
                       source_layers - 1, source_layers, drop);
    if (append(m, (struct range){0, source_layers - drop}, err) < 0 ||
        append(m, (struct range){drop, source_layers}, err) < 0) {
        layer_map_fini(m);
        return -1;
    }
    return 0;
}

int layer_map_identity(struct layer_map *m, int layers, struct err *err)
{
    *m = (struct layer_map){.source_layers = layers};
    return append(m, (struct range){0, layers}, err);
}

char *layer_map_format(const struct layer_map *m, struct err *err)
{
    enum { RANGE_TEXT = 16 }; /* "65535:65536," and its end */
    size_t size = (size_t)m->layers * RANGE_TEXT + 1, used = 0;
    char *text = malloc(size);
    if (!text) {
        err_set(err, ERR_OTHER, "layers: no memory");
        return NULL;
    }
    text[0] = '\0';
    for (int i = 0, end; i < m->layers; i = end) {
        for (end = i + 1; end < m->layers; end++)
            if (m->source[end] != m->source[end - 1] + 1)
                break;
        used += (size_t)snprintf(text + used, size - used, "%s%d:%d", i ? "," : "",
                                 m->source[i], m->source[end - 1] + 1);
    }
    return text;
}

void layer_map_fini(struct layer_map *m)
{
    free(m->source);
    *m = (struct layer_map){0};
}
