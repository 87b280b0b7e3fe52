/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/train/oracle.h"

#include "io/hf_config.h"
#include "src/base/file.h"
#include "tests/support/need.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct oracle_model oracle_load(const char *name)
{
    struct err err = {0};
    struct oracle_model m = {.name = name, .weights = arrays_load_model(name)};
    char relative[256];
    snprintf(relative, sizeof relative, "%s/config.json", name);
    char *path = oracle_path(relative);
    size_t bytes;
    char *text = need(file_read(path, 1 << 20, &bytes, &err), path, err.text);
    int failed = hf_config_read(text, bytes, path, NULL, &m.shape, &err);
    need(failed ? NULL : text, path, err.text);
    free(text);
    free(path);
    return m;
}

void oracle_free(struct oracle_model *m)
{
    arrays_destroy(m->weights);
}

const char *oracle_describe(const struct oracle_layout *l)
{
    static char text[96];
    int n = snprintf(text, sizeof text, "pipeline %d data %d %s threads %d",
                     l->pipeline, l->data, schedule_name(l->schedule), l->threads);
    for (int i = 0; i < 4 && l->split[i]; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%d", i ? "," : " split ",
                      l->split[i]);
    return text;
}

struct comm *oracle_ranks(struct comm *world, const struct oracle_layout *l)
{
    int used = comm_rank(world) < l->pipeline * l->data;
    struct comm *c = comm_split(world, !used, comm_rank(world));
    if (used)
        return c;
    comm_free(c);
    return NULL;
}

void oracle_set_weights(struct engine *e, const struct oracle_model *m)
{
    struct zero *z = engine_zero(e);
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        char name[96];
        tensor_hf_name(&p.tensor, name, sizeof name);
        const struct array *a = arrays_get(m->weights, name);
        need(a->elements == p.tensor.elements ? a : NULL, name, "other size");
        zero_put(z, i, 0, p.shard.end - p.shard.begin, a->f32 + p.shard.begin);
    }
    engine_publish(e);
}

float *oracle_masters(const struct zero *z, int i)
{
    struct zero_part p = zero_part_at(z, i);
    int64_t n = p.shard.end - p.shard.begin;
    float *x = need(malloc((size_t)(n + 1) * sizeof *x), "masters", "no memory");
    zero_get(z, i, 0, n, x);
    return x;
}

struct engine *oracle_engine(struct comm *c, const struct oracle_model *m,
                             const struct oracle_layout *l, struct gemm *gemm,
                             int seq_len, int batch, int micro_batches, int segments)
{
    struct err err = {0};
    struct engine_spec spec = {.shape = m->shape,
                               .pipeline = l->pipeline,
                               .data = l->data,
                               .split = l->split,
                               .split_n = l->split[0] ? l->pipeline : 0,
                               .seq_len = seq_len,
                               .batch = batch,
                               .micro_batches = micro_batches,
                               .segments = segments,
                               .schedule = l->schedule,
                               .training = true};
    struct engine *e = engine_create(c, &spec, gemm, &err);
    need(e, m->name, err.text);
    oracle_set_weights(e, m);
    return e;
}

void oracle_fill(struct batch *b, int sequences, int length, const int32_t *ids,
                 const int32_t *labels)
{
    for (int i = 0; i < sequences * length; i++) {
        int t = i % length;
        b->ids[i] = ids[i];
        b->position[i] = t;
        b->target[i] = t + 1 < length && labels[i + 1] >= 0 ? labels[i + 1] : -1;
    }
    for (int s = 0; s <= sequences; s++)
        b->segment_begin[s] = s * length;
    b->rows.segments = sequences;
    b->rows.rows = sequences * length;
}

int64_t oracle_counted(int sequences, int length, const int32_t *labels)
{
    int64_t n = 0;
    for (int i = 0; i < sequences * length; i++)
        n += i % length > 0 && labels[i] >= 0;
    return n;
}

/* FNV-1a with 64 bits. */
static uint64_t hash(uint64_t h, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ p[i]) * 0x100000001b3;
    return h;
}

uint64_t oracle_state_hash(struct comm *c, struct engine *e)
{
    uint64_t sum = 0;
    struct zero *z = engine_zero(e);
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        float *masters = oracle_masters(z, i);
        const float *array[] = {masters, p.moment[0], p.moment[1]};
        int64_t n = p.shard.end - p.shard.begin;
        for (int a = 0; a < 3; a++) {
            for (int64_t at = 0; at < n; at += SHARD_PIECE) {
                int64_t place[] = {p.tensor.index, a, p.shard.begin + at};
                int64_t here = n - at < SHARD_PIECE ? n - at : SHARD_PIECE;
                uint64_t h = hash(0xcbf29ce484222325, place, sizeof place);
                sum += hash(h, array[a] + at, (size_t)here * sizeof(float));
            }
        }
        free(masters);
    }
    comm_sum_u64(c, &sum, 1);
    return sum;
}

void oracle_within(const char *what, double value, double limit, double *worst)
{
    if (!(value <= limit)) {
        fprintf(stderr, "%s: %.3g is above %.3g\n", what, value, limit);
        abort();
    }
    if (worst && value / limit > *worst)
        *worst = value / limit;
}

double oracle_l2(int64_t n, const float *x)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

double oracle_l2_difference(int64_t n, const float *x, const float *y)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    return sqrt(sum);
}

double oracle_max_difference(int64_t n, const float *x, const float *y)
{
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)x[i] - (double)y[i]);
        if (!(d <= worst))
            worst = d;
    }
    return worst;
}
