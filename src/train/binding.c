/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sched_getaffinity */
#include "src/train/binding.h"

#include "src/base/mem.h"

#include <omp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { MASK = CPU_SETSIZE / 64 };

/* What a rank says of itself. */
struct facts {
    int64_t host, threads, mask[MASK];
};
enum { FACTS = sizeof(struct facts) / sizeof(int64_t) };

static struct facts facts_here(const struct comm *world)
{
    struct facts f = {.host = comm_host_id(world), .threads = omp_get_max_threads()};
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (size_t c = 0; c < CPU_SETSIZE; c++)
            if (CPU_ISSET(c, &set))
                f.mask[c / 64] |= (int64_t)((uint64_t)1 << c % 64);
    return f;
}

static int cores(const int64_t mask[MASK])
{
    int n = 0;
    for (int i = 0; i < MASK; i++)
        n += __builtin_popcountll((unsigned long long)mask[i]);
    return n;
}

static bool inside(const int64_t a[MASK], const int64_t b[MASK])
{
    for (int i = 0; i < MASK; i++)
        if (a[i] & ~b[i])
            return false;
    return true;
}

/* Threads of the ranks that are confined to rank r's cores. */
static int64_t threads_within(const struct facts *all, int ranks, int r)
{
    int64_t threads = 0;
    for (int q = 0; q < ranks; q++)
        if (all[q].host == all[r].host && inside(all[q].mask, all[r].mask))
            threads += all[q].threads;
    return threads;
}

static void report(const struct facts *all, int ranks, const struct log *log)
{
    int hosts = 0, few = CPU_SETSIZE, many = 0, shared = -1;
    int64_t least = INT64_MAX, most = 0;
    for (int r = 0; r < ranks; r++) {
        bool first = true;
        for (int q = 0; first && q < r; q++)
            first = all[q].host != all[r].host;
        hosts += first;
        int n = cores(all[r].mask);
        few = n < few ? n : few;
        many = n > many ? n : many;
        least = all[r].threads < least ? all[r].threads : least;
        most = all[r].threads > most ? all[r].threads : most;
        if (shared < 0 && n > 0 && threads_within(all, ranks, r) > n)
            shared = r;
    }
    char core_text[32], thread_text[32];
    snprintf(core_text, sizeof core_text, few == many ? "%d" : "%d to %d", few, many);
    snprintf(thread_text, sizeof thread_text, least == most ? "%d" : "%d to %d",
             (int)least, (int)most);
    log_line(log, "binding: %d rank%s on %d host%s, each on %s core%s with %s thread%s",
             ranks, ranks > 1 ? "s" : "", hosts, hosts > 1 ? "s" : "", core_text,
             many > 1 ? "s" : "", thread_text, most > 1 ? "s" : "");
    if (shared >= 0)
        log_warning(log,
                    "ranks share cores: %d threads on the %d cores of rank %d; use "
                    "fewer ranks or OMP_NUM_THREADS, or bind ranks to cores of their "
                    "own (mpirun --map-by slot:PE=N, srun --cpus-per-task N)",
                    (int)threads_within(all, ranks, shared), cores(all[shared].mask),
                    shared);
}

int binding_report(struct comm *world, const struct log *log, struct err *err)
{
    int ranks = comm_size(world);
    struct facts mine = facts_here(world);
    struct facts *all = mem_array(ranks, sizeof *all, err);
    if (comm_agree(world, !all, err))
        return -1;
    comm_gather_i64(world, (const int64_t *)&mine, FACTS, (int64_t *)all);
    if (comm_root(world))
        report(all, ranks, log);
    mem_free(all);
    return 0;
}
