/* SPDX-License-Identifier: Apache-2.0 */
#include "io/new_rows.h"

#include "src/base/mem.h"
#include "src/base/rng.h"

#include <math.h>
#include <string.h>

enum { PIECE_ELEMENTS = 1 << 20 }; /* a multiple of 32,768: whole checksum blocks */

/* What is known of the old rows. */
struct columns {
    double *mean; /* [D] */
    double deviation;
};

/* To fp32 by rounding to odd, from which every dtype below is then rounded right. */
static float to_odd(double value)
{
    float f = (float)value;
    if ((double)f == value || !isfinite(f)) // NOLINT
        return f;
    if (fabs((double)f) > fabs(value))
        f = nextafterf(f, 0.0f);
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits |= 1;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Sums of columns and of all squares. */
static int sum(struct ckpt *source, const struct tensor *t, double *column,
               double *squares, struct err *err)
{
    float *x = mem_array(PIECE_ELEMENTS, sizeof *x, err);
    int64_t at = 0;
    int failed = !x;
    for (int64_t begin = 0; begin < t->elements && !failed; begin += PIECE_ELEMENTS) {
        int64_t n = t->elements - begin;
        n = n < PIECE_ELEMENTS ? n : PIECE_ELEMENTS;
        failed = ckpt_read(source, CKPT_MODEL, t->role, -1, begin, n, x, err);
        for (int64_t i = 0; i < n && !failed; i++) {
            column[at] += (double)x[i];
            *squares += (double)x[i] * (double)x[i];
            at = at + 1 == t->cols ? 0 : at + 1;
        }
    }
    mem_free(x);
    return failed ? -1 : 0;
}

static int measure(struct columns *k, struct ckpt *source, const struct tensor *t,
                   struct err *err)
{
    double squares = 0, means = 0;
    if (sum(source, t, k->mean, &squares, err))
        return -1;
    for (int64_t i = 0; i < t->cols; i++) {
        k->mean[i] /= (double)t->rows;
        means += k->mean[i] * k->mean[i];
    }
    double variance = squares / (double)t->elements - means / (double)t->cols;
    if (!isfinite(squares) || !isfinite(variance))
        return err_set(err, ERR_INPUT,
                       "%s: %s: expected numbers, found NaN or Inf: the rows have no "
                       "mean (--init zero does without)",
                       ckpt_path(source), role_name(t->role));
    k->deviation = variance > 0 ? sqrt(variance) : 0;
    return 0;
}

/* Element i of the new rows in fp32, to be rounded to `to`. */
static float value_at(const struct columns *k, const struct tensor *t, enum dtype to,
                      enum new_rows_init init, uint64_t seed, int64_t i)
{
    double value = k->mean[i % t->cols];
    if (init == NEW_ROWS_NORMAL)
        value += k->deviation * rng_normal(seed, (uint64_t)t->role, (uint64_t)i);
    return to == DTYPE_F32 ? (float)value : to_odd(value);
}

static int fill(struct new_rows *r, struct ckpt *source, const struct tensor *t,
                enum new_rows_init init, uint64_t seed, struct err *err)
{
    enum dtype to = ckpt_info(source)->dtype[t->role];
    struct columns k = {.mean = mem_array(t->cols, sizeof *k.mean, err)};
    float *x = mem_array(r->elements, sizeof *x, err);
    int failed =
        !k.mean || !x || (init != NEW_ROWS_ZERO && measure(&k, source, t, err));
    for (int64_t i = 0; i < r->elements && !failed; i++)
        x[i] = value_at(&k, t, to, init, seed, i);
    if (!failed)
        dtype_from_f32(to, x, r->elements, r->data);
    mem_free(k.mean);
    mem_free(x);
    return failed ? -1 : 0;
}

int new_rows_make(struct new_rows *r, struct comm *c, struct ckpt *source,
                  enum tensor_role role, int n, enum new_rows_init init, uint64_t seed,
                  struct err *err)
{
    struct tensor t = table_find(&ckpt_info(source)->shape, role, -1);
    size_t size = dtype_bytes(ckpt_info(source)->dtype[role]);
    *r = (struct new_rows){.elements = n * t.cols};
    int failed = !(r->data = mem_array(r->elements, size, err));
    if (!failed && comm_root(c))
        failed = fill(r, source, &t, init, seed, err);
    if (comm_agree(c, failed, err)) {
        new_rows_fini(r);
        return -1;
    }
    comm_bcast(c, r->data, (size_t)r->elements * size, 0);
    return 0;
}

void new_rows_fini(struct new_rows *r)
{
    mem_free(r->data);
    *r = (struct new_rows){0};
}
