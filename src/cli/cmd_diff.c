/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "io/ckpt_diff.h"
#include "src/base/json.h"
#include "src/base/progress.h"
#include "src/cli/listing.h"
#include "src/cli/options.h"

static const struct option diff_options[] = {
    {"--json", NULL, "print one JSON object instead of a table"},
    {"--summary", NULL,
     "one line for each role (q_proj, norm, ...) over all layers, and a total"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_diff = {
    .name = "diff",
    .arguments = "A B [--summary]",
    .summary = "say which tensors of two checkpoints differ, and by how much",
    .description =
        "Compares values: of each tensor that differs, the number of elements whose "
        "bits differ, the largest absolute difference and the relative L2 distance, "
        "|A - B| / |A|. A and B may be files or training checkpoints' folders; where "
        "both have an optimizer's state it is compared too, else only the model. A "
        "dtype alone is no difference. Layers are compared by their number. "
        "--summary takes the layers of a role together, equal ones too: the largest "
        "difference of any, and |A - B| / |A| over all.\n"
        "Exit code 0: all are equal; 1: some differ, or the models' shapes do.",
    .examples = "dusk diff base.h5 runs/solar/checkpoints/latest\n"
                "dusk diff base.h5 tuned.h5 --summary\n"
                "dusk diff step-00000100 step-00000200 --json",
    .options = diff_options,
    .run = run};

static const char *const set_prefix[CKPT_SETS] = {
    [CKPT_MODEL] = "", [CKPT_EXP_AVG] = "exp_avg ", [CKPT_EXP_AVG_SQ] = "exp_avg_sq "};
static const char *const where_text[] = {[DIFF_BOTH] = "differs",
                                         [DIFF_SHAPE] = "shape differs",
                                         [DIFF_ONLY_A] = "only in A",
                                         [DIFF_ONLY_B] = "only in B"};

static void row_name(const struct ckpt_diff_row *r, char *name, size_t size)
{
    char label[64];
    tensor_label(&r->tensor, label, sizeof label);
    snprintf(name, size, "%s%s", set_prefix[r->set], label);
}

static void print_row(const struct ckpt_diff_row *r)
{
    char name[96], elements[32], differing[32];
    row_name(r, name, sizeof name);
    if (r->where != DIFF_BOTH) {
        printf("%-48s %s\n", name, where_text[r->where]);
        return;
    }
    printf("%-48s %14s %14s  %-12.6g %-12.6g\n", name,
           grouped(r->tensor.elements, elements, sizeof elements),
           grouped(r->differing, differing, sizeof differing), r->max_abs,
           r->relative_l2);
}

static void print_sum(const char *name, const struct ckpt_diff_sum *s)
{
    char elements[32], differing[32];
    printf("%-36s %6d of %6d %15s %15s  %-12.6g %-12.6g\n", name, s->different,
           s->tensors, grouped(s->elements, elements, sizeof elements),
           grouped(s->differing, differing, sizeof differing), s->max_abs,
           ckpt_diff_relative(s));
}

static void sum_name(int set, int role, char *name, size_t size)
{
    snprintf(name, size, "%s%s", set_prefix[set], role_name((enum tensor_role)role));
}

static void print_sums(const struct ckpt_diff *d)
{
    char name[96];
    printf("%-36s %16s %15s %15s  %-12s %-12s\n", "role", "tensors differ", "elements",
           "differing", "max |A-B|", "|A-B|/|A|");
    for (int set = 0; set < CKPT_SETS; set++)
        for (int r = 0; r < ROLES; r++) {
            if (!d->sum[set][r].tensors)
                continue;
            sum_name(set, r, name, sizeof name);
            print_sum(name, &d->sum[set][r]);
        }
    struct ckpt_diff_sum total = ckpt_diff_total(d);
    print_sum("in all", &total);
}

static void print_table(const struct ckpt_diff *d, bool summary)
{
    char elements[32];
    if (d->shape)
        printf("the models' shapes differ, first in %s\n", d->shape);
    if (summary) {
        print_sums(d);
        return;
    }
    if (d->rows)
        printf("%-48s %14s %14s  %-12s %-12s\n", "tensor", "elements", "differing",
               "max |A-B|", "|A-B|/|A|");
    for (int i = 0; i < d->rows; i++)
        print_row(&d->row[i]);
    printf("%d of %d tensors differ%s; %s elements compared\n", d->rows, d->compared,
           d->optimizer ? ", moments included" : "",
           grouped(d->elements, elements, sizeof elements));
}

static void json_sum(struct json *j, const char *key, const char *role,
                     const struct ckpt_diff_sum *s)
{
    json_begin(j, key, '{');
    if (role)
        json_text(j, "role", role);
    json_int(j, "tensors", s->tensors);
    json_int(j, "different", s->different);
    json_int(j, "elements", s->elements);
    json_int(j, "differing", s->differing);
    json_double(j, "max_abs", s->max_abs);
    json_double(j, "relative_l2", ckpt_diff_relative(s));
    json_end(j, '}');
}

static void json_sums(struct json *j, const struct ckpt_diff *d)
{
    char name[96];
    json_begin(j, "roles", '[');
    for (int set = 0; set < CKPT_SETS; set++)
        for (int r = 0; r < ROLES; r++) {
            if (!d->sum[set][r].tensors)
                continue;
            sum_name(set, r, name, sizeof name);
            json_sum(j, NULL, name, &d->sum[set][r]);
        }
    json_end(j, ']');
    struct ckpt_diff_sum total = ckpt_diff_total(d);
    json_sum(j, "total", NULL, &total);
}

static void json_rows(struct json *j, const struct ckpt_diff *d)
{
    char name[96];
    json_begin(j, "tensors", '[');
    for (int i = 0; i < d->rows; i++) {
        const struct ckpt_diff_row *r = &d->row[i];
        row_name(r, name, sizeof name);
        json_begin(j, NULL, '{');
        json_text(j, "name", name);
        json_text(j, "how", where_text[r->where]);
        json_int(j, "elements", r->tensor.elements);
        json_int(j, "differing", r->differing);
        json_double(j, "max_abs", r->max_abs);
        json_double(j, "relative_l2", r->relative_l2);
        json_end(j, '}');
    }
    json_end(j, ']');
}

static void print_json(const char *a, const char *b, const struct ckpt_diff *d,
                       bool summary)
{
    struct json j = {0};
    json_begin(&j, NULL, '{');
    json_text(&j, "a", a);
    json_text(&j, "b", b);
    json_text(&j, "shape", d->shape);
    json_bool(&j, "optimizer", d->optimizer);
    json_int(&j, "compared", d->compared);
    json_int(&j, "different", d->rows);
    json_int(&j, "elements", d->elements);
    if (summary)
        json_sums(&j, d);
    else
        json_rows(&j, d);
    json_end(&j, '}');
    printf("%s\n", j.text);
    json_fini(&j);
}

static void compared_so_far(void *progress, int64_t done)
{
    progress_at(progress, (double)done);
}

static int compare(const char *const *paths, const struct log *log, struct ckpt_diff *d,
                   struct err *err)
{
    struct ckpt *a = ckpt_open(comm_self(), paths[0], err);
    struct ckpt *b = a ? ckpt_open(comm_self(), paths[1], err) : NULL;
    int rc = -1;
    if (a && b) {
        struct progress progress;
        progress_begin(&progress, log, "diff", "M elements",
                       (double)ckpt_diff_elements(a), 1e6);
        rc = ckpt_diff(a, b, compared_so_far, &progress, d, err);
        progress_end(&progress);
    }
    ckpt_close(a);
    ckpt_close(b);
    return rc;
}

static int run(int argc, char **argv, struct comm *world, const struct log *log)
{
    struct options o = {0};
    struct ckpt_diff d = {0};
    struct err err;
    int rc = options_read(&o, &verb_diff, argc, argv, 2, 2, &err);
    if (rc == 0)
        rc = compare(o.arg, log, &d, &err);
    bool summary = rc == 0 && options_flag(&o, "--summary");
    if (rc == 0 && options_flag(&o, "--json"))
        print_json(o.arg[0], o.arg[1], &d, summary);
    else if (rc == 0)
        print_table(&d, summary);
    int differ = d.rows || d.shape;
    ckpt_diff_fini(&d);
    options_fini(&o);
    return rc ? verb_fail(&verb_diff, world, &err) : differ;
}
