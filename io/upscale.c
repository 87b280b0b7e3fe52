/* SPDX-License-Identifier: Apache-2.0 */
#include "io/upscale.h"

#include "io/add_tokens.h"
#include "io/ckpt.h"
#include "io/new_rows.h"
#include "io/upscale_alter.h"
#include "io/upscale_plan.h"
#include "src/base/mem.h"
#include "src/base/progress.h"
#include "src/param/layer_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_ELEMENTS = 1 << 20 }; /* a multiple of 32,768: whole checksum blocks */

static const double gigabyte = 1e9;

/* One reading: a piece of a tensor of the source, written wherever it goes. */
struct piece {
    struct tensor tensor; /* of the source */
    int64_t begin, n;     /* of the result's tensor */
};

struct job {
    struct comm *c;
    const struct log *log;
    struct ckpt *source;
    struct ckpt_writer *writer;
    struct layer_map map;
    struct upscale_plan plan;
    struct ckpt_info info; /* of the result; owned */
    int added;             /* new tokens */
    struct new_rows embed, head;
};

static int find_map(struct job *j, const struct upscale_options *o, struct err *err)
{
    int layers = ckpt_info(j->source)->shape.layers;
    if (o->layers)
        return layer_map_parse(&j->map, o->layers, layers, err);
    if (o->drop)
        return layer_map_drop(&j->map, o->drop, layers, err);
    if (o->solar && layers % 4)
        return err_set(err, ERR_USAGE,
                       "--preset solar: expected a number of layers that 4 divides, so "
                       "that m is a quarter of them; %s has %d: --drop M takes any m",
                       o->checkpoint, layers);
    if (o->solar)
        return layer_map_drop(&j->map, layers / 4, layers, err);
    return layer_map_identity(&j->map, layers, err);
}

/* Each new layer keeps the dtype that its source had in the Hugging Face file, an
 * averaged one the narrowest that holds both; a stack that no longer mixes needs no
 * list. */
static int map_dtypes(struct job *j, const struct ckpt_info *from, struct err *err)
{
    for (int r = 0; r < ROLES; r++) {
        if (!from->layer_dtype[r])
            continue;
        enum dtype *list = calloc((size_t)j->map.layers, sizeof *list);
        if (!list)
            return err_set(err, ERR_OTHER, "no memory for %d layers", j->map.layers);
        bool mixed = false;
        for (int l = 0; l < j->map.layers; l++) {
            int with = j->plan.layer[l].mean_with;
            list[l] = from->layer_dtype[r][j->map.source[l]];
            if (with >= 0)
                list[l] = dtype_widest(list[l], from->layer_dtype[r][with]);
            mixed = mixed || list[l] != from->dtype[r];
        }
        if (mixed)
            j->info.layer_dtype[r] = list;
        else
            free(list);
    }
    return 0;
}

/* "base.h5 (4 layers, seal 0123...), 2 tokens added"; owned. */
static char *describe_source(const struct job *j, struct err *err)
{
    char *text =
        mem_printf(err, "%s (%d layers, seal %016llx)", ckpt_short_name(j->source),
                   ckpt_info(j->source)->shape.layers,
                   (unsigned long long)ckpt_identity(j->source));
    if (!text || !j->added)
        return text;
    char *longer = mem_printf(err, "%s, %d token%s added", text, j->added,
                              j->added == 1 ? "" : "s");
    free(text);
    return longer;
}

/* The result is a new model: no optimizer, no steps, no keys of a run. */
static int make_info(struct job *j, const struct upscale_options *o, struct err *err)
{
    const struct ckpt_info *from = ckpt_info(j->source);
    struct ckpt_info seen = {
        .shape = from->shape, .files = from->files, .file = from->file};
    memcpy(seen.dtype, from->dtype, sizeof seen.dtype);
    if (ckpt_info_copy(&j->info, &seen, err) < 0)
        return -1;
    j->info.shape.layers = j->map.layers;
    if ((o->layers || o->drop || o->solar) &&
        (!(j->info.layers = layer_map_format(&j->map, err)) ||
         upscale_plan_record(&j->plan, &j->info, err) < 0))
        return -1;
    if (o->add_tokens) {
        j->added = add_tokens(&j->info, o->add_tokens, o->checkpoint, err);
        if (j->added < 0)
            return -1;
    }
    if (!(j->info.source = describe_source(j, err)))
        return -1;
    return map_dtypes(j, from, err);
}

static const struct new_rows *rows_of(const struct job *j, enum tensor_role role)
{
    static const struct new_rows none = {0};
    return role == ROLE_EMBED_TOKENS ? &j->embed
           : role == ROLE_LM_HEAD    ? &j->head
                                     : &none;
}

/* Of which tensors of the source does the result hold copies? used[layer x ROLES +
 * role], of layers. */
