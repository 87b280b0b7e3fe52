/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/inspect_looks.h"

#include "io/ckpt.h"
#include "io/upscale_plan.h"
#include "src/base/json.h"

#include <stdio.h>
#include <string.h>

enum { COLUMNS_MAX = 64, LABEL = 13 };

/* What a column of a run shows: the mark that stands last in this list among its
 * layers. */
enum mark { MARK_NONE, MARK_COPY, MARK_NOISE, MARK_MEAN, MARK_ZERO, MARKS };
static const char mark_sign[MARKS] = {' ', '=', '*', '~', '0'};

static bool any_zeroed(const struct upscale_plan *p, int l)
{
    for (int r = 0; r < ROLES; r++)
        if (upscale_zeroed(p, l, (enum tensor_role)r))
            return true;
    return false;
}

static bool any_noisy(const struct upscale_plan *p, int l)
{
    for (int r = 0; r < ROLES; r++)
        if (upscale_noisy(p, l, (enum tensor_role)r))
            return true;
    return false;
}

static enum mark mark_of(const struct upscale_plan *p, int l)
{
    return any_zeroed(p, l)             ? MARK_ZERO
           : p->layer[l].mean_with >= 0 ? MARK_MEAN
           : any_noisy(p, l)            ? MARK_NOISE
                                        : MARK_COPY;
}

/* Numbers of source layers over their columns: every tenth column, and each one's last
 * digit if a column is one layer. */
static void print_axis(int columns, int per_column)
{
    printf("%-*s", LABEL, "source");
    for (int c = 0; c < columns; c++)
        if (c % 10 == 0)
            printf("%-*d", columns - c < 10 ? 1 : 10, c * per_column);
    if (per_column == 1) {
        printf("\n%*s", LABEL, "");
        for (int c = 0; c < columns; c++)
            putchar('0' + c % 10);
    }
    putchar('\n');
}

/* Layers [from, to) of the result, one after the other in the source too. A bar beside
 * the first or the last is a joint. */
static void print_run(const struct upscale_plan *p, int from, int to, int columns,
                      int per_column)
{
    enum mark cell[COLUMNS_MAX] = {MARK_NONE};
    int first = columns, last = 0;
    for (int l = from; l < to; l++) {
        int c = p->layer[l].source / per_column;
        enum mark m = mark_of(p, l);
        cell[c] = m > cell[c] ? m : cell[c];
        first = c < first ? c : first;
        last = c > last ? c : last;
    }
    char label[32];
    if (to - from > 1)
        snprintf(label, sizeof label, "%d-%d", from, to - 1);
    else
        snprintf(label, sizeof label, "%d", from);
    printf("%-*s", LABEL - 1, label);
    for (int c = -1; c <= last; c++)
        putchar(c == first - 1 && from > 0 ? '|' : c < 0 ? ' ' : mark_sign[cell[c]]);
    puts(to < p->layers ? "|" : "");
}

static const char *other_mark(int layers, int marked)
{
    return layers > marked ? ", some under another mark" : "";
}

static void print_legend(const struct upscale_plan *p, const struct ckpt_info *info,
                         int per_column)
{
    int marks[MARKS] = {0}, joints = 0, inserted = 0, noisy = 0, averaged = 0;
    for (int l = 0; l < p->layers; l++) {
        marks[mark_of(p, l)]++;
        joints += upscale_joint(p, l);
        inserted += p->layer[l].inserted;
        noisy += any_noisy(p, l);
        averaged += p->layer[l].mean_with >= 0;
    }
    printf("%d joint%s; %d layer%s inserted cop%s", joints, joints == 1 ? "" : "s",
           inserted, inserted == 1 ? " is an" : "s are", inserted == 1 ? "y" : "ies");
    if (per_column > 1)
        printf("; a column is %d source layers", per_column);
    putchar('\n');
    printf("%c  a copy: %d\n", mark_sign[MARK_COPY], marks[MARK_COPY]);
    if (averaged)
        printf("%c  averaged over a joint (%s): %d%s\n", mark_sign[MARK_MEAN],
               info->seam, averaged, other_mark(averaged, marks[MARK_MEAN]));
    if (marks[MARK_ZERO])
        printf("%c  zeroed %s: %d\n", mark_sign[MARK_ZERO], info->zero,
               marks[MARK_ZERO]);
    if (noisy)
        printf("%c  noise of %s x rms (seed %s): %d%s\n", mark_sign[MARK_NOISE],
               info->init_noise, info->init_noise_seed, noisy,
               other_mark(noisy, marks[MARK_NOISE]));
}

