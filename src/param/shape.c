/* SPDX-License-Identifier: Apache-2.0 */
#include "src/param/shape.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

/* Bounds that keep every size of the table far inside 63 bits. */
enum { COUNT_MAX = 1 << 24, LAYERS_MAX = 1 << 16 };
static const double parameters_max = 1e15;

struct field {
    const char *name; /* config.json's */
    int value, min, max;
};

static double parameters(const struct model_shape *s)
{
    double d = s->hidden, attention = (double)s->heads * s->head_dim;
    double kv = (double)s->kv_heads * s->head_dim;
    double layer = 2 * d * attention + 2 * d * kv + 3 * d * s->ff + 2 * d;
    return s->layers * layer + (s->tied ? 1 : 2) * d * s->vocab + d;
}

static int check_relations(const struct model_shape *s, struct err *err)
{
    if (s->heads % s->kv_heads)
        return err_set(err, ERR_INPUT,
                       "num_attention_heads: expected a multiple of "
                       "num_key_value_heads (%d), found %d",
                       s->kv_heads, s->heads);
    if (s->head_dim % 2)
        return err_set(err, ERR_INPUT,
                       "head_dim: expected an even number (rotary embedding turns "
                       "pairs), found %d",
                       s->head_dim);
    if (!(isfinite(s->rope_theta) && s->rope_theta > 0))
        return err_set(err, ERR_INPUT,
                       "rope_theta: expected a positive number, found %g",
                       s->rope_theta);
    if (!(isfinite(s->norm_eps) && s->norm_eps > 0))
        return err_set(err, ERR_INPUT,
                       "rms_norm_eps: expected a positive number, found %g",
                       s->norm_eps);
    if (parameters(s) > parameters_max)
        return err_set(
            err, ERR_INPUT,
            "hidden_size, intermediate_size, vocab_size and "
            "num_hidden_layers give %.3g parameters, more than the %.0e that "
            "dusk counts",
            parameters(s), parameters_max);
    return 0;
}

int shape_check(const struct model_shape *s, struct err *err)
{
    const struct field fields[] = {
        {"num_hidden_layers", s->layers, 1, LAYERS_MAX},
        {"hidden_size", s->hidden, 1, COUNT_MAX},
        {"intermediate_size", s->ff, 1, COUNT_MAX},
        {"num_attention_heads", s->heads, 1, COUNT_MAX},
        {"num_key_value_heads", s->kv_heads, 1, COUNT_MAX},
        {"head_dim", s->head_dim, 1, COUNT_MAX},
        {"vocab_size", s->vocab, 1, COUNT_MAX},
        {"max_position_embeddings", s->max_positions, 1, 1 << 30},
        {"sliding_window", s->window, 0, 1 << 30},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].value < fields[i].min || fields[i].value > fields[i].max)
            return err_set(
                err, ERR_INPUT, "%s: expected a whole number from %d to %d, found %d",
                fields[i].name, fields[i].min, fields[i].max, fields[i].value);
    return check_relations(s, err);
}

struct difference {
    const char *name; /* NULL: none */
    double a, b;
};

static struct difference first_difference(const struct model_shape *a,
                                          const struct model_shape *b)
{
    const struct difference fields[] = {
        {"num_hidden_layers", a->layers, b->layers},
        {"hidden_size", a->hidden, b->hidden},
        {"intermediate_size", a->ff, b->ff},
        {"num_attention_heads", a->heads, b->heads},
        {"num_key_value_heads", a->kv_heads, b->kv_heads},
        {"head_dim", a->head_dim, b->head_dim},
        {"vocab_size", a->vocab, b->vocab},
        {"max_position_embeddings", a->max_positions, b->max_positions},
        {"sliding_window", a->window, b->window},
        {"rope_theta", a->rope_theta, b->rope_theta},
        {"rms_norm_eps", a->norm_eps, b->norm_eps},
        {"tie_word_embeddings", a->tied, b->tied},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].a < fields[i].b || fields[i].a > fields[i].b)
            return fields[i];
    return (struct difference){0};
}

const char *shape_difference(const struct model_shape *a, const struct model_shape *b)
{
    return first_difference(a, b).name;
}

bool shape_difference_text(const struct model_shape *a, const struct model_shape *b,
                           char *text, size_t size)
{
    struct difference d = first_difference(a, b);
    *text = '\0';
    if (d.name)
        snprintf(text, size, "%s is %.10g and %.10g", d.name, d.a, d.b);
    return d.name != NULL;
}

const char *arch_name(enum arch a)
{
    return a == ARCH_LLAMA ? "LlamaForCausalLM" : "MistralForCausalLM";
}