static void find_used(const struct job *j, bool *used)
{
    for (int l = 0; l < j->map.layers; l++)
        for (int r = 0; r < ROLES; r++)
            if (!upscale_altered(&j->plan, l, (enum tensor_role)r))
                used[(size_t)j->map.source[l] * ROLES + (size_t)r] = true;
}

/* Pieces of all tensors that the result has copies of, owned; *n of them. */
static struct piece *list_pieces(const struct job *j, int64_t *n, struct err *err)
{
    const struct model_shape *s = &ckpt_info(j->source)->shape;
    int64_t count = 0;
    for (int i = 0; i < table_count(s); i++)
        count +=
            (table_at(s, i).elements + rows_of(j, table_at(s, i).role)->elements - 1) /
                PIECE_ELEMENTS +
            1;
    struct piece *list = mem_array(count, sizeof *list, err);
    bool *used = mem_array((int64_t)s->layers * ROLES, sizeof *used, err);
    if (!list || !used) {
        mem_free(list);
        mem_free(used);
        return NULL;
    }
    find_used(j, used);
    *n = 0;
    for (int i = 0; i < table_count(s); i++) {
        struct tensor t = table_at(s, i);
        if (t.layer >= 0 && !used[(size_t)t.layer * ROLES + t.role])
            continue;
        int64_t elements = t.elements + rows_of(j, t.role)->elements;
        for (int64_t at = 0; at < elements; at += PIECE_ELEMENTS) {
            int64_t left = elements - at;
            list[(*n)++] =
                (struct piece){.tensor = t,
                               .begin = at,
                               .n = left < PIECE_ELEMENTS ? left : PIECE_ELEMENTS};
        }
    }
    mem_free(used);
    return list;
}

/* The piece's values: the source's, and new rows behind them. */
static int read_piece(const struct job *j, const struct piece *p, unsigned char *buffer,
                      struct err *err)
{
    const struct tensor *t = &p->tensor;
    int64_t old = t->elements - p->begin; /* of the source, from here on */
    int64_t kept = old < 0 ? 0 : old < p->n ? old : p->n;
    if (kept && ckpt_read_raw(j->source, CKPT_MODEL, t->role, t->layer, p->begin, kept,
                              buffer, err) < 0)
        return -1;
    if (kept < p->n) {
        size_t size = dtype_bytes(j->info.dtype[t->role]);
        const unsigned char *rows = rows_of(j, t->role)->data;
        memcpy(buffer + (size_t)kept * size, rows + (size_t)(kept - old) * size,
               (size_t)(p->n - kept) * size);
    }
    return 0;
}

/* How many tensors of the result are copies of this one of the source? */
static int copies_of(const struct job *j, const struct tensor *t)
{
    int copies = t->layer < 0;
    for (int l = 0; t->layer >= 0 && l < j->map.layers; l++)
        copies +=
            j->map.source[l] == t->layer && !upscale_altered(&j->plan, l, t->role);
    return copies;
}

/* What a piece adds to the result. */
static double piece_bytes(const struct job *j, const struct piece *p)
{
    return (double)p->n * (double)dtype_bytes(j->info.dtype[p->tensor.role]) *
           copies_of(j, &p->tensor);
}

static int copy_piece(struct job *j, const struct piece *p, void *buffer,
                      struct err *err)
{
    const struct tensor *t = &p->tensor;
    if (read_piece(j, p, buffer, err) < 0)
        return -1;
    if (t->layer < 0)
        return ckpt_write_raw(j->writer, CKPT_MODEL, t->role, -1, p->begin, p->n,
                              buffer, err);
    for (int l = 0; l < j->map.layers; l++)
        if (j->map.source[l] == t->layer && !upscale_altered(&j->plan, l, t->role) &&
            ckpt_write_raw(j->writer, CKPT_MODEL, t->role, l, p->begin, p->n, buffer,
                           err) < 0)
            return -1;
    return 0;
}

/* This rank's run of pieces. Local. */
static int copy_share(struct job *j, struct err *err)
{
    int64_t n;
    struct piece *list = list_pieces(j, &n, err);
    void *buffer = mem_array(PIECE_ELEMENTS, sizeof(float), err);
    int rc = list && buffer ? 0 : -1;
    if (rc == 0) {
        int64_t rank = comm_rank(j->c), size = comm_size(j->c);
        int64_t first = n * rank / size, end = n * (rank + 1) / size;
        double bytes = 0, share = 0, done = 0;
        for (int64_t i = 0; i < n; i++) {
            bytes += piece_bytes(j, &list[i]);
            share += i >= first && i < end ? piece_bytes(j, &list[i]) : 0;
        }
        struct progress progress;
        progress_begin(&progress, j->log, "upscale", "GB", bytes, gigabyte);
        for (int64_t i = first; rc == 0 && i < end; i++) {
            rc = copy_piece(j, &list[i], buffer, err);
            done += piece_bytes(j, &list[i]);
            progress_at(&progress, done / share * bytes); /* all keep this pace */
        }
        if (rc == 0)
            progress_end(&progress);
        else
            progress_stop(&progress);
    }
    mem_free(buffer);
    mem_free(list);
    return rc;
}

