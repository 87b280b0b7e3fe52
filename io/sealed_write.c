/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "io/sealed_parts.h"

#include "src/base/check.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum {
    NAMES_TRIED = 10000,    /* temporary names that dead processes may have left */
    PIECE_BLOCKS = 1 << 15, /* checksums summed over ranks at a time */
    FLUSH_BYTES = 8 << 20,  /* written bytes after which the disk is set to work */
};

struct sealed_writer {
    struct comm *c;
    char *path, *temporary; /* the same on all ranks */
    int fd;                 /* of the temporary; -1: not open */
    int skeleton;           /* rank 0: HDF5's file in memory; else -1 */
    struct sealed_table table;
    uint64_t *sum;        /* [table.blocks], of what this rank wrote */
    unsigned char *times; /* [table.blocks], how often this rank wrote it */
    bool failed;          /* a write failed: the file cannot be committed */
    struct err failure;
};

static void writer_free(struct sealed_writer *w)
{
    if (w->fd >= 0)
        close(w->fd);
    if (w->skeleton >= 0)
        close(w->skeleton);
    sealed_table_fini(&w->table);
    mem_free(w->sum);
    mem_free(w->times);
    free(w->temporary);
    free(w->path);
    free(w);
}

/* Closes on all ranks, then removes the temporary. Collective. */
static void writer_drop(struct sealed_writer *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    comm_barrier(w->c);
    if (comm_root(w->c) && w->temporary)
        unlink(w->temporary);
    writer_free(w);
}

static int check_target(const char *path, bool replace, struct err *err)
{
    struct stat st;
    if (lstat(path, &st) < 0) {
        if (errno == ENOENT)
            return 0;
        return err_set_errno(err, 0, "%s: cannot create", path);
    }
    if (S_ISDIR(st.st_mode))
        return err_set(err, ERR_USAGE, "%s: is a folder; expected the name of a file",
                       path);
    if (!replace)
        return err_set(err, ERR_USAGE, "%s: exists; --force replaces it", path);
    return 0;
}

/* PATH.tmp-PID-N, new. A name that a dead process left is passed over. */
static int open_temporary(struct sealed_writer *w, struct err *err)
{
    for (int i = 0; i < NAMES_TRIED; i++) {
        w->temporary = mem_printf(err, "%s.tmp-%ld-%d", w->path, (long)getpid(), i);
        if (!w->temporary)
            return -1;
        w->fd = open(w->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd >= 0)
            return 0;
        int e = errno;
        free(w->temporary);
        w->temporary = NULL;
        errno = e;
        if (e != EEXIST)
            return err_set_errno(err, 0, "%s: cannot create", w->path);
    }
    return err_set(err, ERR_IO, "%s: %d names %s.tmp-* are taken: remove them", w->path,
                   NAMES_TRIED, w->path);
}

/* Room on the disk is asked for at once, so that a full one is met before the work. A
 * file system that cannot say leaves it to the writes. */
static int reserve(struct sealed_writer *w, struct err *err)
{
    int64_t bytes = w->table.file_bytes;
    int rc;
    do
        rc = fallocate(w->fd, 0, 0, (off_t)bytes);
    while (rc < 0 && errno == EINTR);
    if (rc < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL))
        rc = ftruncate(w->fd, (off_t)bytes);
    if (rc < 0)
        return err_set_errno(err, 0, "%s: cannot write a file of %lld bytes", w->path,
                             (long long)bytes);
    return 0;
}

/* The limit also holds for the file in memory, where HDF5 would meet it. */
static int check_size_limit(const struct sealed_writer *w, struct err *err)
{
    struct rlimit limit;
    int64_t bytes = 8 * w->table.blocks + 8192 * (w->table.arrays + 8); /* roughly */
    for (int i = 0; i < w->table.arrays; i++)
        bytes += w->table.place[i].bytes;
    if (getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY ||
        (uint64_t)bytes <= limit.rlim_cur)
        return 0;
    return err_set(
        err, ERR_IO,
        "%s: cannot write a file of about %lld bytes: this process may write at "
        "most %llu (ulimit -f)",
        w->path, (long long)bytes, (unsigned long long)limit.rlim_cur);
}

