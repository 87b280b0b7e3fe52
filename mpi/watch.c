/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/watch.h"

#include "mpi/comm.h"
#include "mpi/mpx.h"
#include "mpi/watch_report.h"
#include "src/base/check.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A report is given up after REPORT_S; the fallback ends the process if MPI does not.
 */
enum { REPORT_S = 8, FALLBACK_S = 1 };

struct watch {
    struct watch_ranks ranks;
    /* Written by the rank, read by the thread. */
    atomic_llong since_ns, moved_ns; /* 0: it does not wait; the last begin or end */
    atomic_llong step;
    atomic_int micro_batch, peer, limit, stage, replica;
    _Atomic(const char *) what, phase;
    /* The thread. */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t wake;
    bool leave, reported;
    double limit_s[WATCH_LIMITS];
    char *folder;              /* NULL: none */
    struct watch_state report; /* of the wait that ends the job, and its limit */
    double report_limit_s;
};

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

struct watch *watch_create(int rank, int size, const char *host)
{
    struct watch *w = calloc(1, sizeof *w);
    CHECK(w, "no memory for the watchdog");
    w->ranks = (struct watch_ranks){.rank = rank, .size = size};
    snprintf(w->ranks.host, sizeof w->ranks.host, "%s", host);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&w->lock, NULL);
    atomic_store(&w->what, "other ranks");
    atomic_store(&w->phase, "starting");
    atomic_store(&w->limit, WATCH_IO);
    watch_place(w, -1, -1);
    atomic_store(&w->moved_ns, now_ns());
    return w;
}

void watch_destroy(struct watch *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->leave = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    if (w->started)
        pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w->ranks.hosts);
    free(w->folder);
    free(w);
}

void watch_place(struct watch *w, int stage, int replica)
{
    if (!w)
        return;
    atomic_store(&w->stage, stage);
    atomic_store(&w->replica, replica);
}

void watch_phase(struct watch *w, const char *phase, enum watch_limit limit)
{
    if (!w)
        return;
    atomic_store(&w->phase, phase);
    atomic_store(&w->limit, limit);
}

void watch_step(struct watch *w, int64_t step)
{
    if (w)
        atomic_store(&w->step, step);
}

void watch_for(struct watch *w, const char *what, int micro_batch, int peer)
{
    if (!w)
        return;
    atomic_store_explicit(&w->what, what, memory_order_relaxed);
    atomic_store_explicit(&w->micro_batch, micro_batch, memory_order_relaxed);
    atomic_store_explicit(&w->peer, peer, memory_order_relaxed);
}

void watch_begin(struct watch *w)
{
    if (!w)
        return;
    long long now = now_ns();
    atomic_store_explicit(&w->moved_ns, now, memory_order_relaxed);
    atomic_store_explicit(&w->since_ns, now, memory_order_release);
}

void watch_end(struct watch *w)
{
    if (!w)
        return;
    atomic_store_explicit(&w->since_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&w->moved_ns, now_ns(), memory_order_relaxed);
}

static struct watch_state state_of(struct watch *w, double quiet_s)
{
    return (struct watch_state){.waits = atomic_load(&w->since_ns) != 0,
                                .quiet_s = quiet_s,
                                .stage = atomic_load(&w->stage),
                                .replica = atomic_load(&w->replica),
                                .step = atomic_load(&w->step),
                                .phase = atomic_load(&w->phase),
                                .what = atomic_load(&w->what),
                                .micro_batch = atomic_load(&w->micro_batch),
                                .peer = atomic_load(&w->peer)};
}

/* ---- the thread ---- */

/* Waits until the condition is signalled or the seconds are over. Under the lock. */
static void sleep_for(struct watch *w, double seconds)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    long long ns = t.tv_nsec + (long long)(seconds * 1e9);
    t.tv_sec += ns / 1000000000;
    t.tv_nsec = ns % 1000000000;
    pthread_cond_timedwait(&w->wake, &w->lock, &t);
}

