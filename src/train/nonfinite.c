/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/nonfinite.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* A key for each place, rising in the order in which a value passes: the least of all
 * ranks is where the first NaN or Inf is. */
static const int64_t nowhere = INT64_MAX;

static int64_t first_of_all(struct engine *e, int64_t key)
{
    comm_min_i64(engine_grid(e)->world, &key, 1);
    return key;
}

static void name_of(struct engine *e, int index, char *name, size_t size)
{
    struct tensor t = table_at(engine_shape(e), index);
    tensor_hf_name(&t, name, size);
}

/* ---- weights ---- */

/* Largest magnitude among the owned masters of a part; NaN counts as Inf. */
static float largest_in(const struct zero *z, int i)
{
    enum { SOME = 4096 };
    struct zero_part p = zero_part_at(z, i);
    int64_t n = p.shard.end - p.shard.begin;
    float x[SOME], most = 0;
    for (int64_t at = 0; at < n; at += SOME) {
        int64_t here = n - at < SOME ? n - at : SOME;
        zero_get(z, i, at, here, x);
        for (int64_t j = 0; j < here; j++)
            if (!(fabsf(x[j]) <= most))
                most = isnan(x[j]) ? INFINITY : fabsf(x[j]);
    }
    return most;
}

static bool weights_found(struct engine *e, char *text, size_t size)
{
    const struct zero *z = engine_zero(e);
    int64_t key = nowhere;
    for (int i = 0; key == nowhere && i < zero_parts(z); i++)
        if (isinf(largest_in(z, i)))
            key = zero_part_at(z, i).tensor.index;
    key = first_of_all(e, key);
    if (key == nowhere)
        return false;
    char name[96];
    name_of(e, (int)key, name, sizeof name);
    snprintf(text, size, "it is in the weights of %s", name);
    return true;
}

/* The tensor of a layer (-1: those in none) with the largest weight of all. */
static void heaviest(struct engine *e, int layer, double *most, char *name, size_t size)
{
    const struct zero *z = engine_zero(e);
    int64_t mine = nowhere;
    double here = -1;
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        double x = p.tensor.layer == layer ? (double)largest_in(z, i) : -1;
        if (x > here) {
            here = x;
            mine = p.tensor.index;
        }
    }
    *most = here;
    comm_max_f64(engine_grid(e)->world, most, 1);
    int64_t index = first_of_all(e, here == *most ? mine : nowhere);
    name_of(e, (int)index, name, size);
}

/* ---- the stream and the losses ---- */

struct look {
    enum dtype dtype;
    int layers;
    int64_t first_micro_batch; /* of this replica, among all */
    int64_t key;
};

enum { MICRO_BATCH_BITS = 32 };

static int64_t key_of(const struct look *l, int64_t place, int micro_batch)
{
    return (place << MICRO_BATCH_BITS) + l->first_micro_batch + micro_batch;
}

static bool finite(enum dtype t, int64_t n, const void *x)
{
    const uint16_t *half = x;
    const float *whole = x;
    for (int64_t i = 0; i < n; i++)
        if (t == DTYPE_BF16 ? (half[i] & 0x7f80) == 0x7f80 : !isfinite(whole[i]))
            return false;
    return true;
}

static void look_at_stream(void *context, int micro_batch, int layer, int64_t n,
                           const void *x)
{
    struct look *l = context;
    int64_t key = key_of(l, layer, micro_batch);
    if (key < l->key && !finite(l->dtype, n, x))
        l->key = key;
}

static void look_at_loss(void *context, int micro_batch, int segments,
                         const double *nll)
{
    struct look *l = context;
    int64_t key = key_of(l, l->layers + 1, micro_batch);
    for (int i = 0; i < segments; i++)
        if (key < l->key && !isfinite(nll[i]))
            l->key = key;
}

