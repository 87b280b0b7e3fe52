/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/bench.h"

#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_SAMPLES = 5 };
static const double sample_s = 2e-3; /* long beside the clock and a wake-up */

#define LLAMA(layers_, hidden_, ff_, heads_, kv_heads_, vocab_, positions_)            \
    {                                                                                  \
        .arch = ARCH_MISTRAL, .layers = layers_, .hidden = hidden_, .ff = ff_,         \
        .heads = heads_, .kv_heads = kv_heads_, .head_dim = (hidden_) / (heads_),      \
        .vocab = vocab_, .max_positions = positions_, .rope_theta = 10000.0,           \
        .norm_eps = 1e-5, .bos_id = -1, .eos_id = -1                                   \
    }

static const struct bench_size sizes[] = {
    {"slice", LLAMA(2, 4096, 14336, 32, 8, 32000, 4096), 1024, 1, 4},
    {"small", LLAMA(8, 1024, 3584, 16, 4, 32000, 4096), 1024, 1, 8},
    {"toy", LLAMA(8, 256, 688, 8, 4, 4096, 4096), 256, 8, 4},
    {"tiny", LLAMA(2, 64, 96, 4, 2, 256, 64), 32, 2, 2},
};

const struct bench_size *bench_size_named(const char *name)
{
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(sizes[i].name, name) == 0)
            return &sizes[i];
    return NULL;
}

double bench_step_flops(const struct model_shape *s, int seq_len, double tokens)
{
    double hidden = s->hidden, heads = (double)s->heads * s->head_dim;
    double layer =
        hidden * (2 * heads + 2.0 * s->kv_heads * s->head_dim) + 3 * hidden * s->ff;
    double matrices = s->layers * layer + (double)s->vocab * hidden;
    return tokens * (6 * matrices + 6.0 * s->layers * seq_len * heads);
}

void bench_fini(struct bench *b)
{
    free(b->row);
    b->row = NULL;
    b->rows = b->room = 0;
}

static struct bench_row *next_row(struct bench *b)
{
    if (b->rows == b->room) {
        b->room = 2 * b->room + 64;
        b->row = realloc(b->row, sizeof *b->row * (size_t)b->room);
        CHECK(b->row, "no memory for %d rows", b->room);
    }
    struct bench_row *r = &b->row[b->rows++];
    *r = (struct bench_row){.share = -1};
    snprintf(r->section, sizeof r->section, "%s", b->section);
    return r;
}

void bench_add(struct bench *b, const char *name, const char *unit,
               struct bench_value value, double share, const char *of)
{
    struct bench_row *r = next_row(b);
    snprintf(r->name, sizeof r->name, "%s", name);
    snprintf(r->unit, sizeof r->unit, "%s", unit);
    snprintf(r->of, sizeof r->of, "%s", of ? of : "");
    r->value = value;
    r->share = share;
}

void bench_title(struct bench *b, const char *format, ...)
{
    struct bench_row *r = next_row(b);
    va_list ap;
    va_start(ap, format);
    vsnprintf(r->name, sizeof r->name, format, ap);
    va_end(ap);
    r->heading = true;
}

double bench_median(const struct bench *b, const char *section, const char *name)
{
    for (int i = b->rows - 1; i >= 0; i--)
        if (strcmp(b->row[i].section, section) == 0 &&
            strcmp(b->row[i].name, name) == 0)
            return b->row[i].value.median;
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of sorted x, linear between two samples. */
static double quantile(const double *x, int n, double q)
{
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? x[i] + (at - i) * (x[i + 1] - x[i]) : x[n - 1];
}

struct bench_value bench_value_of(double *x, int n)
{
    CHECK(n > 0, "%d samples", n);
    qsort(x, (size_t)n, sizeof *x, by_value);
    return (struct bench_value){.median = quantile(x, n, 0.5),
                                .low = quantile(x, n, 0.25),
                                .high = quantile(x, n, 0.75),
                                .samples = n};
}

struct bench_value bench_one(double value)
{
    return (struct bench_value){value, value, value, 1};
}

struct bench_value bench_rate(struct bench_value seconds, double work)
{
    return (struct bench_value){work / seconds.median, work / seconds.high,
                                work / seconds.low, seconds.samples};
}

static double timed(void (*run)(void *), void *context, int runs)
{
    double begin = clock_s();
    for (int i = 0; i < runs; i++)
        run(context);
    return (clock_s() - begin) / runs;
}

/* world NULL: this rank alone. */
static struct bench_value sample(struct comm *world, double seconds,
                                 void (*run)(void *), void *context)
{
    double x[BENCH_SAMPLES], spent = 0;
    int n = 0, runs = 1;
    for (int warm = 1; n < BENCH_SAMPLES; warm = 0) {
        if (world)
            comm_barrier(world);
        double took = timed(run, context, runs);
        if (world)
            comm_max_f64(world, &took, 1);
        if (warm) {
            runs = took < sample_s ? (int)(sample_s / took) + 1 : 1;
            continue;
        }
        x[n++] = took;
        spent += took * runs;
        if (n >= LEAST_SAMPLES && spent >= seconds)
            break;
    }
    return bench_value_of(x, n);
}

struct bench_value bench_seconds(const struct bench *b, void (*run)(void *context),
                                 void *context)
{
    return sample(NULL, b->seconds, run, context);
}

struct bench_value bench_seconds_all(const struct bench *b, void (*run)(void *context),
                                     void *context)
{
    return sample(b->world, b->seconds, run, context);
}
