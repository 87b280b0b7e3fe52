/* SPDX-License-Identifier: Apache-2.0 */
#include "io/upscale_plan.h"

#include "src/base/mem.h"
#include "src/base/suggest.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROLES_TEXT = 128 }; /* all matrices of a layer, with commas */

static bool is_matrix(enum tensor_role r)
{
    return r >= ROLE_Q_PROJ && r <= ROLE_DOWN_PROJ;
}

/* ---- choices ---- */

static int read_seam(struct upscale_choices *c, const char *text, struct err *err)
{
    static const char mean[] = "mean:";
    char *end = NULL;
    long k = 0;
    if (strncmp(text, mean, sizeof mean - 1) == 0)
        k = strtol(text + sizeof mean - 1, &end, 10);
    if (!end || *end || k < 1 || k > 32768)
        return err_set(err, ERR_USAGE,
                       "--seam: expected mean:K, K layers from 1 up on each side of a "
                       "joint, found \"%.100s\"",
                       text);
    c->seam = (int)k;
    return 0;
}

static int no_matrix(const char *name, struct err *err)
{
    struct suggest s = suggest_for(name);
    for (int r = 0; r < ROLES; r++)
        if (is_matrix((enum tensor_role)r))
            suggest_try(&s, role_name((enum tensor_role)r));
    return err_set(err, ERR_USAGE,
                   "--zero: expected matrices of a layer, such as o_proj,down_proj, "
                   "found \"%s\"%s%s%s",
                   name, s.best ? ": did you mean " : "", s.best ? s.best : "",
                   s.best ? "?" : "");
}

static int read_zero(struct upscale_choices *c, const char *text, struct err *err)
{
    for (const char *at = text;; at++) {
        char name[64];
        int n = (int)strcspn(at, ","), r = 0;
        snprintf(name, sizeof name, "%.*s", n, at);
        while (r < ROLES && (!is_matrix((enum tensor_role)r) ||
                             strcmp(name, role_name((enum tensor_role)r)) != 0))
            r++;
        if (r == ROLES)
            return no_matrix(name, err);
        c->zero[r] = true;
        at += n;
        if (!*at)
            return 0;
    }
}

int upscale_choices_read(struct upscale_choices *c, const char *seam, const char *zero,
                         struct err *err)
{
    *c = (struct upscale_choices){0};
    if (seam && read_seam(c, seam, err) < 0)
        return -1;
    return zero ? read_zero(c, zero, err) : 0;
}

static bool any_zero(const struct upscale_choices *c)
{
    for (int r = 0; r < ROLES; r++)
        if (c->zero[r])
            return true;
    return false;
}

bool upscale_choices_any(const struct upscale_choices *c)
{
    return c->seam || any_zero(c) || c->init_noise > 0;
}

/* ---- the plan ---- */

bool upscale_joint(const struct upscale_plan *p, int l)
{
    return l > 0 && p->layer[l].source != p->layer[l - 1].source + 1;
}

static void find_inserted(struct upscale_plan *p, bool *seen)
{
    for (int l = 0; l < p->layers; l++) {
        struct upscale_layer *layer = &p->layer[l];
        layer->inserted = seen[layer->source];
        seen[layer->source] = true;
    }
}

/* The run of layers [from, to) has to hold those that the joints at its ends ask for.
 */
static int check_run(const struct upscale_plan *p, int from, int to, struct err *err)
{
    int k = p->choices.seam, joints = (from > 0) + (to < p->layers);
    if (to - from >= (int64_t)joints * k)
        return 0;
    char fix[48] = "longer ranges";
    if (to - from >= joints)
        snprintf(fix, sizeof fix, "mean:K with K up to %d", (to - from) / joints);
    return err_set(err, ERR_USAGE,
                   "--seam mean:%d: layers %d to %d of the result are too few to be "
                   "averaged over %s: expected %s",
                   k, from, to - 1,
                   joints == 2 ? "the joints on both sides" : "a joint", fix);
}

/* Pairs up the layers around the joint before layer l. */
static int average(struct upscale_plan *p, int l)
{
    int a = p->layer[l - 1].source, b = p->layer[l].source, averaged = 0;
    for (int d = 0; d < p->choices.seam; d++) {
        if (b - 1 - d >= 0) {
            p->layer[l - 1 - d].mean_with = b - 1 - d;
            averaged++;
        }
        if (a + 1 + d < p->source_layers) {
            p->layer[l + d].mean_with = a + 1 + d;
            averaged++;
        }
    }
    return averaged;
}

static int plan_seams(struct upscale_plan *p, struct err *err)
{
    int averaged = 0, joints = 0;
    for (int from = 0, to; from < p->layers; from = to) {
        for (to = from + 1; to < p->layers && !upscale_joint(p, to); to++)
            ;
        joints += to < p->layers;
        if ((from > 0 || to < p->layers) && check_run(p, from, to, err) < 0)
            return -1;
    }
    for (int l = 1; l < p->layers; l++)
        if (upscale_joint(p, l))
            averaged += average(p, l);
    if (averaged)
        return 0;
    return err_set(err, ERR_USAGE, "--seam mean:%d: %s", p->choices.seam,
                   joints ? "no layer at a joint has a counterpart on its other side"
                          : "the layers follow each other without a joint: expected "
                            "ranges such as 0:24,8:32");
}

