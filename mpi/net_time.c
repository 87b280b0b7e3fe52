/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/net_time.h"

#include "mpi/comm_mpi.h"
#include "mpi/mpx.h"
#include "mpi/tags.h"
#include "src/base/check.h"

static void move(struct comm *c, int peer, void *buffer, size_t bytes, bool send)
{
    MPI_Request request;
    int n = to_int(to_i64(bytes));
    if (send)
        MPX(MPI_Isend(buffer, n, MPI_BYTE, peer, TAG_SETUP, comm_mpi(c), &request));
    else
        MPX(MPI_Irecv(buffer, n, MPI_BYTE, peer, TAG_SETUP, comm_mpi(c), &request));
    comm_wait(c, 1, &request);
}

void net_ping(struct comm *c, int peer, void *buffer, size_t bytes)
{
    int rank = comm_rank(c);
    if (rank != 0 && rank != peer)
        return;
    move(c, rank ? 0 : peer, buffer, bytes, rank == 0);
    move(c, rank ? 0 : peer, buffer, bytes, rank != 0);
}

void net_collective(struct comm *c, enum net_collective what, int64_t n, int64_t piece,
                    float *x, float *y)
{
    int ranks = comm_size(c);
    CHECK(n % ranks == 0 && piece % ranks == 0 && piece > 0,
          "%lld numbers in pieces of %lld on %d ranks", (long long)n, (long long)piece,
          ranks);
    if (ranks == 1)
        return;
    for (int64_t at = 0; at < n; at += piece) {
        int count = to_int(n - at < piece ? n - at : piece), share = count / ranks;
        MPI_Request request;
        if (what == NET_ALL_REDUCE)
            MPX(MPI_Iallreduce(MPI_IN_PLACE, x + at, count, MPI_FLOAT, MPI_SUM,
                               comm_mpi(c), &request));
        else if (what == NET_REDUCE_SCATTER)
            MPX(MPI_Ireduce_scatter_block(x + at, y + at / ranks, share, MPI_FLOAT,
                                          MPI_SUM, comm_mpi(c), &request));
        else
            MPX(MPI_Iallgather(y + at / ranks, share, MPI_FLOAT, x + at, share,
                               MPI_FLOAT, comm_mpi(c), &request));
        comm_wait(c, 1, &request);
    }
}