static void print_map(const char *path, const struct upscale_plan *p,
                      const struct ckpt_info *info)
{
    int per_column = (p->source_layers + COLUMNS_MAX - 1) / COLUMNS_MAX;
    int columns = (p->source_layers + per_column - 1) / per_column;
    printf("%s\n%d layers, %s of %s\n", path, p->layers, info->layers,
           info->source ? info->source : "a source that is not named");
    print_axis(columns, per_column);
    for (int from = 0, to; from < p->layers; from = to) {
        for (to = from + 1; to < p->layers && !upscale_joint(p, to); to++)
            ;
        print_run(p, from, to, columns, per_column);
    }
    print_legend(p, info, per_column);
}

static void json_map(const struct upscale_plan *p, struct json *j)
{
    json_begin(j, "map", '[');
    for (int l = 0; l < p->layers; l++) {
        json_begin(j, NULL, '{');
        json_int(j, "layer", l);
        json_int(j, "source", p->layer[l].source);
        if (p->layer[l].mean_with >= 0)
            json_int(j, "mean_with", p->layer[l].mean_with);
        else
            json_text(j, "mean_with", NULL);
        json_bool(j, "joint_before", upscale_joint(p, l));
        json_bool(j, "inserted", p->layer[l].inserted);
        json_bool(j, "zeroed", any_zeroed(p, l));
        json_bool(j, "noisy", any_noisy(p, l));
        json_end(j, '}');
    }
    json_end(j, ']');
}

/* p: NULL if no map made the model. */
static void print_json(const char *path, const struct upscale_plan *p,
                       const struct ckpt_info *info)
{
    struct json j = {0};
    json_begin(&j, NULL, '{');
    json_text(&j, "file", path);
    json_int(&j, "layers", info->shape.layers);
    json_text(&j, "source", info->source);
    json_text(&j, "ranges", info->layers);
    if (p)
        json_int(&j, "source_layers", p->source_layers);
    else
        json_text(&j, "source_layers", NULL);
    json_text(&j, "seam", info->seam);
    json_text(&j, "zero", info->zero);
    json_text(&j, "init_noise", info->init_noise);
    json_text(&j, "init_noise_seed", info->init_noise_seed);
    if (p)
        json_map(p, &j);
    else
        json_text(&j, "map", NULL);
    json_end(&j, '}');
    printf("%s\n", j.text);
    json_fini(&j);
}

int inspect_map(const char *path, bool json, struct err *err)
{
    struct upscale_plan plan = {0};
    struct ckpt *k = ckpt_open(comm_self(), path, err);
    if (!k)
        return -1;
    const struct ckpt_info *info = ckpt_info(k);
    bool mapped = info->layers;
    int rc = mapped ? upscale_plan_of(&plan, info, err) : 0;
    if (rc < 0)
        err_prefix(err, "%s: /source", ckpt_path(k));
    else if (json)
        print_json(path, mapped ? &plan : NULL, info);
    else if (mapped)
        print_map(path, &plan, info);
    else
        printf("%s\n%d layers, not made by a map of layers\n", path,
               info->shape.layers);
    upscale_plan_fini(&plan);
    ckpt_close(k);
    return rc;
}
