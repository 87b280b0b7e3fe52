/* SPDX-License-Identifier: Apache-2.0 */
/* Memory bandwidth: copy and triad with streaming stores, so that a store does not
 * first read its line, and an update in place. All ranks measure at once, a rate is of
 * one rank. */
#include "src/train/bench.h"

#include "src/base/mem.h"
#include "src/base/stream.h"

#include <omp.h>
#include <stdio.h>

enum { PART = 1 << 16 }; /* elements that a thread takes at a time */

struct arrays {
    int64_t n; /* a multiple of PART */
    int threads;
    float *a, *b, *c;
};

static void copy(void *context)
{
    const struct arrays *x = context;
#pragma omp parallel for schedule(static) num_threads(x->threads)
    for (int64_t i = 0; i < x->n; i += PART)
        stream_triad(PART, x->a + i, x->b + i, NULL, 0);
}

static void triad(void *context)
{
    const struct arrays *x = context;
#pragma omp parallel for schedule(static) num_threads(x->threads)
    for (int64_t i = 0; i < x->n; i += PART)
        stream_triad(PART, x->a + i, x->b + i, x->c + i, 3.0f);
}

static void update(void *context)
{
    const struct arrays *x = context;
#pragma omp parallel for schedule(static) num_threads(x->threads)
    for (int64_t i = 0; i < x->n; i += PART)
        stream_update(PART, x->a + i, 1.0f);
}

static int arrays_init(const struct bench *b, struct arrays *x, struct err *err)
{
    int64_t n = b->array_bytes / (int64_t)sizeof(float) / PART * PART;
    *x = (struct arrays){.n = n > 0 ? n : PART, .threads = omp_get_max_threads()};
    x->a = mem_array(x->n, sizeof *x->a, err);
    x->b = x->a ? mem_array(x->n, sizeof *x->b, err) : NULL;
    x->c = x->b ? mem_array(x->n, sizeof *x->c, err) : NULL;
    return x->c ? 0 : -1;
}

static void arrays_fini(struct arrays *x)
{
    mem_free(x->a);
    mem_free(x->b);
    mem_free(x->c);
}

int bench_copy_rates(struct bench *b, double *copy_gb, double *triad_gb,
                     struct err *err)
{
    struct arrays x;
    int failed = arrays_init(b, &x, err);
    if (!failed) {
        *copy_gb = 8e-9 * (double)x.n / bench_seconds(b, copy, &x).median;
        *triad_gb = 12e-9 * (double)x.n / bench_seconds(b, triad, &x).median;
    }
    arrays_fini(&x);
    return failed;
}

int bench_memory(struct bench *b, struct err *err)
{
    struct arrays x;
    int failed = comm_agree(b->world, arrays_init(b, &x, err), err);
    double gb = 4e-9 * (double)x.n;
    int most = x.threads;
    b->section = "memory";
    bench_title(b, "arrays of %.0f MB, streaming stores", gb * 1e3);
    for (int t = 1; !failed && t <= most; t = t < most && 2 * t > most ? most : 2 * t) {
        char name[64];
        x.threads = t;
        snprintf(name, sizeof name, "copy, %d thread%s", t, t > 1 ? "s" : "");
        bench_add(b, name, "GB/s", bench_rate(bench_seconds_all(b, copy, &x), 2 * gb),
                  -1, NULL);
        snprintf(name, sizeof name, "triad, %d thread%s", t, t > 1 ? "s" : "");
        bench_add(b, name, "GB/s", bench_rate(bench_seconds_all(b, triad, &x), 3 * gb),
                  -1, NULL);
        snprintf(name, sizeof name, "update in place, %d thread%s", t,
                 t > 1 ? "s" : "");
        bench_add(b, name, "GB/s", bench_rate(bench_seconds_all(b, update, &x), 2 * gb),
                  -1, NULL);
    }
    arrays_fini(&x);
    return failed;
}
