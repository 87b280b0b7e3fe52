/* SPDX-License-Identifier: Apache-2.0 */
#include "io/text_chunks.h"

#include "src/base/file.h"
#include "src/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 20 };

int text_chunks_append(struct text_chunk **chunks, int64_t *n, int file, int64_t bytes,
                       enum text_rule rule, int64_t chunk_bytes, struct err *err)
{
    if (rule == TEXT_FILE)
        chunk_bytes = bytes;
    if (bytes == 0)
        return 0;
    int64_t more = (bytes + chunk_bytes - 1) / chunk_bytes;
    struct text_chunk *grown = realloc(*chunks, (size_t)(*n + more) * sizeof *grown);
    if (!grown)
        return err_set(err, ERR_OTHER, "memory: none left for %lld chunks of text",
                       (long long)(*n + more));
    *chunks = grown;
    for (int64_t i = 0; i < more; i++) {
        int64_t begin = i * chunk_bytes, end = begin + chunk_bytes;
        grown[(*n)++] = (struct text_chunk){file, begin, end < bytes ? end : bytes};
    }
    return 0;
}

/* Positions are offsets in the file. The buffer holds bytes [at, at + used); bytes from
 * `keep` on, the start of the document at hand, stay in it. */
struct text_reader {
    int fd;
    const char *path;
    enum text_rule rule;
    int64_t size, end; /* of the file, of the chunk */
    int64_t pos;       /* next byte to look at: the start of a line */
    int64_t keep, at;
    int64_t cut; /* lines longer than this are dropped; 0: none */
    size_t used, room;
    char *buffer;
};

static char *bytes_at(const struct text_reader *r, int64_t offset)
{
    return r->buffer + (offset - r->at);
}

static int64_t buffered_end(const struct text_reader *r)
{
    return r->at + (int64_t)r->used;
}

static int too_long(const struct text_reader *r, struct err *err)
{
    return err_set(err, ERR_INPUT,
                   "%s:%lld: expected documents of at most 64 MiB, found a longer one",
                   r->path, (long long)text_line_number(r->path, r->keep));
}

/* Reads the next piece of the file behind the buffered bytes. There is one. */
static int fill(struct text_reader *r, struct err *err)
{
    int64_t from = buffered_end(r), left = r->size - from;
    size_t bytes = left < READ_BYTES ? (size_t)left : READ_BYTES;
    if (from - r->keep > TEXT_DOCUMENT_BYTES + 2) /* CR and LF may follow it */
        return too_long(r, err);
    if (r->keep > r->at) {
        size_t kept = (size_t)(from - r->keep);
        memmove(r->buffer, bytes_at(r, r->keep), kept);
        r->at = r->keep;
        r->used = kept;
    }
    if (r->used + bytes > r->room) {
        size_t room = 2 * (r->used + bytes);
        char *grown = realloc(r->buffer, room);
        if (!grown)
            return err_set(err, ERR_OTHER, "memory: no %zu bytes left for text", room);
        r->buffer = grown;
        r->room = room;
    }
    if (file_pread(r->fd, r->path, r->buffer + r->used, bytes, from, err))
        return -1;
    r->used += bytes;
    return 0;
}

/* *newline: offset of the first LF at or after `from`, or of the end of the file. */
static int find_newline(struct text_reader *r, int64_t from, int64_t *newline,
                        struct err *err)
{
    for (;;) {
        int64_t have = buffered_end(r);
        if (from < have) {
            const char *begin = bytes_at(r, from);
            const char *found = memchr(begin, '\n', (size_t)(have - from));
            if (found) {
                *newline = from + (found - begin);
                return 0;
            }
            from = have;
        }
        if (r->cut && from - r->keep > r->cut + 1) /* a CR may follow it */
            r->keep = from;
        if (have == r->size) {
            *newline = r->size;
            return 0;
        }
        if (fill(r, err))
            return -1;
    }
}

/* Moves pos to the first line that starts at or after `pos`, but not beyond the
 * chunk's end: what a line of another chunk holds is of no interest here. */
static int skip_to_line(struct text_reader *r, struct err *err)
{
    int64_t from = r->pos - 1; /* a LF just before pos makes pos the start of a line */
    while (from < r->end) {
        if (from == buffered_end(r)) {
            r->keep = from;
            if (fill(r, err))
                return -1;
        }
        size_t bytes = (size_t)(buffered_end(r) - from);
        const char *begin = bytes_at(r, from), *found = memchr(begin, '\n', bytes);
        if (found) {
            r->pos = from + (found - begin) + 1;
            return 0;
        }
        from += (int64_t)bytes;
    }
    r->pos = r->end;
    return 0;
}

static bool is_blank(const char *text, int64_t bytes)
{
    while (bytes > 0 && (*text == ' ' || *text == '\t' || *text == '\r')) {
        text++;
        bytes--;
    }
    return bytes == 0;
}

/* Is the line that ends with the LF before pos blank? Looks back as far as that line
 * holds nothing but spaces. */
static int line_before_is_blank(const struct text_reader *r, bool *blank,
                                struct err *err)
{
    char piece[4096];
    int64_t end = r->pos - 1;
    while (end > 0) {
        int64_t begin = end > (int64_t)sizeof piece ? end - (int64_t)sizeof piece : 0;
        if (file_pread(r->fd, r->path, piece, (size_t)(end - begin), begin, err))
            return -1;
        while (end > begin && is_blank(&piece[end - begin - 1], 1))
            end--;
        if (end > begin) {
            *blank = piece[end - begin - 1] == '\n';
            return 0;
        }
    }
    *blank = true;
    return 0;
}

