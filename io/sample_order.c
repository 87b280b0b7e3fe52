/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sample_order.h"

#include "src/base/check.h"
#include "src/base/mem.h"
#include "src/base/rng.h"

#include <math.h>

/* Keeps the permutations of the samples apart from other uses of the run's seed. */
static const uint64_t order_stream = 0x6f72646572u; /* "order" */

/* An epoch's permutation has its own random stream, set * 2^40 + epoch. */
enum { EPOCH_BITS = 40 };

struct sample_order {
    int sets;
    bool shuffle;
    uint64_t seed;
    int64_t *windows;             /* [sets] */
    int *quota;                   /* [sets] places in a cycle */
    int place_set[SAMPLE_CYCLE];  /* whose place it is */
    int place_rank[SAMPLE_CYCLE]; /* places of the same set before it in the cycle */
};

/* Largest remainder: whole parts first, the places left over to the largest fractions,
 * the lower set first among equals. */
static void share_places(struct sample_order *o, const double *weights, double sum,
                         double *fraction)
{
    int left = SAMPLE_CYCLE;
    for (int i = 0; i < o->sets; i++) {
        double exact = weights[i] / sum * SAMPLE_CYCLE;
        o->quota[i] = (int)floor(exact);
        fraction[i] = exact - floor(exact);
        left -= o->quota[i];
    }
    for (; left > 0; left--) {
        int best = 0;
        for (int i = 1; i < o->sets; i++)
            if (fraction[i] > fraction[best])
                best = i;
        o->quota[best]++;
        fraction[best] -= 1;
    }
}

/* Smooth weighted round-robin: every set gains its quota at each place, the richest
 * takes the place and pays a whole cycle. After a cycle all are back at zero, so each
 * set has had exactly its quota. */
static void spread_places(struct sample_order *o, int64_t *credit, int *used)
{
    for (int place = 0; place < SAMPLE_CYCLE; place++) {
        int best = 0;
        for (int i = 0; i < o->sets; i++) {
            credit[i] += o->quota[i];
            if (credit[i] > credit[best])
                best = i;
        }
        credit[best] -= SAMPLE_CYCLE;
        o->place_set[place] = best;
        o->place_rank[place] = used[best]++;
    }
    for (int i = 0; i < o->sets; i++)
        CHECK(used[i] == o->quota[i], "set %d has %d places of %d", i, used[i],
              o->quota[i]);
}

static int check_sets(int sets, const int64_t *windows, const double *weights,
                      double *sum, struct err *err)
{
    if (sets < 1 || sets > SAMPLE_CYCLE)
        return err_set(err, ERR_USAGE, "sample order: expected 1 to %d sets, found %d",
                       (int)SAMPLE_CYCLE, sets);
    *sum = 0;
    for (int i = 0; i < sets; i++) {
        if (windows[i] < 1)
            return err_set(err, ERR_USAGE,
                           "set %d is shorter than one window and its next token", i);
        if (!(weights[i] > 0) || !isfinite(weights[i]))
            return err_set(err, ERR_USAGE,
                           "set %d: expected a weight above 0, found %g", i,
                           weights[i]);
        *sum += weights[i];
    }
    return isfinite(*sum) ? 0
                          : err_set(err, ERR_USAGE, "the weights of the sets overflow");
}

static int check_quotas(const struct sample_order *o, const double *weights, double sum,
                        struct err *err)
{
    for (int i = 0; i < o->sets; i++)
        if (o->quota[i] == 0)
            return err_set(err, ERR_USAGE,
                           "set %d: weight %g of %g is less than one sample in %d; "
                           "raise it or drop the set",
                           i, weights[i], sum, (int)SAMPLE_CYCLE);
    return 0;
}

struct sample_order *sample_order_create(int sets, const int64_t *windows,
                                         const double *weights, bool shuffle,
                                         uint64_t seed, struct err *err)
{
    double sum = 0, *fraction = NULL;
    int64_t *credit = NULL;
    int *used = NULL;
    struct sample_order *o = NULL;
    int failed = 1;
    if (check_sets(sets, windows, weights, &sum, err))
        return NULL;
    if (!(o = mem_array(1, sizeof *o, err)) ||
        !(o->windows = mem_array(sets, sizeof *o->windows, err)) ||
        !(o->quota = mem_array(sets, sizeof *o->quota, err)) ||
        !(fraction = mem_array(sets, sizeof *fraction, err)) ||
        !(credit = mem_array(sets, sizeof *credit, err)) ||
        !(used = mem_array(sets, sizeof *used, err)))
        goto done;
    o->sets = sets;
    o->shuffle = shuffle;
    o->seed = rng_u64(seed, order_stream, 0);
    for (int i = 0; i < sets; i++)
        o->windows[i] = windows[i];
    share_places(o, weights, sum, fraction);
    if (check_quotas(o, weights, sum, err))
        goto done;
    spread_places(o, credit, used);
    failed = 0;
done:
    mem_free(fraction);
    mem_free(credit);
    mem_free(used);
    if (failed) {
        sample_order_destroy(o);
        return NULL;
    }
    return o;
}

void sample_order_destroy(struct sample_order *o)
{
    if (!o)
        return;
    mem_free(o->windows);
    mem_free(o->quota);
    mem_free(o);
}

struct sample sample_order_at(const struct sample_order *o, int64_t position)
{
    CHECK(position >= 0, "position %lld", (long long)position);
    int64_t cycle = position / SAMPLE_CYCLE, place = position % SAMPLE_CYCLE;
    int set = o->place_set[place];
    int64_t nth = cycle * o->quota[set] + o->place_rank[place];
    struct sample s = {
        .set = set, .window = nth % o->windows[set], .epoch = nth / o->windows[set]};
    if (o->shuffle) {
        uint64_t stream = ((uint64_t)set << EPOCH_BITS) + (uint64_t)s.epoch;
        s.window = rng_permute(o->seed, stream, o->windows[set], s.window);
    }
    return s;
}
