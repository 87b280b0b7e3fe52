/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/path.h"

#include <string.h>

/* Copies the path's first word; returns what follows its dot, or NULL at the last. */
static const char *next_word(const char *path, char word[PATH_BYTES])
{
    size_t n = strcspn(path, "."), kept = n < PATH_BYTES ? n : PATH_BYTES - 1;
    memcpy(word, path, kept);
    word[kept] = '\0';
    return path[n] ? path + n + 1 : NULL;
}

struct tree_node *path_find(const struct tree_node *root, const char *path)
{
    char word[PATH_BYTES];
    struct tree_node *node = NULL;
    while (path) {
        path = next_word(path, word);
        node = tree_get(root, word);
        if (!node)
            return NULL;
        root = node;
    }
    return node;
}

struct tree_place path_place(const struct tree_node *root, const char *path)
{
    char word[PATH_BYTES];
    struct tree_place at = root->at;
    while (path) {
        path = next_word(path, word);
        const struct tree_node *node = tree_get(root, word);
        if (!node)
            return at;
        at = path ? node->key_at : node->at;
        root = node;
    }
    return at;
}

int path_put(struct tree_node *root, const char *path, struct tree_node *value,
             struct err *err)
{
    char word[PATH_BYTES];
    struct tree_node *map = root;
    for (;;) {
        path = next_word(path, word);
        if (!path)
            return tree_put(map, word, value, err);
        struct tree_node *section = tree_get(map, word);
        if (!section) {
            section = tree_map(value->at, err);
            if (!section || tree_put(map, word, section, err) < 0) {
                tree_free(value);
                return -1;
            }
        }
        map = section;
    }
}
