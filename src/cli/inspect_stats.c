/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/inspect_looks.h"

#include "io/ckpt.h"
#include "io/ckpt_stats.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/cli/listing.h"

#include <math.h>
#include <stdio.h>

/* All tensors of the model, and their figures taken together. */
struct figures {
    int tensors;
    struct tensor *tensor;  /* [tensors] */
    struct ckpt_stat *stat; /* [tensors] */
    struct ckpt_stat all;
    int64_t elements;
};

/* Sums in table order: the same on every rank. */
static void take_all(struct figures *f)
{
    double values = 0, sum = 0, squares = 0;
    for (int i = 0; i < f->tensors; i++) {
        const struct ckpt_stat *s = &f->stat[i];
        double finite = (double)(f->tensor[i].elements - s->nan - s->inf);
        f->elements += f->tensor[i].elements;
        f->all.nan += s->nan;
        f->all.inf += s->inf;
        f->all.max_abs = fmax(f->all.max_abs, s->max_abs);
        values += finite;
        sum += s->mean * finite;
        squares += s->rms * s->rms * finite;
    }
    if (values > 0) {
        f->all.mean = sum / values;
        f->all.rms = sqrt(squares / values);
    }
}

static void print_row(const char *name, const char *dtype, int64_t elements,
                      const struct ckpt_stat *s)
{
    char text[32];
    printf("%-37s %-4s %14s %12.5g %11.5g %11.5g %11lld %11lld\n", name, dtype,
           grouped(elements, text, sizeof text), s->mean, s->rms, s->max_abs,
           (long long)s->nan, (long long)s->inf);
}

static void print_table(const char *path, const struct ckpt_info *info,
                        const struct figures *f)
{
    char name[64];
    printf("%s\n%-37s %-4s %14s %12s %11s %11s %11s %11s\n", path, "tensor", "",
           "elements", "mean", "rms", "max |x|", "NaN", "Inf");
    for (int i = 0; i < f->tensors; i++) {
        tensor_label(&f->tensor[i], name, sizeof name);
        print_row(name, dtype_name(info->dtype[f->tensor[i].role]),
                  f->tensor[i].elements, &f->stat[i]);
    }
    snprintf(name, sizeof name, "in all %d tensors", f->tensors);
    print_row(name, "", f->elements, &f->all);
    if (f->all.nan || f->all.inf)
        printf("mean, rms and max are those of the finite values\n");
}

static void json_stat(struct json *j, int64_t elements, const struct ckpt_stat *s)
{
    json_int(j, "elements", elements);
    json_double(j, "mean", s->mean);
    json_double(j, "rms", s->rms);
    json_double(j, "max_abs", s->max_abs);
    json_int(j, "nan", s->nan);
    json_int(j, "inf", s->inf);
}

static void print_json(const char *path, const struct ckpt_info *info,
                       const struct figures *f)
{
    struct json j = {0};
    char name[64];
    json_begin(&j, NULL, '{');
    json_text(&j, "file", path);
    json_stat(&j, f->elements, &f->all);
    json_begin(&j, "tensors", '[');
    for (int i = 0; i < f->tensors; i++) {
        tensor_label(&f->tensor[i], name, sizeof name);
        json_begin(&j, NULL, '{');
        json_text(&j, "name", name);
        json_text(&j, "dtype", dtype_name(info->dtype[f->tensor[i].role]));
        json_stat(&j, f->tensor[i].elements, &f->stat[i]);
        json_end(&j, '}');
    }
    json_end(&j, ']');
    json_end(&j, '}');
    printf("%s\n", j.text);
    json_fini(&j);
}

int inspect_stats(const char *path, bool json, struct comm *c, const struct log *log,
                  struct err *err)
{
    struct ckpt *k = ckpt_open(c, path, err);
    if (!k)
        return -1;
    const struct ckpt_info *info = ckpt_info(k);
    struct figures f = {.tensors = table_count(&info->shape)};
    f.tensor = mem_array(f.tensors, sizeof *f.tensor, err);
    f.stat = mem_array(f.tensors, sizeof *f.stat, err);
    int rc = comm_agree(c, !f.tensor || !f.stat, err);
    for (int i = 0; rc == 0 && i < f.tensors; i++)
        f.tensor[i] = table_at(&info->shape, i);
    if (rc == 0)
        rc = ckpt_stats(c, log, "stats", k, f.tensor, f.tensors, f.stat, err);
    if (rc == 0)
        take_all(&f);
    if (rc == 0 && comm_root(c) && json)
        print_json(path, info, &f);
    else if (rc == 0 && comm_root(c))
        print_table(path, info, &f);
    mem_free(f.tensor);
    mem_free(f.stat);
    ckpt_close(k);
    return rc;
}
