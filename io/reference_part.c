/* SPDX-License-Identifier: Apache-2.0 */
#include "io/reference_parts.h"

#include "src/base/check.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* The part: a part_head, then blocks, each a block_head and [n][2] doubles, in the byte
 * order of the machine. */
static const char magic[] = "DUSKREFP";
enum { MAGIC_BYTES = 8 };
struct part_head {
    char magic[MAGIC_BYTES];
    uint64_t key; /* reference_hash */
    uint64_t sum; /* XXH3 of the fields before */
};
struct block_head {
    int64_t first, n; /* pairs [first, first + n) */
    uint64_t sum;     /* XXH3 of the values, of first and n, of the key */
};

struct reference_writer {
    char *path, *part;
    struct reference_key key; /* with texts of its own */
    uint64_t hash;            /* of the key */
    int fd;                   /* of the part; -1: works without one */
    int64_t end;              /* of the part's last whole block */
    int64_t done;             /* pairs that are known */
    double *sums;             /* [pairs][2] */
    bool fresh;               /* the part was empty when it was opened */
};

static struct part_head make_head(const struct reference_writer *w)
{
    struct part_head h = {.key = w->hash};
    memcpy(h.magic, magic, MAGIC_BYTES);
    h.sum = XXH3_64bits(&h, offsetof(struct part_head, sum));
    return h;
}

static uint64_t block_sum(const struct reference_writer *w, const struct block_head *h,
                          const double *sums)
{
    uint64_t seed = XXH3_64bits_withSeed(h, offsetof(struct block_head, sum), w->hash);
    return XXH3_64bits_withSeed(sums, (size_t)h->n * REFERENCE_PAIR_BYTES, seed);
}

/* 1: the part is of this key; 0: it is not, or its head is cut; -1 with err set. */
static int read_head(const struct reference_writer *w, int64_t bytes, struct err *err)
{
    static const char nothing[MAGIC_BYTES];
    struct part_head found = {.key = 0}, want = make_head(w);
    int64_t n = bytes < (int64_t)sizeof found ? bytes : (int64_t)sizeof found;
    if (file_pread(w->fd, w->part, &found, (size_t)n, 0, err) < 0)
        return -1;
    size_t m = n < MAGIC_BYTES ? (size_t)n : MAGIC_BYTES;
    /* zeros: its size reached the disk before a crash, and its bytes did not */
    if (memcmp(found.magic, magic, m) != 0 && memcmp(found.magic, nothing, m) != 0)
        return err_set(err, ERR_INPUT,
                       "%s: expected the unfinished part of %s, found another file; "
                       "move it away",
                       w->part, w->path);
    return memcmp(&found, &want, sizeof want) == 0;
}

/* Reads the block at w->end. 1: it is whole, and counted; 0: none is; -1 with err. */
static int read_block(struct reference_writer *w, int64_t bytes, struct err *err)
{
    struct block_head h;
    int64_t left = bytes - w->end - (int64_t)sizeof h;
    if (left < 0)
        return 0;
    if (file_pread(w->fd, w->part, &h, sizeof h, w->end, err) < 0)
        return -1;
    if (h.first != w->done || h.n < 1 || h.n > w->key.pairs - w->done ||
        h.n > left / REFERENCE_PAIR_BYTES)
        return 0;
    double *to = w->sums + REFERENCE_SIDES * w->done;
    size_t size = (size_t)h.n * REFERENCE_PAIR_BYTES;
    if (file_pread(w->fd, w->part, to, size, w->end + (int64_t)sizeof h, err) < 0)
        return -1;
    if (block_sum(w, &h, to) != h.sum)
        return 0;
    w->end += (int64_t)(sizeof h + size);
    w->done += h.n;
    return 1;
}

