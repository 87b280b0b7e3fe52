/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/bad_lines.h"

#include "src/base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool bad_lines_full(const struct bad_lines *b)
{
    return b->all >= BAD_LINES;
}

void bad_lines_add(struct bad_lines *b, int64_t chunk, const char *text)
{
    if (!bad_lines_full(b)) {
        snprintf(b->line[b->all].text, BAD_LINE_BYTES, "%s", text);
        b->line[b->all].chunk = chunk;
    }
    b->all++;
}

/* Each rank's lines are in order and a chunk is one rank's: the lowest chunk is next.
 * Its rank sends the text to all. */
int bad_lines_gather(const struct bad_lines *b, struct comm *c,
                     char lines[BAD_LINES][BAD_LINE_BYTES])
{
    int found = 0, next = 0, have = bad_lines_full(b) ? BAD_LINES : (int)b->all;
    for (; found < BAD_LINES; found++) {
        int64_t mine = next < have ? b->line[next].chunk : INT64_MAX, first = mine;
        int64_t rank = comm_size(c);
        comm_min_i64(c, &first, 1);
        if (first == INT64_MAX)
            break;
        if (mine == first) {
            rank = comm_rank(c);
            memcpy(lines[found], b->line[next++].text, BAD_LINE_BYTES);
        }
        comm_min_i64(c, &rank, 1);
        comm_bcast(c, lines[found], BAD_LINE_BYTES, (int)rank);
    }
    return found;
}

void bad_chunk_write(const char *path, int64_t chunk)
{
    struct err ignored;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    file_pwrite(fd, path, &chunk, sizeof chunk, 0, &ignored);
    close(fd);
}

int64_t bad_chunk_read(const char *path)
{
    int64_t chunk = INT64_MAX;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return chunk;
    if (pread(fd, &chunk, sizeof chunk, 0) != (ssize_t)sizeof chunk)
        chunk = INT64_MAX; /* not written yet */
    close(fd);
    return chunk;
}
