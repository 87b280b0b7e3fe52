/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/plain.h"

#include "src/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static double *doubles(int n)
{
    double *p = calloc((size_t)n, sizeof *p);
    assert_non_null(p);
    return p;
}

void plain_linear(int rows, int in, int out, const double *x, const double *w,
                  double *y)
{
    for (int t = 0; t < rows; t++)
        for (int o = 0; o < out; o++) {
            double sum = 0;
            for (int i = 0; i < in; i++)
                sum += x[t * in + i] * w[o * in + i];
            y[t * out + o] = sum;
        }
}

void plain_rmsnorm(int rows, int dim, const double *x, const double *w, double eps,
                   double *y)
{
    for (int t = 0; t < rows; t++) {
        double sum = 0;
        for (int j = 0; j < dim; j++)
            sum += x[t * dim + j] * x[t * dim + j];
        double r = 1 / sqrt(sum / dim + eps);
        for (int j = 0; j < dim; j++)
            y[t * dim + j] = x[t * dim + j] * r * w[j];
    }
}

void plain_rope(int rows, int heads, int head_dim, const int *position, double theta,
                double *x)
{
    int half = head_dim / 2;
    for (int t = 0; t < rows; t++)
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < half; i++) {
                double angle = position[t] * pow(theta, -2.0 * i / head_dim);
                double *a = &x[(t * heads + h) * head_dim + i], *b = a + half;
                double p = *a, q = *b;
                *a = p * cos(angle) - q * sin(angle);
                *b = q * cos(angle) + p * sin(angle);
            }
}

static double seen_dot(const double *x, const double *y, int n)
{
    double sum = 0;
    for (int e = 0; e < n; e++)
        sum += x[e] * y[e];
    return sum;
}

/* Rows that a row of a segment sees, by their place: the first is `first`. */
struct seen {
    int begin, before, prefix; /* first rows of the segment and of the one before */
    int first, last;
};

static struct seen seen_by(const struct attention_dims *d, const struct rows *rows,
                           int segment, int row)
{
    struct seen s = {.begin = rows->segment_begin[segment]};
    if (rows->prefix && rows->prefix[segment]) {
        s.prefix = rows->prefix[segment];
        s.before = rows->segment_begin[segment - 1];
    }
    s.last = s.prefix + row - s.begin;
    if (d->window && s.last - d->window + 1 > 0)
        s.first = s.last - d->window + 1;
    return s;
}

static int seen_row(const struct seen *s, int place)
{
    return place < s->prefix ? s->before + place : s->begin + place - s->prefix;
}

/* Where the kv head of query head `head` begins in row u of k or v. */
static int kv_at(const struct attention_dims *d, int u, int head)
{
    return (u * d->kv_heads + head / (d->heads / d->kv_heads)) * d->head_dim;
}

static void plain_attention_row(const struct attention_dims *d, const struct seen *s,
                                int row, int head, const double *q, const double *k,
                                const double *v, double *out)
{
    int dim = d->head_dim;
    const double *query = q + (row * d->heads + head) * dim;
    double *result = out + (row * d->heads + head) * dim;
    double sum = 0;
    memset(result, 0, (size_t)dim * sizeof *result);
    for (int place = s->first; place <= s->last; place++) {
        int at = kv_at(d, seen_row(s, place), head);
        double p = exp(seen_dot(query, k + at, dim) / sqrt(dim));
        sum += p;
        for (int e = 0; e < dim; e++)
            result[e] += p * v[at + e];
    }
    for (int e = 0; e < dim; e++)
        result[e] /= sum;
}

void plain_attention(const struct attention_dims *d, const struct rows *rows,
                     const double *q, const double *k, const double *v, double *out)
{
    for (int s = 0; s < rows->segments; s++)
        for (int t = rows->segment_begin[s]; t < rows->segment_begin[s + 1]; t++) {
            struct seen seen = seen_by(d, rows, s, t);
            for (int h = 0; h < d->heads; h++)
                plain_attention_row(d, &seen, t, h, q, k, v, out);
        }
}

static void plain_gradient_row(const struct attention_dims *d, const struct seen *s,
                               int row, int head, const double *q, const double *k,
                               const double *v, const double *dout,
                               const struct plain_gradient *to)
{
    int dim = d->head_dim, mine = (row * d->heads + head) * dim;
    double sum = 0, delta = 0, *p = doubles(s->last + 1), *dp = doubles(s->last + 1);
    for (int place = s->first; place <= s->last; place++) {
        int at = kv_at(d, seen_row(s, place), head);
        p[place] = exp(seen_dot(q + mine, k + at, dim) / sqrt(dim));
        dp[place] = seen_dot(dout + mine, v + at, dim);
        sum += p[place];
        delta += p[place] * dp[place];
    }
    for (int place = s->first; place <= s->last; place++) {
        int at = kv_at(d, seen_row(s, place), head);
        double x = p[place] / sum, ds = x * (dp[place] - delta / sum) / sqrt(dim);
        for (int e = 0; e < dim; e++) {
            to->dq[mine + e] += ds * k[at + e];
            to->dk[at + e] += ds * q[mine + e];
            to->dv[at + e] += x * dout[mine + e];
        }
    }
    free(p);
    free(dp);
}

void plain_attention_gradient(const struct attention_dims *d, const struct rows *rows,
                              const double *q, const double *k, const double *v,
                              const double *dout, const struct plain_gradient *to)
{
    for (int s = 0; s < rows->segments; s++)
        for (int t = rows->segment_begin[s]; t < rows->segment_begin[s + 1]; t++) {
            struct seen seen = seen_by(d, rows, s, t);
            for (int h = 0; h < d->heads; h++)
                plain_gradient_row(d, &seen, t, h, q, k, v, dout, to);
        }
}