static void describe_stream(struct engine *e, int64_t key, char *text, size_t size)
{
    int layers = engine_shape(e)->layers, layer = (int)(key >> MICRO_BATCH_BITS);
    int64_t micro_batch = key & ((INT64_C(1) << MICRO_BATCH_BITS) - 1);
    char name[96], what[64];
    double most;
    heaviest(e, layer < layers ? layer : -1, &most, name, sizeof name);
    if (layer < layers)
        snprintf(what, sizeof what, "in layer %d", layer);
    else
        snprintf(what, sizeof what, "in the %s",
                 layer == layers ? "final norm" : "loss");
    snprintf(text, size,
             "it first appears %s, in micro-batch %" PRId64
             "; the largest weight there is %g, in %s",
             what, micro_batch, most, name);
}

/* ---- gradients ---- */

/* The order in which backward makes them: the head's, the layers' from the last to the
 * first, the embedding's. */
static int64_t backward_key(const struct model_shape *s, const struct tensor *t,
                            bool tied_head)
{
    static const int place[ROLES] = {[ROLE_DOWN_PROJ] = 0,
                                     [ROLE_UP_PROJ] = 1,
                                     [ROLE_GATE_PROJ] = 2,
                                     [ROLE_POST_ATTENTION_LAYERNORM] = 3,
                                     [ROLE_O_PROJ] = 4,
                                     [ROLE_V_PROJ] = 5,
                                     [ROLE_K_PROJ] = 6,
                                     [ROLE_Q_PROJ] = 7,
                                     [ROLE_INPUT_LAYERNORM] = 8,
                                     [ROLE_LM_HEAD] = 0,
                                     [ROLE_NORM] = 1,
                                     [ROLE_EMBED_TOKENS] = 0};
    if (t->layer >= 0)
        return (int64_t)(s->layers - t->layer) * ROLES + place[t->role];
    if (t->role == ROLE_EMBED_TOKENS && !tied_head)
        return (int64_t)(s->layers + 1) * ROLES;
    return place[t->role];
}

static bool gradients_found(struct engine *e, char *text, size_t size)
{
    const struct slab *slab = engine_slab(e);
    const struct model_shape *s = engine_shape(e);
    int64_t key = nowhere;
    for (int i = 0; i < slab->entries; i++) {
        const struct slab_entry *entry = &slab->entry[i];
        if (entry->frozen)
            continue;
        int64_t here = backward_key(s, &entry->tensor, entry->tied_head);
        if (here < key && !finite(DTYPE_F32, entry->tensor.elements,
                                  engine_grads(e) + entry->grad_at))
            key = here;
    }
    key = first_of_all(e, key);
    if (key == nowhere)
        return false;
    char name[96] = "embed_tokens, as the head";
    for (int i = 0; i < table_count(s); i++) {
        struct tensor t = table_at(s, i);
        if (backward_key(s, &t, false) == key)
            tensor_hf_name(&t, name, sizeof name);
    }
    snprintf(text, size, "it first appears backward, in the gradient of %s", name);
    return true;
}

void nonfinite_find(struct engine *e, const struct batch *batches, int micro_batches,
                    const struct engine_objective *objective, double *nll, char *text,
                    size_t size)
{
    if (weights_found(e, text, size))
        return;
    struct look look = {.dtype = engine_dtype(e),
                        .layers = engine_shape(e)->layers,
                        .first_micro_batch =
                            (int64_t)engine_grid(e)->replica * micro_batches,
                        .key = nowhere};
    struct engine_watch watch = {&look, look_at_stream, look_at_loss};
    double wait_s = 0;
    engine_set_watch(e, &watch);
    engine_pass(e, batches, objective, nll, &wait_s);
    engine_set_watch(e, NULL);
    int64_t key = first_of_all(e, look.key);
    if (key != nowhere)
        describe_stream(e, key, text, size);
    else if (!gradients_found(e, text, size))
        snprintf(text, size,
                 "computed again, the step has none (sums over replicas may overflow; "
                 "else suspect memory or a CPU)");
    engine_discard(e);
}
