/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sealed_parts.h"

#include "src/base/check.h"
#include "src/base/file.h"

#include <xxhash.h>
#include <stdlib.h>
#include <string.h>

/* The user block, little-endian:
 *      0  magic, 8 bytes        8  u32 version    12  u32 number of extents
 *     16  u64 size of the file 24  u64 hash of the bytes outside
 *     32  {u64 offset, u64 bytes} of each extent, then zeros
 *   4088  u64 hash of bytes 0 to 4087 */
static const char magic[8] = {'D', 'U', 'S', 'K', 'S', 'E', 'A', 'L'};
enum { VERSION = 1, EXTENTS_AT = 32, SELF_AT = SEAL_BYTES - 8, COPY_BYTES = 1 << 20 };

static void put_u64(unsigned char *to, uint64_t value)
{
    memcpy(to, &value, sizeof value);
}

static uint64_t get_u64(const unsigned char *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static int by_offset(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

int seal_of_table(struct seal *s, const struct sealed_table *t, struct err *err)
{
    s->file_bytes = t->file_bytes;
    s->extents = 0;
    for (int i = 0; i < t->arrays; i++) {
        if (!t->place[i].bytes)
            continue;
        if (s->extents == SEAL_EXTENTS)
            return err_set(err, ERR_OTHER, "a sealed file holds at most %d arrays",
                           SEAL_EXTENTS);
        s->extent[s->extents].offset = t->place[i].offset;
        s->extent[s->extents].bytes = t->place[i].bytes;
        s->extents++;
    }
    qsort(s->extent, (size_t)s->extents, sizeof *s->extent, by_offset);
    return 0;
}

void seal_encode(struct seal *s, unsigned char block[SEAL_BYTES])
{
    memset(block, 0, SEAL_BYTES);
    memcpy(block, magic, sizeof magic);
    put_u64(block + 8, (uint64_t)VERSION | (uint64_t)s->extents << 32);
    put_u64(block + 16, (uint64_t)s->file_bytes);
    put_u64(block + 24, s->outside);
    for (int i = 0; i < s->extents; i++) {
        put_u64(block + EXTENTS_AT + 16 * i, (uint64_t)s->extent[i].offset);
        put_u64(block + EXTENTS_AT + 16 * i + 8, (uint64_t)s->extent[i].bytes);
    }
    s->self = XXH3_64bits(block, SELF_AT);
    put_u64(block + SELF_AT, s->self);
}

int seal_decode(struct seal *s, const unsigned char block[SEAL_BYTES], const char *path,
                struct err *err)
{
    if (memcmp(block, magic, sizeof magic) != 0)
        return err_set(err, ERR_INPUT,
                       "%s: not a file that dusk wrote, or its start is lost: expected "
                       "a seal (DUSKSEAL) in the first 8 bytes",
                       path);
    s->self = get_u64(block + SELF_AT);
    uint64_t hash = XXH3_64bits(block, SELF_AT);
    if (hash != s->self)
        return err_set(err, ERR_INPUT,
                       "%s: damaged: the seal in bytes 0 to %d hashes to %016llx, it "
                       "says %016llx",
                       path, SEAL_BYTES - 1, (unsigned long long)hash,
                       (unsigned long long)s->self);
    uint64_t version = get_u64(block + 8) & 0xffffffffu;
    uint64_t extents = get_u64(block + 8) >> 32;
    if (version != VERSION)
        return err_set(err, ERR_INPUT,
                       "%s: its seal has version %llu, this program reads version %d",
                       path, (unsigned long long)version, VERSION);
    if (extents > SEAL_EXTENTS)
        return err_set(err, ERR_INPUT,
                       "%s: its seal lists %llu extents, at most %d fit", path,
                       (unsigned long long)extents, SEAL_EXTENTS);
    s->file_bytes = (int64_t)get_u64(block + 16);
    s->outside = get_u64(block + 24);
    s->extents = (int)extents;
    int64_t end = SEAL_BYTES;
    for (int i = 0; i < s->extents; i++) {
        int64_t offset = (int64_t)get_u64(block + EXTENTS_AT + 16 * i);
        int64_t bytes = (int64_t)get_u64(block + EXTENTS_AT + 16 * i + 8);
        if (offset < end || bytes < 1 || bytes > s->file_bytes - offset)
            return err_set(err, ERR_INPUT, "%s: extent %d of its seal is impossible",
                           path, i);
        s->extent[i].offset = offset;
        s->extent[i].bytes = bytes;
        end = offset + bytes;
    }
    return 0;
}

static int hash_range(XXH3_state_t *state, unsigned char *buffer, int fd,
                      const char *path, int64_t begin, int64_t end, int copy_to,
                      struct err *err)
{
    while (begin < end) {
        size_t n = end - begin < COPY_BYTES ? (size_t)(end - begin) : COPY_BYTES;
        if (file_pread(fd, path, buffer, n, begin, err) < 0)
            return -1;
        XXH3_64bits_update(state, buffer, n);
        if (copy_to >= 0 && file_pwrite(copy_to, path, buffer, n, begin, err) < 0)
            return -1;
        begin += (int64_t)n;
    }
    return 0;
}

int seal_hash_outside(int fd, const char *path, const struct seal *s, int copy_to,
                      uint64_t *hash, struct err *err)
{
    XXH3_state_t *state = XXH3_createState();
    unsigned char *buffer = malloc(COPY_BYTES);
    int rc = 0;
    if (!state || !buffer)
        rc = err_set(err, ERR_OTHER, "%s: no memory to check the seal", path);
    else
        XXH3_64bits_reset(state);
    int64_t at = SEAL_BYTES;
    for (int i = 0; rc == 0 && i < s->extents; i++) {
        rc = hash_range(state, buffer, fd, path, at, s->extent[i].offset, copy_to, err);
        at = s->extent[i].offset + s->extent[i].bytes;
    }
    if (rc == 0)
        rc = hash_range(state, buffer, fd, path, at, s->file_bytes, copy_to, err);
    if (rc == 0)
        *hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    free(buffer);
    return rc;
}