void plain_swiglu(int n, const double *gate, const double *up, double *act)
{
    for (int i = 0; i < n; i++)
        act[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
}

double plain_nll(int vocab, const double *logits, int target)
{
    if (target < 0)
        return 0;
    double max = logits[0], sum = 0;
    for (int j = 1; j < vocab; j++)
        max = fmax(max, logits[j]);
    for (int j = 0; j < vocab; j++)
        sum += exp(logits[j] - max);
    return log(sum) + max - logits[target];
}

static void plain_attention_half(const struct block_dims *d,
                                 const struct plain_params *p, const struct rows *rows,
                                 double theta, const double *x, double *middle)
{
    const struct attention_dims *a = &d->attention;
    int n = rows->rows, wide = a->heads * a->head_dim,
        narrow = a->kv_heads * a->head_dim;
    double *normed = doubles(n * d->hidden), *q = doubles(n * wide);
    double *k = doubles(n * narrow), *v = doubles(n * narrow),
           *heads = doubles(n * wide);
    plain_rmsnorm(n, d->hidden, x, p->norm1, (double)d->eps, normed);
    plain_linear(n, d->hidden, wide, normed, p->q, q);
    plain_linear(n, d->hidden, narrow, normed, p->k, k);
    plain_linear(n, d->hidden, narrow, normed, p->v, v);
    plain_rope(n, a->heads, a->head_dim, rows->position, theta, q);
    plain_rope(n, a->kv_heads, a->head_dim, rows->position, theta, k);
    plain_attention(a, rows, q, k, v, heads);
    plain_linear(n, wide, d->hidden, heads, p->o, middle);
    for (int i = 0; i < n * d->hidden; i++)
        middle[i] += x[i];
    free(normed);
    free(q);
    free(k);
    free(v);
    free(heads);
}

void plain_block(const struct block_dims *d, const struct plain_params *p,
                 const struct rows *rows, double theta, const double *x, double *y)
{
    int n = rows->rows;
    double *middle = doubles(n * d->hidden), *normed = doubles(n * d->hidden);
    double *gate = doubles(n * d->ff), *up = doubles(n * d->ff);
    plain_attention_half(d, p, rows, theta, x, middle);
    plain_rmsnorm(n, d->hidden, middle, p->norm2, (double)d->eps, normed);
    plain_linear(n, d->hidden, d->ff, normed, p->gate, gate);
    plain_linear(n, d->hidden, d->ff, normed, p->up, up);
    plain_swiglu(n * d->ff, gate, up, gate);
    plain_linear(n, d->ff, d->hidden, gate, p->down, y);
    for (int i = 0; i < n * d->hidden; i++)
        y[i] += middle[i];
    free(middle);
    free(normed);
    free(gate);
    free(up);
}

struct values values_zero(int n)
{
    struct values v = {.n = n, .exact = doubles(n)};
    v.single = calloc((size_t)n, sizeof *v.single);
    assert_non_null(v.single);
    return v;
}

struct values values_create(int n, double scale, uint64_t stream)
{
    struct values v = values_zero(n);
    for (int i = 0; i < n; i++) {
        v.single[i] = (float)(scale * rng_normal(7, stream, (uint64_t)i));
        v.exact[i] = (double)v.single[i];
    }
    return v;
}

void values_destroy(struct values *v)
{
    free(v->exact);
    free(v->single);
    *v = (struct values){0};
}

uint16_t *values_round(struct values *v)
{
    uint16_t *bits = calloc((size_t)v->n, sizeof *bits);
    assert_non_null(bits);
    for (int i = 0; i < v->n; i++) {
        bits[i] = bf16_from_f32(v->single[i]);
        v->single[i] = bf16_to_f32(bits[i]);
        v->exact[i] = (double)v->single[i];
    }
    return bits;
}

void expect_rounded(const char *what, int n, const uint16_t *got, const float *single)
{
    int differ = 0;
    for (int i = 0; i < n; i++)
        if (got[i] != bf16_from_f32(single[i]) && differ++ == 0)
            print_message("%s[%d]: %.9g, expected %.9g rounded\n", what, i,
                          (double)bf16_to_f32(got[i]), (double)single[i]);
    print_message("%-24s %6d values, %d differ\n", what, n, differ);
    assert_int_equal(differ, 0);
}

double values_error(int n, const float *single, const double *exact)
{
    double error = 0, largest = 0;
    for (int i = 0; i < n; i++) {
        double e = fabs((double)single[i] - exact[i]);
        error = e > error || isnan(e) ? e : error;
        largest = fmax(largest, fabs(exact[i]));
    }
    return largest > 1e-6 ? error / largest : error; /* all but 0: absolute */
}

void expect_close(const char *what, int n, const float *single, const double *exact,
                  double tolerance)
{
    double error = values_error(n, single, exact);
    print_message("%-24s %6d values, error %.2e, allowed %.0e\n", what, n, error,
                  tolerance);
    assert_true(error <= tolerance);
}

void expect_gradient(const char *what, double (*objective)(void *context),
                     void *context, int n, double *x, const float *gradient,
                     double tolerance)
{
    double *difference = doubles(n);
    for (int i = 0; i < n; i++) {
        double at = x[i], h = 1e-5;
        x[i] = at + h;
        double above = objective(context);
        x[i] = at - h;
        double below = objective(context);
        x[i] = at;
        difference[i] = (above - below) / (2 * h);
    }
    expect_close(what, n, gradient, difference, tolerance);
    free(difference);
}
