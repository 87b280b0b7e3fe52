/* SPDX-License-Identifier: Apache-2.0 */
#include "src/optim/lr.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

/* From 1 at p = 0 to 0 at p = 1. */
static double decayed(enum lr_decay_shape shape, double p)
{
    switch (shape) {
    case LR_DECAY_LINEAR:
        return 1.0 - p;
    case LR_DECAY_SQRT:
        return 1.0 - sqrt(p);
    case LR_DECAY_COSINE:
        break;
    }
    return 0.5 * (1.0 + cos(pi * p));
}

static double rate_at_end(const struct lr *lr)
{
    switch (lr->schedule) {
    case LR_CONSTANT:
        return lr->peak;
    case LR_LINEAR:
        return 0.0;
    case LR_COSINE:
    case LR_WSD:
        break;
    }
    return lr->min;
}

double lr_at(const struct lr *lr, int64_t k)
{
    if (k >= lr->steps)
        return rate_at_end(lr);
    if (k < lr->warmup) {
        double from = lr->schedule == LR_WSD ? lr->min : 0.0;
        return from + (lr->peak - from) * ((double)k / (double)lr->warmup);
    }
    int64_t falling = lr->schedule == LR_WSD ? lr->decay : lr->steps - lr->warmup;
    int64_t begin = lr->steps - falling; /* falling >= 1 if k >= begin: k < steps */
    if (lr->schedule == LR_CONSTANT || k < begin)
        return lr->peak;
    double p = (double)(k - begin) / (double)falling;
    switch (lr->schedule) {
    case LR_LINEAR:
        return lr->peak * (1.0 - p);
    case LR_WSD:
        return lr->min + (lr->peak - lr->min) * decayed(lr->decay_shape, p);
    case LR_COSINE:
    case LR_CONSTANT:
        break;
    }
    return lr->min + (lr->peak - lr->min) * decayed(LR_DECAY_COSINE, p);
}
