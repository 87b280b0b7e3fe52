/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/clock_sync.h"

#include "src/base/clock.h"

#include <math.h>

enum { TRIPS = 16 };

double clock_fix_shared(const struct clock_fix *f, double local_s)
{
    return local_s + f->offset_s + f->rate * (local_s - f->at_s);
}

struct clock_fix clock_fix_through(const struct clock_fix *a, const struct clock_fix *b,
                                   double apart_s)
{
    double passed = b->at_s - a->at_s;
    struct clock_fix f = *b;
    f.rate = passed > 0 && passed >= apart_s ? (b->offset_s - a->offset_s) / passed
                                             : a->rate;
    return f;
}

/* What a rank is told of its own clock. */
struct reading {
    double at_s, offset_s;
};

/* Rank 0's part: the peer answers each message with its clock. */
static struct reading ask(struct comm *axis, int peer)
{
    struct reading best = {0};
    double quickest = INFINITY;
    for (int i = 0; i < TRIPS; i++) {
        char go = 0;
        double theirs;
        double begin = clock_s();
        comm_send(axis, &go, 1, peer);
        comm_recv(axis, &theirs, sizeof theirs, peer);
        double end = clock_s();
        if (end - begin < quickest) {
            quickest = end - begin;
            best = (struct reading){theirs, begin + 0.5 * (end - begin) - theirs};
        }
    }
    return best;
}

static void answer(struct comm *axis)
{
    for (int i = 0; i < TRIPS; i++) {
        char go;
        comm_recv(axis, &go, 1, 0);
        double now = clock_s();
        comm_send(axis, &now, sizeof now, 0);
    }
}

/* This rank's clock against that of the axis' rank 0. Collective over the axis. */
static struct reading against_first(struct comm *axis)
{
    struct reading mine = {clock_s(), 0};
    if (comm_root(axis)) {
        for (int peer = 1; peer < comm_size(axis); peer++) {
            struct reading theirs = ask(axis, peer);
            comm_send(axis, &theirs, sizeof theirs, peer);
        }
        return mine;
    }
    answer(axis);
    comm_recv(axis, &mine, sizeof mine, 0);
    return mine;
}

struct clock_fix clock_sync(const struct grid *grid)
{
    struct reading mine = against_first(grid->pipe_axis), first = {0};
    if (grid->stage == 0)
        first = against_first(grid->data_axis);
    comm_bcast(grid->pipe_axis, &first.offset_s, sizeof first.offset_s, 0);
    return (struct clock_fix){.at_s = mine.at_s,
                              .offset_s = mine.offset_s + first.offset_s};
}