int upscale_plan_init(struct upscale_plan *p, const struct layer_map *map,
                      const struct upscale_choices *c, struct err *err)
{
    *p = (struct upscale_plan){
        .choices = *c, .layers = map->layers, .source_layers = map->source_layers};
    bool *seen = mem_array(map->source_layers, sizeof *seen, err);
    p->layer = mem_array(map->layers, sizeof *p->layer, err);
    int rc = seen && p->layer ? 0 : -1;
    for (int l = 0; rc == 0 && l < map->layers; l++)
        p->layer[l] = (struct upscale_layer){.source = map->source[l], .mean_with = -1};
    if (rc == 0)
        find_inserted(p, seen);
    bool inserted = false;
    for (int l = 0; rc == 0 && l < p->layers; l++)
        inserted = inserted || p->layer[l].inserted;
    if (rc == 0 && !inserted && (any_zero(c) || c->init_noise > 0))
        rc = err_set(err, ERR_USAGE,
                     "%s: no layer of the source comes twice, so that there is no "
                     "inserted copy: expected ranges that overlap, such as 0:4,3:8",
                     any_zero(c) ? "--zero" : "--init-noise");
    if (rc == 0 && c->seam)
        rc = plan_seams(p, err);
    mem_free(seen);
    if (rc < 0)
        upscale_plan_fini(p);
    return rc;
}

void upscale_plan_fini(struct upscale_plan *p)
{
    mem_free(p->layer);
    *p = (struct upscale_plan){0};
}

bool upscale_zeroed(const struct upscale_plan *p, int l, enum tensor_role r)
{
    return p->layer[l].inserted && p->choices.zero[r];
}

bool upscale_noisy(const struct upscale_plan *p, int l, enum tensor_role r)
{
    return p->choices.init_noise > 0 && p->layer[l].inserted && is_matrix(r) &&
           !p->choices.zero[r];
}

bool upscale_altered(const struct upscale_plan *p, int l, enum tensor_role r)
{
    return p->layer[l].mean_with >= 0 || upscale_zeroed(p, l, r) ||
           upscale_noisy(p, l, r);
}

bool upscale_keeps_function(const struct upscale_plan *p)
{
    const struct upscale_choices *c = &p->choices;
    if (c->seam || !c->zero[ROLE_O_PROJ] || !c->zero[ROLE_DOWN_PROJ])
        return false;
    int next = 0;
    for (int l = 0; l < p->layers; l++) {
        if (p->layer[l].inserted)
            continue;
        if (p->layer[l].source != next)
            return false;
        next++;
    }
    return next == p->source_layers;
}

/* ---- in a checkpoint's description ---- */

static void roles_text(const struct upscale_choices *c, char *text, size_t size)
{
    size_t used = 0;
    *text = '\0';
    for (int r = 0; r < ROLES && used < size; r++)
        if (c->zero[r])
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? "," : "",
                                     role_name((enum tensor_role)r));
}

/* The shortest text that reads back as x. */
static char *number_text(double x, struct err *err)
{
    char text[32];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (!(fabs(strtod(text, NULL) - x) > 0))
            break;
    }
    return mem_printf(err, "%s", text);
}

int upscale_plan_record(const struct upscale_plan *p, struct ckpt_info *info,
                        struct err *err)
{
    const struct upscale_choices *c = &p->choices;
    char roles[ROLES_TEXT];
    info->source_layers = p->source_layers;
    if (c->seam && !(info->seam = mem_printf(err, "mean:%d", c->seam)))
        return -1;
    roles_text(c, roles, sizeof roles);
    if (*roles && !(info->zero = mem_printf(err, "%s", roles)))
        return -1;
    if (!(c->init_noise > 0))
        return 0;
    info->init_noise = number_text(c->init_noise, err);
    info->init_noise_seed = mem_printf(err, "%llu", (unsigned long long)c->seed);
    return info->init_noise && info->init_noise_seed ? 0 : -1;
}

/* Layers of the source, of a file that does not say so: those up to the last used. */
static int layers_named(const char *ranges)
{
    long most = 1;
    for (const char *at = ranges; *at;) {
        char *end;
        long value = strtol(at, &end, 10);
        most = value > most && value <= 65536 ? value : most;
        at = end > at ? end : at + 1;
    }
    return (int)most;
}

int upscale_plan_of(struct upscale_plan *p, const struct ckpt_info *info,
                    struct err *err)
{
    struct upscale_choices c;
    struct layer_map map = {0};
    int layers = info->source_layers ? info->source_layers : layers_named(info->layers);
    int rc = upscale_choices_read(&c, info->seam, info->zero, err);
    if (rc == 0 && info->init_noise)
        c.init_noise = strtod(info->init_noise, NULL);
    if (rc == 0 && info->init_noise_seed)
        c.seed = strtoull(info->init_noise_seed, NULL, 10);
    if (rc == 0)
        rc = layer_map_parse(&map, info->layers, layers, err);
    if (rc == 0 && map.layers != info->shape.layers)
        rc = err_set(err, ERR_INPUT, "layers: expected %d, as the model has, found %s",
                     info->shape.layers, info->layers);
    if (rc == 0)
        rc = upscale_plan_init(p, &map, &c, err);
    layer_map_fini(&map);
    if (rc < 0 && err->code == ERR_USAGE)
        err->code = ERR_INPUT;
    return rc;
}
