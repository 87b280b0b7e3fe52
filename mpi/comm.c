/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "mpi/comm.h"

#include "mpi/comm_mpi.h"
#include "mpi/mpx.h"
#include "mpi/tags.h"
#include "mpi/watch.h"
#include "src/base/check.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    PIECE_BYTES = 1 << 20,
    /* A test that finds nothing costs some microseconds. Messages that are nearly there
     * are worth the tests; in a long wait, naps grow until eight ranks' tests are some
     * per cent of a core. A nap lasts up to the kernel's timer slack longer than asked
     * for, 50 microseconds unless it is told otherwise. */
    TIMER_SLACK_NS = 1000,
    TESTS_BEFORE_NAP = 20,
    FIRST_NAP_NS = 10000,
    LONGEST_NAP_NS = 160000
};

struct comm {
    MPI_Comm mpi;
    int rank, size;
    bool naps;           /* ranks outnumber the cores of this host */
    struct watch *watch; /* the world's; NULL: one rank without MPI */
    char host[MPI_MAX_PROCESSOR_NAME];
};

/* Never written, so that it can be shared by all. */
static struct comm self = {.size = 1, .host = "localhost"};

struct comm *comm_self(void)
{
    return &self;
}

MPI_Comm comm_mpi(const struct comm *c)
{
    return c == &self ? MPI_COMM_NULL : c->mpi;
}

int comm_rank(const struct comm *c)
{
    return c->rank;
}

int comm_size(const struct comm *c)
{
    return c->size;
}

bool comm_root(const struct comm *c)
{
    return c->rank == 0;
}

const char *comm_host(const struct comm *c)
{
    return c->host;
}

struct watch *comm_watch(const struct comm *c)
{
    return c->watch;
}

int64_t comm_host_id(const struct comm *c)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (const char *h = c->host; *h; h++)
        hash = (hash ^ (unsigned char)*h) * 1099511628211u;
    return (int64_t)(hash >> 1);
}

/* Settings that Open MPI reads once, when it starts. */
static void set_defaults(void)
{
    setenv("OMPI_MCA_io", "romio321", 0); /* OMPIO hangs and corrupts with HDF5 */

    /* One process without a launcher needs no daemon of its own: Open MPI would start
     * an orted beside it, which takes longer than small verbs do. */
    setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);

    /* Calls that wait inside MPI (start, file access) cannot nap, but can yield. */
    const char *local = getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    if (local && strtol(local, NULL, 10) > sysconf(_SC_NPROCESSORS_ONLN))
        setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
}

/* Do the ranks of this host outnumber the cores that they may run on together?
 * Collective over the world. */
static bool ranks_outnumber_cores(void)
{
    cpu_set_t mine, all;
    if (sched_getaffinity(0, sizeof mine, &mine))
        return true; /* more cores than a cpu_set_t counts, or a strange kernel */
    MPI_Comm host;
    int ranks;
    MPX(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL,
                            &host));
    MPX(MPI_Comm_size(host, &ranks));
    MPX(MPI_Allreduce(&mine, &all, (int)sizeof mine, MPI_BYTE, MPI_BOR, host));
    MPX(MPI_Comm_free(&host));
    return ranks > CPU_COUNT(&all);
}

static struct comm *comm_wrap(MPI_Comm mpi, bool naps, struct watch *watch)
{
    struct comm *c = calloc(1, sizeof *c);
    CHECK(c, "no memory for a communicator");
    int length;
    c->mpi = mpi;
    c->naps = naps;
    c->watch = watch;
    MPX(MPI_Comm_rank(mpi, &c->rank));
    MPX(MPI_Comm_size(mpi, &c->size));
    MPX(MPI_Get_processor_name(c->host, &length));
    return c;
}

struct comm *comm_start(int *argc, char ***argv, struct err *err)
{
    set_defaults();
    int provided;
    MPX(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided));
    if (provided < MPI_THREAD_FUNNELED) {
        err_set(
            err, ERR_OTHER,
            "MPI: this library has no MPI_THREAD_FUNNELED (level %d of at least %d)",
            provided, MPI_THREAD_FUNNELED);
        MPI_Finalize();
        return NULL;
    }
    MPX(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    MPX(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN));
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0);
    struct comm *world = comm_wrap(MPI_COMM_WORLD, ranks_outnumber_cores(), NULL);
    if (world->size > 1)
        world->watch = watch_create(world->rank, world->size, world->host);
    return world;
}

void comm_finish(struct comm *world)
{
    if (!world || world == &self)
        return;
    comm_barrier(world);
    watch_destroy(world->watch);
    free(world);
    MPX(MPI_Finalize());
}

struct comm *comm_split(struct comm *c, int color, int key)
{
    if (c == &self)
        return &self;
    MPI_Comm part;
    watch_for(c->watch, "a split of the ranks", -1, -1);
    watch_begin(c->watch);
    MPX(MPI_Comm_split(c->mpi, color, key, &part));
    watch_end(c->watch);
    return comm_wrap(part, c->naps, c->watch);
}

void comm_free(struct comm *c)
{
    if (!c || c == &self)
        return;
    MPX(MPI_Comm_free(&c->mpi));
    free(c);
}

static void test_and_nap(int n, MPI_Request *requests)
{
    struct timespec nap = {.tv_nsec = FIRST_NAP_NS};
    for (int tests = 1;; tests++) {
        int done;
        MPX(MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE));
        if (done)
            return;
        if (tests < TESTS_BEFORE_NAP)
            continue;
        nanosleep(&nap, NULL);
        if (nap.tv_nsec < LONGEST_NAP_NS)
            nap.tv_nsec *= 2;
    }
}

