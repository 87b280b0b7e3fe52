/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/pair_reference.h"

#include "io/reference.h"
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/progress.h"
#include "src/train/precision.h"
#include "src/train/stop.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Blocks whose sums are written together. */
enum { BLOCKS = 4 };

struct work {
    const struct pair_reference *r;
    struct comm *world;
    char *data, *path; /* owned */
    char precision[32];
    struct reference_key key;
    struct pair_sums *sums;
    struct pair_logps *logps;        /* [BLOCKS of pairs] */
    struct reference_writer *writer; /* rank 0 */
};

static int name_it(struct work *w, struct err *err)
{
    const struct pair_reference *r = w->r;
    const struct record_set *set = r->spec.set->records;
    char name[REFERENCE_NAME];
    snprintf(w->precision, sizeof w->precision, "%s%s",
             precision_name(engine_dtype(r->spec.engine)),
             r->sharing ? "" : ", prompts apart");
    w->data = mem_printf(err, "seal %016" PRIx64 "%s%s", record_set_identity(set),
                         *r->part ? ", " : "", r->part);
    w->key =
        (struct reference_key){.weights = r->weights,
                               .data = w->data,
                               .template_hash = record_set_info(set)->template_hash,
                               .precision = w->precision,
                               .pairs = r->pairs};
    if (!w->data)
        return -1;
    reference_name(&w->key, name);
    w->path =
        r->file ? mem_printf(err, "%s", r->file) : file_join(r->folder, name, err);
    return w->path ? 0 : -1;
}

/* 1: found; 0: to be computed. A file of ours that is damaged is made anew. */
static int look_up(const struct work *w, struct err *err)
{
    int found = reference_read(w->path, &w->key, &w->sums[0].chosen, err);
    if (found >= 0 || w->r->file || err->code != ERR_INPUT)
        return found;
    log_warning(w->r->log, "%s; it is made again", err->text);
    *err = (struct err){0};
    return 0;
}

static size_t bytes_of(int64_t pairs)
{
    return (size_t)pairs * sizeof(struct pair_sums);
}

/* Pairs [done, done + n): computed, and kept by rank 0. */
static int compute_some(struct work *w, int64_t done, int64_t n, struct err *err)
{
    if (pair_logps(&w->r->spec, done, n, w->logps, err))
        return -1;
    for (int64_t i = 0; i < n; i++)
        w->sums[done + i] =
            (struct pair_sums){w->logps[i].chosen, w->logps[i].rejected};
    int failed = 0;
    if (comm_root(w->world))
        failed = reference_append(w->writer, n, &w->sums[done].chosen, err);
    return comm_agree(w->world, failed, err);
}

/* Has a signal asked any rank to end? Then with ERR_STOPPED on all. */
static int stopped(const struct work *w, int64_t done, struct err *err)
{
    int64_t signal = stop_signal();
    comm_max_i64(w->world, &signal, 1);
    if (!signal || done == w->r->pairs)
        return 0;
    return err_set(err, ERR_STOPPED,
                   "stopped by signal %d at pair %" PRId64 " of the %" PRId64
                   " of the reference, which are kept; the same command goes on",
                   (int)signal, done, w->r->pairs);
}

static int begin(struct work *w, int64_t *done, struct err *err)
{
    int64_t step = pair_logps_block(&w->r->spec) * BLOCKS;
    w->logps = mem_array(step, sizeof *w->logps, err);
    int failed = !w->logps;
    if (!failed && comm_root(w->world)) {
        w->writer = reference_begin(w->path, &w->key, &w->sums[0].chosen, done, err);
        failed = !w->writer;
    }
    if (comm_agree(w->world, failed, err))
        return -1;
    comm_bcast(w->world, done, sizeof *done, 0);
    comm_bcast(w->world, w->sums, bytes_of(*done), 0);
    return 0;
}

static int compute(struct work *w, struct err *err)
{
    const struct pair_reference *r = w->r;
    int64_t done = 0, step = pair_logps_block(&r->spec) * BLOCKS;
    if (begin(w, &done, err) || (done < r->pairs && r->load(r->context, err)))
        return -1;
    log_line(r->log, "reference: %" PRId64 " pairs of %s%s", r->pairs, r->name,
             done ? ", going on where a run was killed" : "");
    struct progress p;
    progress_begin(&p, comm_root(w->world) ? r->log : NULL, "reference", "pairs",
                   (double)r->pairs, 1);
    while (done < r->pairs) {
        int64_t n = step - done % step; /* blocks begin where they always do */
        n = r->pairs - done < n ? r->pairs - done : n;
        if (compute_some(w, done, n, err))
            return -1;
        done += n;
        progress_at(&p, (double)done);
        if (stopped(w, done, err))
            return -1;
    }
    progress_end(&p);
    int failed = comm_root(w->world) ? reference_commit(&w->writer, err) : 0;
    return comm_agree(w->world, failed, err);
}

static int read_or_compute(struct work *w, bool *computed, struct err *err)
{
    int found = 0;
    if (comm_agree(w->world, name_it(w, err), err))
        return -1;
    if (comm_root(w->world))
        found = look_up(w, err);
    if (comm_agree(w->world, found < 0, err))
        return -1;
    comm_bcast(w->world, &found, sizeof found, 0);
    if (computed)
        *computed = !found;
    if (!found)
        return compute(w, err);
    log_line(w->r->log, "reference: %" PRId64 " pairs of %s, from %s", w->r->pairs,
             w->r->name, w->path);
    comm_bcast(w->world, w->sums, bytes_of(w->r->pairs), 0);
    return 0;
}

int pair_reference(const struct pair_reference *r, struct pair_sums *sums,
                   bool *computed, struct err *err)
{
    struct work w = {.r = r, .world = engine_grid(r->spec.engine)->world, .sums = sums};
    int failed = read_or_compute(&w, computed, err);
    reference_close(w.writer);
    mem_free(w.logps);
    free(w.data);
    free(w.path);
    return failed ? -1 : 0;
}
