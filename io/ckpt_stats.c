/* SPDX-License-Identifier: Apache-2.0 */
#include "io/ckpt_stats.h"

#include "io/hf_chunks.h"
#include "src/base/clones.h"
#include "src/base/mem.h"
#include "src/base/progress.h"

#include <math.h>
#include <string.h>

enum { LANES = 8 }; /* of sums, added in one order on every CPU */

struct sums {
    double x, squares;
};

/* What is summed exactly, or has no order. */
struct counts {
    int64_t nan, inf;
    uint32_t largest; /* bits of the largest finite |x|: ordered as the values are */
};

static inline uint32_t bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

/* One value into the sums of its lane. */
static inline void add(float x, struct sums *lane, uint32_t *largest, uint32_t *nan,
                       uint32_t *inf)
{
    const uint32_t infinity = 0x7f800000U;
    uint32_t size = bits(x) & 0x7fffffffU;
    double v = size < infinity ? (double)x : 0;
    uint32_t finite = size < infinity ? size : 0;
    lane->x += v;
    lane->squares += v * v;
    *largest = finite > *largest ? finite : *largest;
    *nan += size > infinity;
    *inf += size == infinity;
}

/* n <= HF_CHUNK values. */
CLONES static struct sums measure(const float *x, int64_t n, struct counts *c)
{
    struct sums lane[LANES] = {0}, sum = {0};
    uint32_t largest[LANES] = {0}, nan[LANES] = {0}, inf[LANES] = {0};
    int64_t whole = n - n % LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++)
            add(x[i + l], &lane[l], &largest[l], &nan[l], &inf[l]);
    for (int64_t i = whole; i < n; i++)
        add(x[i], &lane[i - whole], &largest[i - whole], &nan[i - whole],
            &inf[i - whole]);
    for (int l = 0; l < LANES; l++) {
        sum.x += lane[l].x;
        sum.squares += lane[l].squares;
        c->largest = largest[l] > c->largest ? largest[l] : c->largest;
        c->nan += nan[l];
        c->inf += inf[l];
    }
    return sum;
}

struct work {
    struct ckpt *k;
    const struct tensor *t;
    int n;
    int64_t *elements;    /* [n] */
    int64_t *first_chunk; /* [n + 1] */
    int64_t *nan, *inf;   /* [n] */
    double *largest;      /* [n] */
    struct sums *sum;     /* [first_chunk[n]] */
    float *x;             /* [HF_CHUNK] */
};

static int allocate(struct work *w, struct err *err)
{
    w->elements = mem_array(w->n, sizeof *w->elements, err);
    w->first_chunk = mem_array(w->n + 1, sizeof *w->first_chunk, err);
    w->nan = mem_array(w->n, sizeof *w->nan, err);
    w->inf = mem_array(w->n, sizeof *w->inf, err);
    w->largest = mem_array(w->n, sizeof *w->largest, err);
    w->x = mem_array(HF_CHUNK, sizeof *w->x, err);
    if (!w->elements || !w->first_chunk || !w->nan || !w->inf || !w->largest || !w->x)
        return -1;
    for (int i = 0; i < w->n; i++) {
        w->elements[i] = w->t[i].elements;
        w->first_chunk[i + 1] =
            w->first_chunk[i] + (w->elements[i] + HF_CHUNK - 1) / HF_CHUNK;
    }
    w->sum = mem_array(w->first_chunk[w->n], sizeof *w->sum, err);
    return w->sum ? 0 : -1;
}

static void fini(struct work *w)
{
    mem_free(w->elements);
    mem_free(w->first_chunk);
    mem_free(w->nan);
    mem_free(w->inf);
    mem_free(w->largest);
    mem_free(w->sum);
    mem_free(w->x);
}

/* This rank's run of chunks. Local. */
static int measure_share(struct work *w, int rank, int ranks, struct progress *progress,
                         struct err *err)
{
    struct hf_chunks c;
    double done = 0;
    hf_chunks_begin(&c, w->elements, w->n, rank, ranks);
    while (hf_chunks_next(&c)) {
        const struct tensor *t = &w->t[c.tensor];
        if (ckpt_read(w->k, CKPT_MODEL, t->role, t->layer, c.begin, c.n, w->x, err) < 0)
            return -1;
        struct counts counts = {0};
        w->sum[w->first_chunk[c.tensor] + c.begin / HF_CHUNK] =
            measure(w->x, c.n, &counts);
        float largest;
        memcpy(&largest, &counts.largest, sizeof largest);
        w->largest[c.tensor] = fmax(w->largest[c.tensor], (double)largest);
        w->nan[c.tensor] += counts.nan;
        w->inf[c.tensor] += counts.inf;
        done += (double)c.n * ranks;
        progress_at(progress, done);
    }
    return 0;
}

static struct ckpt_stat add_up(const struct work *w, int i)
{
    struct ckpt_stat s = {.max_abs = w->largest[i], .nan = w->nan[i], .inf = w->inf[i]};
    struct sums sum = {0};
    for (int64_t at = w->first_chunk[i]; at < w->first_chunk[i + 1]; at++) {
        sum.x += w->sum[at].x;
        sum.squares += w->sum[at].squares;
    }
    double finite = (double)(w->elements[i] - s.nan - s.inf);
    if (finite > 0) {
        s.mean = sum.x / finite;
        s.rms = sqrt(sum.squares / finite);
    }
    return s;
}

int ckpt_stats(struct comm *c, const struct log *log, const char *what, struct ckpt *k,
               const struct tensor *t, int n, struct ckpt_stat *stat, struct err *err)
{
    struct work w = {.k = k, .t = t, .n = n};
    struct progress progress;
    double total = 0;
    for (int i = 0; i < n; i++)
        total += (double)t[i].elements;
    progress_begin(&progress, log, what, "M", total, 1e6);
    int rc = allocate(&w, err);
    if (rc == 0)
        rc = measure_share(&w, comm_rank(c), comm_size(c), &progress, err);
    rc = comm_agree(c, rc < 0, err);
    progress_end(&progress);
    if (rc == 0) {
        _Static_assert(sizeof *w.sum == 2 * sizeof(double), "two doubles");
        comm_sum_f64(c, (double *)w.sum, 2 * w.first_chunk[n]);
        comm_sum_i64(c, w.nan, n);
        comm_sum_i64(c, w.inf, n);
        comm_max_f64(c, w.largest, n);
        for (int i = 0; i < n; i++)
            stat[i] = add_up(&w, i);
    }
    fini(&w);
    return rc;
}
