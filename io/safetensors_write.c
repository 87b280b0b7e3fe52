/* SPDX-License-Identifier: Apache-2.0 */
#include "io/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, ALIGN = 8, ENTRY_ROOM = 160 }; /* room: all but the name */

static int by_width_and_name(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;
    if (x->dtype != y->dtype)
        return x->dtype < y->dtype ? -1 : 1; /* the enum goes from wide to narrow */
    return strcmp(x->name, y->name);
}

static size_t lay_out(struct safetensors_entry *entry, int n)
{
    size_t room = ENTRY_ROOM;
    int64_t at = 0;
    qsort(entry, (size_t)n, sizeof *entry, by_width_and_name);
    for (int i = 0; i < n; i++) {
        struct safetensors_entry *e = &entry[i];
        e->bytes = (int64_t)dtype_bytes(e->dtype) * e->shape[0] *
                   (e->ndim > 1 ? e->shape[1] : 1);
        e->offset = at;
        at += e->bytes;
        room += ENTRY_ROOM + strlen(e->name);
    }
    return room;
}

static size_t print_entry(char *to, size_t size, const struct safetensors_entry *e)
{
    int n = snprintf(to, size, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld", e->name,
                     dtype_name(e->dtype), (long long)e->shape[0]);
    if (e->ndim > 1)
        n += snprintf(to + n, size - (size_t)n, ",%lld", (long long)e->shape[1]);
    n += snprintf(to + n, size - (size_t)n, "],\"data_offsets\":[%lld,%lld]}",
                  (long long)e->offset, (long long)(e->offset + e->bytes));
    return (size_t)n;
}

char *safetensors_header(struct safetensors_entry *entry, int n, size_t *bytes,
                         struct err *err)
{
    size_t room = lay_out(entry, n), used = LENGTH_BYTES;
    char *text = malloc(room);
    if (!text) {
        err_set(err, ERR_OTHER, "out of memory: a header of %zu bytes", room);
        return NULL;
    }
    used += (size_t)snprintf(text + used, room - used,
                             "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = 0; i < n; i++)
        used += print_entry(text + used, room - used, &entry[i]);
    text[used++] = '}';
    while (used % ALIGN)
        text[used++] = ' ';
    uint64_t length = used - LENGTH_BYTES;
    for (int i = 0; i < LENGTH_BYTES; i++)
        text[i] = (char)(length >> (8 * i) & 0xff);
    *bytes = used;
    return text;
}