/* Takes what the part holds, and cuts off what cannot be used. */
static int resume(struct reference_writer *w, struct err *err)
{
    struct stat st;
    if (fstat(w->fd, &st) < 0)
        return err_set_errno(err, 0, "%s: cannot look at it", w->part);
    w->fresh = st.st_size == 0;
    int more = read_head(w, st.st_size, err);
    if (more > 0)
        w->end = sizeof(struct part_head);
    while (more > 0)
        more = read_block(w, st.st_size, err);
    if (more < 0)
        return -1;
    if (ftruncate(w->fd, (off_t)w->end) < 0)
        return err_set_errno(err, 0, "%s: cannot cut it to %lld bytes", w->part,
                             (long long)w->end);
    struct part_head head = make_head(w);
    if (w->end == 0 && file_pwrite(w->fd, w->part, &head, sizeof head, 0, err) < 0)
        return -1;
    if (w->end == 0)
        w->end = sizeof head;
    return 0;
}

/* Opened and locked; fd stays -1 if another process holds the lock. File systems
 * without locks leave it to the checksums to find what two writers mixed up. */
static int open_part(struct reference_writer *w, struct err *err)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    w->fd = open(w->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (w->fd < 0)
        return err_set_errno(err, 0, "%s: cannot create", w->part);
    if (fcntl(w->fd, F_SETLK, &whole) < 0 && (errno == EACCES || errno == EAGAIN)) {
        close(w->fd);
        w->fd = -1;
    }
    return 0;
}

/* Texts and values of the writer's own. */
static int take_key(struct reference_writer *w, const char *path,
                    const struct reference_key *k, struct err *err)
{
    w->hash = reference_hash(k);
    if (reference_key_copy(&w->key, k, err) < 0)
        return -1;
    if (!(w->path = mem_printf(err, "%s", path)) ||
        !(w->part = mem_printf(err, "%s.part", path)) ||
        !(w->sums = mem_array(k->pairs, REFERENCE_PAIR_BYTES, err)))
        return -1;
    return 0;
}

struct reference_writer *reference_begin(const char *path,
                                         const struct reference_key *k, double *sums,
                                         int64_t *done, struct err *err)
{
    CHECK(k->pairs >= 1 && k->pairs <= REFERENCE_MAX_PAIRS, "%lld pairs",
          (long long)k->pairs);
    struct reference_writer *w = mem_array(1, sizeof *w, err);
    if (!w)
        return NULL;
    w->fd = -1;
    if (take_key(w, path, k, err) < 0 || open_part(w, err) < 0 ||
        (w->fd >= 0 && resume(w, err) < 0)) {
        if (w->fresh)
            unlink(w->part);
        reference_close(w);
        return NULL;
    }
    memcpy(sums, w->sums, (size_t)w->done * REFERENCE_PAIR_BYTES);
    *done = w->done;
    return w;
}

int reference_append(struct reference_writer *w, int64_t n, const double *sums,
                     struct err *err)
{
    CHECK(n >= 1 && n <= w->key.pairs - w->done, "%lld pairs after %lld of %lld",
          (long long)n, (long long)w->done, (long long)w->key.pairs);
    struct block_head h = {.first = w->done, .n = n};
    size_t bytes = (size_t)n * REFERENCE_PAIR_BYTES;
    h.sum = block_sum(w, &h, sums);
    if (w->fd >= 0) {
        int64_t at = w->end + (int64_t)sizeof h;
        if (file_pwrite(w->fd, w->part, &h, sizeof h, w->end, err) < 0 ||
            file_pwrite(w->fd, w->part, sums, bytes, at, err) < 0) {
            int cut = ftruncate(w->fd, (off_t)w->end);
            (void)cut; /* else reference_begin drops it, as after a kill */
            return -1;
        }
        w->end = at + (int64_t)bytes;
    }
    memcpy(w->sums + REFERENCE_SIDES * w->done, sums, bytes);
    w->done += n;
    return 0;
}

int reference_commit(struct reference_writer **w, struct err *err)
{
    struct reference_writer *r = *w;
    *w = NULL;
    CHECK(r->done == r->key.pairs, "%lld pairs of %lld", (long long)r->done,
          (long long)r->key.pairs);
    int rc = reference_write(r->path, &r->key, r->sums, err);
    if (rc == 0 && r->fd >= 0)
        unlink(r->part);
    reference_close(r);
    return rc;
}

void reference_close(struct reference_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    reference_key_fini(&w->key);
    mem_free(w->sums);
    free(w->part);
    free(w->path);
    mem_free(w);
}