/* New rows, where there are new tokens. Collective. */
static int make_rows(struct job *j, const struct upscale_options *o, struct err *err)
{
    const struct {
        enum tensor_role role;
        struct new_rows *rows;
    } grown[] = {{ROLE_EMBED_TOKENS, &j->embed}, {ROLE_LM_HEAD, &j->head}};
    for (int i = 0; i < 2 && j->added; i++)
        if (role_present(&j->info.shape, grown[i].role) &&
            new_rows_make(grown[i].rows, j->c, j->source, grown[i].role, j->added,
                          o->init, o->seed, err))
            return -1;
    return 0;
}

/* The file; nothing is left of it on failure. alter: NULL if all are copies. */
static int write_result(struct job *j, const struct upscale_options *o,
                        struct upscale_alter *alter, struct err *err)
{
    j->writer = ckpt_create(j->c, o->output, false, o->force, &j->info, err);
    if (!j->writer)
        return -1;
    int rc = copy_share(j, err);
    if (rc == 0 && alter)
        rc = upscale_alter_write(alter, j->writer, comm_rank(j->c), comm_size(j->c),
                                 j->log, err);
    if (comm_agree(j->c, rc < 0, err) < 0) {
        ckpt_abort(j->writer);
        return -1;
    }
    return ckpt_commit(j->writer, err);
}

static int copy(struct job *j, const struct upscale_options *o, struct err *err)
{
    struct upscale_alter *alter = NULL;
    if (make_rows(j, o, err))
        return -1;
    if (upscale_choices_any(&o->choices)) {
        alter = upscale_alter_create(j->c, j->log, j->source, &j->plan, &j->info, err);
        if (!alter)
            return -1;
    }
    int rc = write_result(j, o, alter, err);
    upscale_alter_destroy(alter);
    return rc;
}

static void describe(const struct job *j, struct upscale_result *r)
{
    const struct model_shape *s = &j->info.shape;
    *r = (struct upscale_result){.source_layers = j->map.source_layers,
                                 .layers = j->map.layers,
                                 .parameters = table_elements(s),
                                 .vocab = s->vocab,
                                 .added = j->added,
                                 .keeps_function =
                                     !j->added && upscale_keeps_function(&j->plan)};
    for (int l = 0; l < j->plan.layers; l++) {
        r->averaged += j->plan.layer[l].mean_with >= 0;
        r->inserted += j->plan.layer[l].inserted;
    }
    snprintf(r->ranges, sizeof r->ranges, "%s", j->info.layers ? j->info.layers : "");
    for (int i = 0; i < table_count(s); i++) {
        struct tensor t = table_at(s, i);
        r->bytes += t.elements * (int64_t)dtype_bytes(j->info.dtype[t.role]);
    }
}

static int check_link(const struct upscale_options *o, struct err *err)
{
    if (o->link && o->add_tokens)
        return err_set(err, ERR_USAGE,
                       "--add-tokens: a link holds no weights, and so no new rows; "
                       "expected --mode copy");
    if (o->link && upscale_choices_any(&o->choices))
        return err_set(err, ERR_USAGE,
                       "%s: a link holds no weights, and so no changed ones; expected "
                       "--mode copy",
                       o->choices.seam             ? "--seam"
                       : o->choices.init_noise > 0 ? "--init-noise"
                                                   : "--zero");
    return 0;
}

int upscale(struct comm *c, const struct log *log, const struct upscale_options *o,
            struct upscale_result *result, struct err *err)
{
    struct job j = {.c = c, .log = log};
    if (check_link(o, err) < 0)
        return -1;
    j.source = ckpt_open(c, o->checkpoint, err);
    if (!j.source)
        return -1;
    int rc = find_map(&j, o, err);
    if (rc == 0)
        rc = upscale_plan_init(&j.plan, &j.map, &o->choices, err);
    if (rc == 0)
        rc = make_info(&j, o, err);
    rc = comm_agree(c, rc < 0, err);
    if (rc == 0 && o->link)
        rc = ckpt_link(c, o->output, o->force, &j.info, j.source, &j.map, err);
    else if (rc == 0)
        rc = copy(&j, o, err);
    if (rc == 0 && result)
        describe(&j, result);
    new_rows_fini(&j.embed);
    new_rows_fini(&j.head);
    ckpt_info_fini(&j.info);
    upscale_plan_fini(&j.plan);
    layer_map_fini(&j.map);
    ckpt_close(j.source);
    return rc;
}