static int create_on_root(struct sealed_writer *w, bool replace,
                          const struct sealed_array *arrays, int arrays_n,
                          const struct sealed_attr *attrs, int attrs_n, struct err *err)
{
    struct seal seal;
    if (check_target(w->path, replace, err) < 0 ||
        sealed_table_init(&w->table, arrays, arrays_n, attrs, attrs_n, err) < 0 ||
        check_size_limit(w, err) < 0)
        return -1;
    w->skeleton = memfd_create("dusk-skeleton", MFD_CLOEXEC);
    if (w->skeleton < 0)
        return err_set_errno(err, 0, "%s: no file in memory for its layout", w->path);
    if (sealed_h5_layout(w->skeleton, &w->table, err) < 0 ||
        seal_of_table(&seal, &w->table, err) < 0)
        return err_prefix(err, "%s", w->path);
    if (open_temporary(w, err) < 0)
        return -1;
    return reserve(w, err);
}

/* Memory for checksums, and on other ranks the file that rank 0 made. */
static int create_on_all(struct sealed_writer *w, struct err *err)
{
    w->sum = mem_array(w->table.blocks, sizeof *w->sum, err);
    w->times = mem_array(w->table.blocks, 1, err);
    if (!w->sum || !w->times)
        return -1;
    if (w->fd < 0)
        w->fd = open(w->temporary, O_RDWR | O_CLOEXEC);
    if (w->fd < 0)
        return err_set_errno(err, 0, "%s: cannot open", w->temporary);
    return 0;
}

struct sealed_writer *sealed_create(struct comm *c, const char *path, bool replace,
                                    const struct sealed_array *arrays, int arrays_n,
                                    const struct sealed_attr *attrs, int attrs_n,
                                    struct err *err)
{
    struct sealed_writer *w = calloc(1, sizeof *w);
    CHECK(w, "no memory for a writer");
    w->c = c;
    w->fd = w->skeleton = -1;
    w->path = strdup(path);
    CHECK(w->path, "no memory for a path");
    int rc = comm_root(c)
                 ? create_on_root(w, replace, arrays, arrays_n, attrs, attrs_n, err)
                 : 0;
    if (comm_agree(c, rc < 0, err) < 0) {
        writer_drop(w);
        return NULL;
    }
    sealed_table_bcast(c, &w->table);
    comm_bcast_string(c, &w->temporary, 0);
    if (comm_agree(c, create_on_all(w, err) < 0, err) < 0) {
        writer_drop(w);
        return NULL;
    }
    return w;
}

static int write_failed(struct sealed_writer *w, const struct err *err)
{
    if (!w->failed)
        w->failure = *err;
    w->failed = true;
    return -1;
}

int sealed_write(struct sealed_writer *w, int array, int64_t layer, int64_t begin,
                 const void *data, size_t bytes, struct err *err)
{
    static const char zeros[SEALED_BLOCK_BYTES];
    int64_t block = sealed_table_block(&w->table, array, layer, begin, bytes);
    const struct sealed_place *p = &w->table.place[array];
    int64_t at = p->offset + layer * p->layer_bytes + begin;
    for (size_t done = 0; done < bytes; block++) {
        size_t n =
            bytes - done < SEALED_BLOCK_BYTES ? bytes - done : SEALED_BLOCK_BYTES;
        w->sum[block] = XXH3_64bits(data ? (const char *)data + done : zeros, n);
        if (w->times[block] < UINT8_MAX)
            w->times[block]++;
        done += n;
    }
    if (!data)
        return 0;
    if (file_pwrite(w->fd, w->path, data, bytes, at, err) < 0)
        return write_failed(w, err);
    if (bytes >= FLUSH_BYTES / 8) /* start now, so that the sync at the end is short */
        sync_file_range(w->fd, (off_t)at, (off_t)bytes, SYNC_FILE_RANGE_WRITE);
    return 0;
}