/* Skips what belongs to a document of the chunk before. */
static int find_start(struct text_reader *r, struct err *err)
{
    bool blank = true;
    r->keep = r->pos;
    if (r->pos == 0) {
        if (r->size >= 3 && fill(r, err))
            return -1;
        if (r->size >= 3 && memcmp(r->buffer, "\xef\xbb\xbf", 3) == 0)
            r->pos = 3;
        return 0;
    }
    r->at = r->keep = r->pos - 1;
    if (skip_to_line(r, err))
        return -1;
    if (r->rule != TEXT_BLANK || r->pos >= r->end)
        return 0;
    if (line_before_is_blank(r, &blank, err))
        return -1;
    while (!blank && r->pos < r->end) {
        int64_t begin = r->keep = r->pos, newline;
        if (find_newline(r, begin, &newline, err))
            return -1;
        blank = is_blank(bytes_at(r, begin), newline - begin);
        r->pos = newline + 1;
    }
    return 0;
}

struct text_reader *text_reader_open(const char *path, int64_t file_bytes,
                                     enum text_rule rule, int64_t begin, int64_t end,
                                     struct err *err)
{
    struct text_reader *r = mem_array(1, sizeof *r, err);
    if (!r)
        return NULL;
    r->path = path;
    r->rule = rule;
    r->size = file_bytes;
    r->pos = begin;
    r->end = end;
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0) {
        err_set_errno(err, 1, "%s: cannot open", path);
        goto fail;
    }
    if (find_start(r, err))
        goto fail;
    return r;
fail:
    text_reader_close(r);
    return NULL;
}

void text_reader_close(struct text_reader *r)
{
    if (!r)
        return;
    if (r->fd >= 0)
        close(r->fd);
    free(r->buffer);
    mem_free(r);
}

void text_reader_cut(struct text_reader *r, int64_t bytes)
{
    r->cut = bytes;
}

/* Drops the CR of every CR LF in place; the new length. */
static size_t drop_cr(char *text, size_t bytes)
{
    char *cr = memchr(text, '\r', bytes);
    if (!cr)
        return bytes;
    char *to = cr;
    const char *end = text + bytes;
    for (const char *from = cr; from < end; from++)
        if (*from != '\r' || (from + 1 < end && from[1] != '\n'))
            *to++ = *from;
    return (size_t)(to - text);
}

static int give(struct text_reader *r, int64_t begin, int64_t end,
                struct text_document *d, struct err *err)
{
    char *text = bytes_at(r, begin);
    size_t bytes = drop_cr(text, (size_t)(end - begin));
    if (bytes > TEXT_DOCUMENT_BYTES)
        return too_long(r, err);
    *d = (struct text_document){text, bytes, begin, false};
    return 1;
}

static int next_line(struct text_reader *r, struct text_document *d, struct err *err)
{
    while (r->pos < r->end) {
        int64_t begin = r->keep = r->pos, newline;
        if (find_newline(r, begin, &newline, err))
            return -1;
        r->pos = newline + 1;
        if (r->keep > begin) {
            *d = (struct text_document){"", (size_t)(newline - begin), begin, true};
            return 1;
        }
        int more = give(r, begin, newline, d, err);
        if (more < 0 || d->bytes > 0)
            return more;
    }
    return 0;
}

static int next_block(struct text_reader *r, struct text_document *d, struct err *err)
{
    int64_t begin = -1, end = 0;
    while (r->pos < (begin < 0 ? r->end : r->size)) {
        int64_t line = r->pos, newline;
        if (begin < 0)
            r->keep = line;
        if (find_newline(r, line, &newline, err))
            return -1;
        r->pos = newline + 1;
        bool blank = is_blank(bytes_at(r, line), newline - line);
        if (blank && begin >= 0)
            break;
        if (blank)
            continue;
        begin = begin < 0 ? line : begin;
        end = newline;
    }
    return begin < 0 ? 0 : give(r, begin, end, d, err);
}

static int next_file(struct text_reader *r, struct text_document *d, struct err *err)
{
    int64_t begin = r->keep = r->pos;
    if (begin >= r->size)
        return 0;
    while (buffered_end(r) < r->size)
        if (fill(r, err))
            return -1;
    r->pos = r->size;
    int more = give(r, begin, r->size, d, err);
    return more > 0 && d->bytes == 0 ? 0 : more;
}

int text_reader_next(struct text_reader *r, struct text_document *d, struct err *err)
{
    switch (r->rule) {
    case TEXT_LINE:
        return next_line(r, d, err);
    case TEXT_BLANK:
        return next_block(r, d, err);
    case TEXT_FILE:
        break;
    }
    return next_file(r, d, err);
}

int64_t text_line_number(const char *path, int64_t offset)
{
    char piece[65536];
    int64_t line = 1, at = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    while (at < offset) {
        size_t ask =
            offset - at < (int64_t)sizeof piece ? (size_t)(offset - at) : sizeof piece;
        ssize_t n = pread(fd, piece, ask, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            line = 0;
            break;
        }
        for (ssize_t i = 0; i < n; i++)
            line += piece[i] == '\n';
        at += n;
    }
    close(fd);
    return line;
}
