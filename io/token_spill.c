/* SPDX-License-Identifier: Apache-2.0 */
#include "io/token_spill.h"

#include "src/base/check.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20 };

struct spill_writer {
    int fd;
    const char *path;
    size_t id_bytes, used; /* used: bytes in the buffer */
    int64_t at;            /* bytes of the file before the buffer */
    struct spill_chunk chunk;
    struct spill_record *record;
    int64_t room; /* of record */
    unsigned char *buffer;
};

struct spill_writer *spill_create(const char *path, size_t id_bytes, struct err *err)
{
    struct spill_writer *w = mem_array(1, sizeof *w, err);
    if (!w)
        return NULL;
    w->path = path;
    w->id_bytes = id_bytes;
    w->fd = -1;
    if (!(w->buffer = mem_array(BUFFER_BYTES, 1, err)))
        goto fail;
    w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (w->fd < 0) {
        err_set_errno(err, 0, "%s: cannot create", path);
        goto fail;
    }
    return w;
fail:
    spill_abandon(w);
    return NULL;
}

void spill_abandon(struct spill_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    free(w->record);
    mem_free(w->buffer);
    mem_free(w);
}

static int flush(struct spill_writer *w, struct err *err)
{
    if (file_pwrite(w->fd, w->path, w->buffer, w->used, w->at, err))
        return -1;
    w->at += (int64_t)w->used;
    w->used = 0;
    return 0;
}

void spill_begin_chunk(struct spill_writer *w)
{
    w->chunk = (struct spill_chunk){.ids_at = w->at + (int64_t)w->used};
}

static int add_record(struct spill_writer *w, struct spill_record record,
                      struct err *err)
{
    if (w->chunk.documents == w->room) {
        int64_t room = 2 * w->room + 1024;
        struct spill_record *grown = realloc(w->record, (size_t)room * sizeof *grown);
        if (!grown)
            return err_set(err, ERR_OTHER, "memory: none left for %lld documents",
                           (long long)room);
        w->record = grown;
        w->room = room;
    }
    w->record[w->chunk.documents++] = record;
    return 0;
}

int spill_add(struct spill_writer *w, const int32_t *ids, int64_t n, size_t text_bytes,
              struct err *err)
{
    CHECK(n <= UINT32_MAX && text_bytes <= UINT32_MAX, "%lld ids", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        if (w->used + w->id_bytes > BUFFER_BYTES && flush(w, err))
            return -1;
        if (w->id_bytes == 2) {
            uint16_t id = (uint16_t)ids[i];
            memcpy(w->buffer + w->used, &id, sizeof id);
        } else {
            memcpy(w->buffer + w->used, &ids[i], sizeof ids[i]);
        }
        w->used += w->id_bytes;
    }
    w->chunk.ids += n;
    w->chunk.text_bytes += (int64_t)text_bytes;
    return add_record(w, (struct spill_record){(uint32_t)n, (uint32_t)text_bytes}, err);
}

int spill_end_chunk(struct spill_writer *w, struct spill_chunk *chunk, struct err *err)
{
    if (flush(w, err))
        return -1;
    size_t bytes = (size_t)w->chunk.documents * sizeof *w->record;
    w->chunk.records_at = w->at;
    if (file_pwrite(w->fd, w->path, w->record, bytes, w->at, err))
        return -1;
    w->at += (int64_t)bytes;
    *chunk = w->chunk;
    return 0;
}

int spill_close(struct spill_writer *w, struct err *err)
{
    int failed = 0;
    if (close(w->fd))
        failed = err_set_errno(err, 0, "%s: cannot close", w->path);
    w->fd = -1;
    spill_abandon(w);
    return failed;
}

int spill_open_chunk(struct spill_reader *r, const char *path, size_t id_bytes,
                     const struct spill_chunk *chunk, struct err *err)
{
    *r = (struct spill_reader){
        .fd = -1, .path = path, .id_bytes = id_bytes, .chunk = *chunk};
    r->record = mem_array(chunk->documents, sizeof *r->record, err);
    if (!r->record)
        return -1;
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0) {
        err_set_errno(err, 0, "%s: cannot open", path);
        goto fail;
    }
    if (file_pread(r->fd, path, r->record, (size_t)chunk->documents * sizeof *r->record,
                   chunk->records_at, err))
        goto fail;
    return 0;
fail:
    spill_close_chunk(r);
    return -1;
}

int spill_read_ids(const struct spill_reader *r, int64_t begin, int64_t n, void *ids,
                   struct err *err)
{
    CHECK(begin >= 0 && begin + n <= r->chunk.ids, "ids %lld + %lld of %lld",
          (long long)begin, (long long)n, (long long)r->chunk.ids);
    return file_pread(r->fd, r->path, ids, (size_t)n * r->id_bytes,
                      r->chunk.ids_at + begin * (int64_t)r->id_bytes, err);
}

void spill_close_chunk(struct spill_reader *r)
{
    if (r->fd >= 0)
        close(r->fd);
    mem_free(r->record);
    r->fd = -1;
    r->record = NULL;
}