static void *report(void *argument)
{
    struct watch *w = argument;
    watch_report(&w->ranks, &w->report, w->folder, w->report_limit_s);
    pthread_mutex_lock(&w->lock);
    w->reported = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static _Noreturn void end_at_once(void)
{
    for (;;) {
        kill(getpid(), SIGKILL);
        sleep(1);
    }
}

static void *fallback(void *unused)
{
    (void)unused;
    sleep(FALLBACK_S);
    end_at_once();
}

/* In a thread of its own, as the folder may hang too. Under the lock. */
static _Noreturn void expire(struct watch *w, double quiet_s, double limit_s)
{
    pthread_t thread;
    w->report = state_of(w, quiet_s);
    w->report_limit_s = limit_s;
    if (pthread_create(&thread, NULL, report, w) == 0) {
        double end_s = (double)now_ns() * 1e-9 + REPORT_S;
        while (!w->reported && (double)now_ns() * 1e-9 < end_s)
            sleep_for(w, 0.2);
    }
    if (!w->reported)
        watch_say(&w->ranks, &w->report, limit_s);
    pthread_create(&thread, NULL, fallback, NULL);
    MPI_Abort(MPI_COMM_WORLD, ERR_WATCHDOG);
    end_at_once();
}

/* Looks at the rank every `period`. Seconds count up to two periods a look, so that a
 * stopped process has not waited. */
static void *watch_thread(void *argument)
{
    struct watch *w = argument;
    long long seen_ns = 0, last_ns = now_ns();
    double quiet_s = 0;
    bool answered = false;
    pthread_mutex_lock(&w->lock);
    while (!w->leave) {
        double limit_s = w->limit_s[atomic_load(&w->limit)];
        double period_s = limit_s > 0 && limit_s < 8 ? limit_s / 8 : 1;
        sleep_for(w, period_s);
        long long now = now_ns(), moved_ns = atomic_load(&w->moved_ns);
        double passed_s = (double)(now - last_ns) * 1e-9;
        last_ns = now;
        if (moved_ns != seen_ns)
            quiet_s = 0;
        quiet_s += passed_s < 2 * period_s ? passed_s : 2 * period_s;
        seen_ns = moved_ns;
        if (w->leave || limit_s <= 0)
            continue;
        if (atomic_load(&w->since_ns) && quiet_s > limit_s)
            expire(w, quiet_s, limit_s);
        if (w->folder && !answered && quiet_s > limit_s / 2 && watch_asked(w->folder)) {
            struct watch_state s = state_of(w, quiet_s);
            watch_answer(&w->ranks, &s, w->folder);
            answered = true;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int watch_start(struct watch *w, struct comm *world, const double limit_s[WATCH_LIMITS],
                struct err *err)
{
    if (!w || w->started)
        return 0;
    int64_t words = sizeof w->ranks.host / sizeof(int64_t), mine[WATCH_HOST / 8];
    memcpy(mine, w->ranks.host, sizeof mine);
    int64_t *all = calloc((size_t)(words * w->ranks.size), sizeof *all);
    if (comm_agree(world, all ? 0 : err_set(err, ERR_OTHER, "no memory"), err)) {
        free(all);
        return -1;
    }
    comm_gather_i64(world, mine, words, all);
    w->ranks.hosts = (char *)all;
    memcpy(w->limit_s, limit_s, sizeof w->limit_s);
    sigset_t every, before; /* signals are the main thread's */
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    w->started = pthread_create(&w->thread, NULL, watch_thread, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return w->started ? 0
                      : err_set(err, ERR_OTHER, "cannot start the watchdog's thread");
}

int watch_configure(struct watch *w, const char *folder,
                    const double limit_s[WATCH_LIMITS], struct err *err)
{
    if (!w)
        return 0;
    char *copy = mem_printf(err, "%s", folder);
    if (!copy || (w->ranks.rank == 0 && watch_forget(folder, err))) {
        free(copy);
        return -1;
    }
    pthread_mutex_lock(&w->lock);
    free(w->folder);
    w->folder = copy;
    memcpy(w->limit_s, limit_s, sizeof w->limit_s);
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    return 0;
}