static int block_error(const struct sealed_writer *w, int64_t block, uint64_t times,
                       struct err *err)
{
    int i = 0;
    while (block >= w->table.place[i].first_block + w->table.place[i].blocks)
        i++;
    const struct sealed_place *p = &w->table.place[i];
    int64_t in_array = block - p->first_block;
    char name[128];
    sealed_table_name(&w->table, i, in_array / p->layer_blocks, name, sizeof name);
    return err_set(err, ERR_OTHER,
                   "%s: the 64 KiB block at byte %lld of %s was written %llu times, "
                   "expected once",
                   w->path,
                   (long long)(in_array % p->layer_blocks * SEALED_BLOCK_BYTES), name,
                   (unsigned long long)times);
}

/* Sums the ranks' checksums into w->sum and checks that each block was written once.
 * The answer is the same on all ranks. Collective. */
static int gather_sums(struct sealed_writer *w, struct err *err)
{
    uint64_t *times = mem_array(PIECE_BLOCKS, sizeof *times, err);
    if (comm_agree(w->c, !times, err) < 0) {
        mem_free(times);
        return -1;
    }
    int rc = 0;
    for (int64_t first = 0; first < w->table.blocks; first += PIECE_BLOCKS) {
        int64_t left = w->table.blocks - first;
        int64_t n = left < PIECE_BLOCKS ? left : PIECE_BLOCKS;
        for (int64_t i = 0; i < n; i++)
            times[i] = w->times[first + i];
        comm_sum_u64(w->c, times, n);
        comm_sum_u64(w->c, w->sum + first, n);
        for (int64_t i = 0; rc == 0 && i < n; i++)
            if (times[i] != 1)
                rc = block_error(w, first + i, times[i], err);
    }
    mem_free(times);
    return rc;
}

/* Puts the checksums into the skeleton and copies all that is no array to the file. */
static int write_outside(struct sealed_writer *w, struct seal *seal, struct err *err)
{
    for (int i = 0; i < w->table.arrays; i++) {
        const struct sealed_place *p = &w->table.place[i];
        if (file_pwrite(w->skeleton, w->path, w->sum + p->first_block,
                        (size_t)p->blocks * sizeof *w->sum, p->sums, err) < 0)
            return -1;
    }
    unsigned char block[SEAL_BYTES];
    if (seal_of_table(seal, &w->table, err) < 0 ||
        seal_hash_outside(w->skeleton, w->path, seal, w->fd, &seal->outside, err) < 0)
        return -1;
    seal_encode(seal, block);
    return file_pwrite(w->fd, w->path, block, sizeof block, 0, err);
}

static int finish_on_root(struct sealed_writer *w, struct err *err)
{
    struct seal seal;
    if (write_outside(w, &seal, err) < 0)
        return -1;
    if (fsync(w->fd) < 0)
        return err_set_errno(err, 0, "%s: cannot sync", w->path);
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) < 0)
        return err_set_errno(err, 0, "%s: cannot close", w->path);
    if (rename(w->temporary, w->path) < 0)
        return err_set_errno(err, 0, "%s: cannot rename %s to it", w->path,
                             w->temporary);
    free(w->temporary);
    w->temporary = NULL;
    return file_sync_folder_of(w->path, err);
}

static int sync_own(struct sealed_writer *w, struct err *err)
{
    if (fdatasync(w->fd) < 0)
        return err_set_errno(err, 0, "%s: cannot sync", w->path);
    if (comm_root(w->c))
        return 0;
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) < 0)
        return err_set_errno(err, 0, "%s: cannot close", w->path);
    return 0;
}

int sealed_commit(struct sealed_writer *w, struct err *err)
{
    if (w->failed)
        *err = w->failure;
    int rc = comm_agree(w->c, w->failed, err);
    if (rc == 0)
        rc = gather_sums(w, err);
    if (rc == 0)
        rc = comm_agree(w->c, sync_own(w, err) < 0, err);
    if (rc == 0)
        rc = comm_agree(w->c, comm_root(w->c) && finish_on_root(w, err) < 0, err);
    writer_drop(w);
    return rc;
}

void sealed_abort(struct sealed_writer *w)
{
    writer_drop(w);
}