void comm_wait(const struct comm *c, int n, MPI_Request *requests)
{
    watch_begin(c->watch);
    if (c->naps)
        test_and_nap(n, requests);
    else
        MPX(MPI_Waitall(n, requests, MPI_STATUSES_IGNORE));
    watch_end(c->watch);
}

int comm_agree(struct comm *c, int failed, struct err *err)
{
    int64_t first = failed ? c->rank : c->size;
    comm_min_i64(c, &first, 1);
    if (first == c->size)
        return 0;
    if (c->size == 1)
        return -1;
    if (first == c->rank && first > 0)
        err_prefix(err, "rank %d (%s)", c->rank, c->host);
    comm_bcast(c, err, sizeof *err, (int)first);
    return -1;
}

void comm_barrier(struct comm *c)
{
    if (c->size == 1)
        return;
    MPI_Request request;
    watch_for(c->watch, "all ranks at a barrier", -1, -1);
    MPX(MPI_Ibarrier(c->mpi, &request));
    comm_wait(c, 1, &request);
}

static int next_piece(size_t left)
{
    return left < PIECE_BYTES ? (int)left : PIECE_BYTES;
}

void comm_bcast(struct comm *c, void *data, size_t bytes, int root)
{
    if (c->size == 1)
        return;
    watch_for(c->watch, "a broadcast from rank", -1, root);
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        MPI_Request request;
        MPX(MPI_Ibcast((char *)data + at, next_piece(bytes - at), MPI_BYTE, root,
                       c->mpi, &request));
        comm_wait(c, 1, &request);
    }
}

void comm_bcast_string(struct comm *c, char **text, int root)
{
    if (c->size == 1)
        return;
    int64_t bytes = 0; /* with the NUL; 0: the string is NULL */
    if (c->rank == root && *text)
        bytes = to_i64(strlen(*text)) + 1;
    comm_bcast(c, &bytes, sizeof bytes, root);
    if (c->rank != root) {
        *text = bytes ? malloc((size_t)bytes) : NULL;
        CHECK(*text || !bytes, "no %lld bytes for a string", (long long)bytes);
    }
    comm_bcast(c, *text, (size_t)bytes, root);
}

/* x[n] of 8-byte numbers, in place. */
static void reduce(struct comm *c, void *x, int64_t n, MPI_Datatype type, MPI_Op op)
{
    enum { PIECE = PIECE_BYTES / 8 };
    if (c->size == 1)
        return;
    watch_for(c->watch, "a sum over ranks", -1, -1);
    for (int64_t at = 0; at < n; at += PIECE) {
        int count = n - at < PIECE ? (int)(n - at) : PIECE;
        MPI_Request request;
        MPX(MPI_Iallreduce(MPI_IN_PLACE, (char *)x + 8 * at, count, type, op, c->mpi,
                           &request));
        comm_wait(c, 1, &request);
    }
}

void comm_sum_f64(struct comm *c, double *x, int64_t n)
{
    reduce(c, x, n, MPI_DOUBLE, MPI_SUM);
}

void comm_sum_i64(struct comm *c, int64_t *x, int64_t n)
{
    reduce(c, x, n, MPI_INT64_T, MPI_SUM);
}

void comm_sum_u64(struct comm *c, uint64_t *x, int64_t n)
{
    reduce(c, x, n, MPI_UINT64_T, MPI_SUM);
}

void comm_min_i64(struct comm *c, int64_t *x, int64_t n)
{
    reduce(c, x, n, MPI_INT64_T, MPI_MIN);
}

void comm_max_i64(struct comm *c, int64_t *x, int64_t n)
{
    reduce(c, x, n, MPI_INT64_T, MPI_MAX);
}

void comm_max_f64(struct comm *c, double *x, int64_t n)
{
    reduce(c, x, n, MPI_DOUBLE, MPI_MAX);
}

void comm_gather_i64(struct comm *c, const int64_t *mine, int64_t n, int64_t *all)
{
    if (n == 0)
        return;
    /* A sum with zeros: exact, and cut in pieces like every other sum. */
    memset(all, 0, sizeof *all * (size_t)(n * c->size));
    memcpy(all + n * c->rank, mine, sizeof *all * (size_t)n);
    comm_sum_i64(c, all, n * c->size);
}

void comm_collect_f64(struct comm *c, const double *mine, int n, double *all)
{
    if (c->size == 1) {
        memcpy(all, mine, sizeof *all * (size_t)n);
        return;
    }
    MPI_Request request;
    watch_for(c->watch, "figures of all ranks", -1, -1);
    MPX(MPI_Igather(mine, n, MPI_DOUBLE, all, n, MPI_DOUBLE, 0, c->mpi, &request));
    comm_wait(c, 1, &request);
}

void comm_send(struct comm *c, const void *data, size_t bytes, int to)
{
    CHECK(to >= 0 && to < c->size && to != c->rank, "rank %d sends to %d", c->rank, to);
    watch_for(c->watch, "a message to rank", -1, to);
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        MPI_Request request;
        MPX(MPI_Isend((const char *)data + at, next_piece(bytes - at), MPI_BYTE, to,
                      TAG_SETUP, c->mpi, &request));
        comm_wait(c, 1, &request);
    }
}

void comm_recv(struct comm *c, void *data, size_t bytes, int from)
{
    CHECK(from >= 0 && from < c->size && from != c->rank, "rank %d receives from %d",
          c->rank, from);
    watch_for(c->watch, "a message from rank", -1, from);
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        MPI_Request request;
        MPX(MPI_Irecv((char *)data + at, next_piece(bytes - at), MPI_BYTE, from,
                      TAG_SETUP, c->mpi, &request));
        comm_wait(c, 1, &request);
    }
}
