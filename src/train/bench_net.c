/* SPDX-License-Identifier: Apache-2.0 */
/* The network between the ranks of the job. A latency is half of a round trip; a
 * collective's rate is the array's bytes a second, whatever travels for it. */
#include "src/train/bench.h"

#include "mpi/net_time.h"
#include "src/base/mem.h"

#include <stdio.h>

enum { LARGEST = 64 << 20, PIECE = 1 << 20 };

struct net {
    struct comm *world;
    int peer;
    size_t bytes, largest;
    enum net_collective what;
    int64_t n, piece; /* numbers */
    float *x, *y;
};

static void ping(void *context)
{
    const struct net *t = context;
    net_ping(t->world, t->peer, t->x, t->bytes);
}

static void collective(void *context)
{
    const struct net *t = context;
    net_collective(t->world, t->what, t->n, t->piece, t->x, t->y);
}

/* "4 KB", in powers of 1024. */
static const char *size_name(size_t bytes, char *text, size_t room)
{
    if (bytes >= 1 << 20)
        snprintf(text, room, "%u MiB", (unsigned)(bytes >> 20));
    else if (bytes >= 1 << 10)
        snprintf(text, room, "%u KiB", (unsigned)(bytes >> 10));
    else
        snprintf(text, room, "%u B", (unsigned)bytes);
    return text;
}

static void pings(struct bench *b, struct net *t, int peer)
{
    t->peer = peer;
    bench_title(b, "between rank 0 and rank %d", peer);
    for (size_t bytes = 8; bytes <= t->largest / 4; bytes *= 8) {
        char name[64], size[16];
        t->bytes = bytes;
        struct bench_value s = bench_seconds_all(b, ping, t);
        struct bench_value us = {s.median * 5e5, s.low * 5e5, s.high * 5e5, s.samples};
        size_name(bytes, size, sizeof size);
        snprintf(name, sizeof name, "to rank %d, %s", peer, size);
        bench_add(b, name, "us", us, -1, NULL);
        if (bytes >= 1 << 12)
            bench_add(b, name, "GB/s", bench_rate(s, 2e-9 * (double)bytes), -1, NULL);
    }
}

static void collective_row(struct bench *b, struct net *t, const char *what,
                           size_t bytes, size_t piece)
{
    int ranks = comm_size(b->world);
    int64_t n = (int64_t)(bytes / sizeof(float)) / ranks * ranks;
    int64_t p = (int64_t)(piece / sizeof(float)) / ranks * ranks;
    if (n == 0 || p == 0)
        return;
    t->n = n;
    t->piece = p;
    char name[96], size[16], part[16];
    snprintf(name, sizeof name, "%s, %s in pieces of %s", what,
             size_name(bytes, size, sizeof size), size_name(piece, part, sizeof part));
    struct bench_value s = bench_seconds_all(b, collective, t);
    bench_add(b, name, "GB/s", bench_rate(s, 4e-9 * (double)n), -1, NULL);
}

static void collectives(struct bench *b, struct net *t)
{
    static const char *const names[] = {"all-reduce", "reduce-scatter", "all-gather"};
    for (int what = 0; what < 3; what++) {
        t->what = (enum net_collective)what;
        bench_title(b, "%s on %d ranks", names[what], comm_size(b->world));
        for (size_t bytes = 1 << 12; bytes <= t->largest; bytes *= 16)
            collective_row(b, t, names[what], bytes, PIECE);
        for (size_t piece = 1 << 16; piece <= t->largest; piece *= 4)
            if (piece != PIECE)
                collective_row(b, t, names[what], t->largest, piece);
    }
}

int bench_net(struct bench *b, struct err *err)
{
    b->section = "net";
    int ranks = comm_size(b->world);
    if (ranks == 1) {
        bench_title(b, "one rank: start it by mpirun or srun to measure the network");
        return 0;
    }
    int64_t largest = b->array_bytes < LARGEST ? b->array_bytes : LARGEST;
    struct net t = {.world = b->world, .largest = (size_t)largest};
    t.x = mem_array(largest, 1, err);
    t.y = t.x ? mem_array(largest, 1, err) : NULL;
    int failed = comm_agree(b->world, !t.y, err);
    if (!failed) {
        pings(b, &t, 1);
        if (ranks > 2) /* the last rank is the farthest, on most machines */
            pings(b, &t, ranks - 1);
        collectives(b, &t);
    }
    mem_free(t.x);
    mem_free(t.y);
    return failed;
}
