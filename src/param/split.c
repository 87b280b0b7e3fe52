/* SPDX-License-Identifier: Apache-2.0 */
#include "src/param/split.h"

#include <string.h>

/* Pairs (position, position it sees) of one causal sequence, window included. */
static double visible_pairs(const struct model_shape *s, int seq_len)
{
    double t = seq_len, w = s->window;
    if (s->window == 0 || s->window >= seq_len)
        return t * (t + 1) / 2;
    return w * (w + 1) / 2 + (t - w) * w;
}

double split_layer_flops(const struct model_shape *s, int seq_len)
{
    double d = s->hidden, q = (double)s->heads * s->head_dim;
    double kv = (double)s->kv_heads * s->head_dim;
    double weights = 2 * d * q + 2 * d * kv + 3 * d * s->ff;
    /* scores and weighted values: two products of head_dim for each head and pair */
    return 2 * seq_len * weights + 4 * q * visible_pairs(s, seq_len);
}

double split_head_flops(const struct model_shape *s, int seq_len)
{
    return 2.0 * seq_len * s->hidden * s->vocab;
}

/* The embedding multiplies nothing; its rows are copied, and added in backward. */
static double embed_flops(const struct model_shape *s, int seq_len)
{
    return (double)seq_len * s->hidden;
}

int split_auto(const struct model_shape *s, int stages, int seq_len, int *layers,
               struct err *err)
{
    if (stages < 1 || stages > s->layers)
        return err_set(
            err, ERR_USAGE,
            "parallel.pipeline x parallel.chunks: expected 1 to %d stages (the model's "
            "layers), found %d",
            s->layers, stages);
    double layer = split_layer_flops(s, seq_len), head = split_head_flops(s, seq_len);
    double embed = embed_flops(s, seq_len);
    for (int i = 0; i < stages; i++)
        layers[i] = 1;
    for (int placed = stages; placed < s->layers; placed++) {
        int best = 0;
        double least = 0;
        for (int i = 0; i < stages; i++) {
            double load = (layers[i] + 1) * layer + (i == 0 ? embed : 0) +
                          (i == stages - 1 ? head : 0);
            if (i == 0 || load < least) {
                best = i;
                least = load;
            }
        }
        layers[best]++;
    }
    return 0;
}

int split_layers(const struct model_shape *s, int stages, int seq_len, const int *given,
                 int given_n, int *layers, struct err *err)
{
    if (!given_n)
        return split_auto(s, stages, seq_len, layers, err);
    if (split_check(s, stages, given, given_n, err))
        return -1;
    memcpy(layers, given, (size_t)stages * sizeof *layers);
    return 0;
}

int split_check(const struct model_shape *s, int stages, const int *layers, int given,
                struct err *err)
{
    if (given != stages)
        return err_set(err, ERR_USAGE,
                       "parallel.split: expected one entry for each of the %d pipeline "
                       "stages, found %d",
                       stages, given);
    long long sum = 0;
    for (int i = 0; i < stages; i++) {
        int end = i == 0 || i == stages - 1;
        if (layers[i] < (end ? 0 : 1))
            return err_set(err, ERR_USAGE,
                           "parallel.split: stage %d: expected %s, found %d", i,
                           end ? "0 or more layers" : "1 or more layers", layers[i]);
        sum += layers[i];
    }
    if (sum != s->layers)
        return err_set(err, ERR_USAGE,
                       "parallel.split: expected entries that sum to the model's %d "
                       "layers, found a sum of %lld",
                       s->layers, sum);
    return 0;
}
