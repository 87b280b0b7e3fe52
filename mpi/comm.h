/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_COMM_H
#define DUSK_MPI_COMM_H

/* Communicators and the few collectives that other folders need, without mpi.h.
 *
 * comm_self() is one rank that makes no MPI call at all, so that code written for ranks
 * also runs in a verb that never starts MPI. Failures of MPI itself print and abort
 * (MPX, mpi/mpx.h). What can fail on one rank alone is agreed by all with comm_agree
 * before the next collective. Messages are cut in pieces of at most 1 MiB: larger ones
 * are slow in Open MPI 4 (its temporary buffers are fresh page faults). Where the ranks
 * of a host outnumber the cores that they may use, waits test and nap instead of
 * polling, so that each rank lets the others run. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/err.h"

struct comm;
struct watch;

/* Starts MPI (funneled threads) and lends the world communicator, which lives until
 * comm_finish. First sets OMPI_MCA_io=romio321 unless the environment has OMPI_MCA_io.
 * Collective over all processes of the job. NULL with err set if MPI lacks
 * MPI_THREAD_FUNNELED. */
struct comm *comm_start(int *argc, char ***argv, struct err *err);

/* Barrier, then MPI_Finalize; every rank must come here, also after an agreed failure:
 * the first rank that leaves with a non-zero code makes mpirun kill the others. NULL
 * and comm_self() are fine. */
void comm_finish(struct comm *world);

/* What watches over the waits of this process (mpi/watch.h); borrowed; NULL: one rank.
 * Local. */
struct watch *comm_watch(const struct comm *c);

/* One rank, no MPI. Lives for ever. */
struct comm *comm_self(void);

int comm_rank(const struct comm *c);
int comm_size(const struct comm *c);
bool comm_root(const struct comm *c); /* rank 0? */

/* Ranks of the same color, in order of key, then rank. Collective over c. Owned. */
struct comm *comm_split(struct comm *c, int color, int key);
void comm_free(struct comm *c); /* NULL and comm_self() are fine. Collective over c. */

/* Did any rank fail? `failed` is this rank's answer (its err set). 0 if none did; else
 * -1 on every rank with err set to the error of the lowest rank that failed, prefixed
 * by "rank N (host): " if that is not rank 0. Collective over c. */
int comm_agree(struct comm *c, int failed, struct err *err);

void comm_barrier(struct comm *c);                                   /* collective */
void comm_bcast(struct comm *c, void *data, size_t bytes, int root); /* collective */

/* A NUL-terminated string of any length, owned by the receiver (free); on root *text is
 * unchanged. NULL travels as NULL. Collective. */
void comm_bcast_string(struct comm *c, char **text, int root);

/* In place on all ranks. Exact, hence independent of the number of ranks, when at most
 * one rank's entry is nonzero, and for integers. Collective. */
void comm_sum_f64(struct comm *c, double *x, int64_t n);
void comm_sum_i64(struct comm *c, int64_t *x, int64_t n);
void comm_sum_u64(struct comm *c, uint64_t *x, int64_t n);
void comm_min_i64(struct comm *c, int64_t *x, int64_t n);
void comm_max_i64(struct comm *c, int64_t *x, int64_t n);
void comm_max_f64(struct comm *c, double *x, int64_t n);

/* all[rank * n ...] of every rank's mine[n], on all ranks. Collective. */
void comm_gather_i64(struct comm *c, const int64_t *mine, int64_t n, int64_t *all);

/* all[rank * n ...] of every rank's mine[n], on rank 0 alone, which waits for all; the
 * others (all: NULL) go on as soon as theirs is sent. Collective. */
void comm_collect_f64(struct comm *c, const double *mine, int n, double *all);

/* Blocking, matched by order between two ranks. For set-up; the step has the runner. */
void comm_send(struct comm *c, const void *data, size_t bytes, int to);
void comm_recv(struct comm *c, void *data, size_t bytes, int from);

/* Name of this rank's host, as MPI gives it ("localhost" for comm_self). */
const char *comm_host(const struct comm *c);

/* A number made from that name: the same for ranks of one host, and hardly for those of
 * two. Local. */
int64_t comm_host_id(const struct comm *c);

#endif
