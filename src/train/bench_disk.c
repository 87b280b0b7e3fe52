/* SPDX-License-Identifier: Apache-2.0 */
/* The disk under a folder, as checkpoints use it: each rank writes a file of its own in
 * pieces of 16 MiB and syncs it; then reads it back after the kernel was asked to
 * forget it. Rates are of all ranks together. */
#define _GNU_SOURCE /* posix_fadvise */
#include "src/train/bench.h"

#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 16 << 20, ROUNDS = 3 };

struct disk {
    char *path;
    unsigned char *piece;
    int64_t bytes;
    int fd;
};

static int write_file(struct disk *d, struct err *err)
{
    for (int64_t at = 0; at < d->bytes; at += PIECE) {
        int64_t left = d->bytes - at;
        if (file_pwrite(d->fd, d->path, d->piece, left < PIECE ? (size_t)left : PIECE,
                        at, err))
            return -1;
    }
    return fsync(d->fd) ? err_set_errno(err, 0, "%s: cannot sync", d->path) : 0;
}

static int read_file(struct disk *d, struct err *err)
{
    for (int64_t at = 0; at < d->bytes; at += PIECE) {
        int64_t left = d->bytes - at;
        if (file_pread(d->fd, d->path, d->piece, left < PIECE ? (size_t)left : PIECE,
                       at, err))
            return -1;
    }
    return 0;
}

/* Seconds of the slowest rank; negative with err set. */
static double all(struct bench *b, struct disk *d,
                  int (*run)(struct disk *, struct err *), struct err *err)
{
    comm_barrier(b->world);
    double begin = clock_s();
    int failed = run(d, err);
    double took = clock_s() - begin;
    if (comm_agree(b->world, failed, err))
        return -1;
    comm_max_f64(b->world, &took, 1);
    return took;
}

static int measure(struct bench *b, struct disk *d, struct err *err)
{
    double x[2][ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        if ((x[0][i] = all(b, d, write_file, err)) < 0)
            return -1;
        posix_fadvise(d->fd, 0, 0, POSIX_FADV_DONTNEED);
        if ((x[1][i] = all(b, d, read_file, err)) < 0)
            return -1;
    }
    double gb = (double)d->bytes * comm_size(b->world) * 1e-9;
    bench_title(b, "%.0f MB a rank in %.40s", (double)d->bytes * 1e-6, b->folder);
    bench_add(b, "write and sync", "GB/s", bench_rate(bench_value_of(x[0], ROUNDS), gb),
              -1, NULL);
    bench_add(b, "read", "GB/s", bench_rate(bench_value_of(x[1], ROUNDS), gb), -1,
              NULL);
    return 0;
}

int bench_disk(struct bench *b, struct err *err)
{
    struct disk d = {.bytes = b->disk_bytes, .fd = -1};
    b->section = "disk";
    d.path = mem_printf(err, "%s/dusk-bench-%d-%ld.tmp", b->folder, comm_rank(b->world),
                        (long)getpid());
    d.piece = mem_array(PIECE, 1, err);
    int failed = !d.path || !d.piece;
    if (!failed) {
        for (int i = 0; i < PIECE; i++) /* what does not compress to nothing */
            d.piece[i] = (unsigned char)((unsigned)i * 2654435761u >> 13);
        d.fd = open(d.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (d.fd < 0)
            failed = err_set_errno(err, 0, "%s: cannot create", d.path);
    }
    failed = comm_agree(b->world, failed, err) || measure(b, &d, err);
    if (d.fd >= 0) {
        close(d.fd);
        unlink(d.path);
    }
    mem_free(d.piece);
    free(d.path);
    return failed ? -1 : 0;
}
