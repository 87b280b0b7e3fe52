/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/record.h"

#include "src/base/check.h"

#include <stdlib.h>
#include <string.h>

const char *message_role_name(enum message_role role)
{
    static const char *const names[MESSAGE_ROLES] = {
        [ROLE_SYSTEM] = "system", [ROLE_USER] = "user", [ROLE_ASSISTANT] = "assistant"};
    CHECK(role < MESSAGE_ROLES, "role %d", (int)role);
    return names[role];
}

const char *record_shape_name(enum record_shape shape)
{
    static const char *const names[RECORD_SHAPES] = {
        [RECORD_MESSAGES] = "messages", [RECORD_SHAREGPT] = "sharegpt",
        [RECORD_ALPACA] = "alpaca",     [RECORD_COMPLETION] = "completion",
        [RECORD_OPENORCA] = "openorca", [RECORD_TEXT] = "text",
        [RECORD_PAIRS] = "pairs"};
    CHECK(shape < RECORD_SHAPES, "shape %d", (int)shape);
    return names[shape];
}

void marked_text_clear(struct marked_text *m)
{
    m->bytes = 0;
    m->spans = 0;
    m->failed = false;
}

void marked_text_fini(struct marked_text *m)
{
    free(m->text);
    free(m->span);
    *m = (struct marked_text){0};
}

void marked_text_append(struct marked_text *m, const char *text, size_t bytes)
{
    size_t need = m->bytes + bytes;
    if (bytes == 0 || m->failed)
        return;
    if (need > m->room) {
        size_t room = need + need / 2 + 256;
        char *grown = realloc(m->text, room);
        if (!grown) {
            m->failed = true;
            return;
        }
        m->text = grown;
        m->room = room;
    }
    memcpy(m->text + m->bytes, text, bytes);
    m->bytes = need;
}

void marked_text_mark(struct marked_text *m, size_t begin)
{
    if (m->failed || begin == m->bytes)
        return;
    CHECK(begin < m->bytes && (!m->spans || begin >= m->span[m->spans - 1].end),
          "span from %zu in %zu bytes", begin, m->bytes);
    if (m->spans && m->span[m->spans - 1].end == begin) {
        m->span[m->spans - 1].end = m->bytes;
        return;
    }
    if (m->spans == m->span_room) {
        int room = 2 * m->span_room + 8;
        struct text_span *grown = realloc(m->span, (size_t)room * sizeof *grown);
        if (!grown) {
            m->failed = true;
            return;
        }
        m->span = grown;
        m->span_room = room;
    }
    m->span[m->spans++] = (struct text_span){begin, m->bytes};
}

int marked_text_check(const struct marked_text *m, struct err *err)
{
    return m->failed ? err_set(err, ERR_OTHER,
                               "memory: none left for a text of %zu bytes", m->bytes)
                     : 0;
}
