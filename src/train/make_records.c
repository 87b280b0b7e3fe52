/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/make_records.h"

#include "io/input_plan.h"
#include "io/record_gather.h"
#include "io/records.h"
#include "io/token_stage.h"
#include "src/base/mem.h"
#include "src/base/progress.h"
#include "src/objective/packing.h"
#include "src/train/bad_lines.h"
#include "src/train/record_shapes.h"
#include "src/train/template_file.h"

#include <stdlib.h>

struct job {
    struct comm *c;
    const struct log *log;
    const struct tokenizer *t;
    const struct make_records_options *o;
    struct make_records_result *r;
    struct template *chat;
    struct record_map map;
    struct record_rule rule;
    struct record_maker *maker;
    struct input_plan plan;
    int *shape;                  /* [files_n]; -1: the file has no record */
    struct spill_chunk *spilled; /* [chunks]; own ones, after the exchange all */
    struct token_stage stage;
    struct bad_lines bad; /* of this rank */
    struct progress progress;
    double done, own_bytes; /* bytes of this rank's chunks: encoded, all */
};

static int check_options(const struct job *j, struct err *err)
{
    const struct make_records_options *o = j->o;
    if (o->files_n < 1)
        return err_set(err, ERR_USAGE, "expected at least one input file");
    if (o->pack_length && o->max_length > o->pack_length)
        return err_set(err, ERR_USAGE,
                       "--max-length: expected at most --pack %lld, found %lld",
                       (long long)o->pack_length, (long long)o->max_length);
    if (o->bos == RECORD_BOS_YES && tokenizer_bos(j->t) < 0)
        return err_set(err, ERR_USAGE, "--bos yes: the tokenizer has no BOS");
    return 0;
}

/* Template, maker and what they follow. Collective. */
static int prepare(struct job *j, struct err *err)
{
    const struct make_records_options *o = j->o;
    record_map_init(&j->map);
    int failed =
        check_options(j, err) || (o->map && record_map_parse(&j->map, o->map, err));
    if (comm_agree(j->c, failed, err) ||
        !(j->chat = template_load(j->c, o->chat, j->t, err)))
        return -1;
    j->rule = (struct record_rule){
        .bos = o->bos == RECORD_BOS_TEMPLATE ? template_bos(j->chat)
                                             : o->bos == RECORD_BOS_YES,
        .all = o->all,
        .max_length = o->max_length ? o->max_length : o->pack_length,
        .too_long = o->too_long};
    j->maker = record_maker_create(j->t, j->chat, &j->map, &j->rule, err);
    if (comm_agree(j->c, !j->maker, err))
        return -1;
    if (!template_ends_replies(j->chat))
        log_warning(j->log,
                    "template %s puts no end mark behind replies: a model trained on "
                    "them does not learn to stop",
                    template_name(j->chat));
    return 0;
}

static int plan(struct job *j, struct err *err)
{
    int n = j->o->files_n;
    enum text_rule *rule = mem_array(n, sizeof *rule, err); /* zero: TEXT_LINE */
    int failed = !rule || !(j->shape = mem_array(n, sizeof *j->shape, err));
    if (comm_agree(j->c, failed, err) ||
        input_plan_init(&j->plan, j->c, j->o->files, n, rule, j->o->chunk_bytes, err)) {
        mem_free(rule);
        return -1;
    }
    mem_free(rule);
    j->spilled = mem_array(j->plan.chunks, sizeof *j->spilled, err);
    return comm_agree(j->c, !j->spilled, err);
}

/* The shapes of all files, and what does not go with pairs. Collective. */
static int recognise(struct job *j, struct err *err)
{
    int pairs = -1;
    if (record_shapes_find(j->c, j->log, &j->plan, j->maker, j->o->shape,
                           j->o->skip_bad, j->shape, err))
        return -1;
    for (int i = 0; i < j->o->files_n && pairs < 0; i++)
        if (j->shape[i] == RECORD_PAIRS)
            pairs = i;
    j->r->kind = pairs >= 0 ? RECORD_SET_PAIRS : RECORD_SET_RECORDS;
    if (pairs >= 0 && j->o->pack_length)
        return err_set(err, ERR_USAGE, "%s: --pack: expected records, found pairs",
                       j->o->files[pairs]);
    if (pairs >= 0 && j->o->all)
        return err_set(err, ERR_USAGE,
                       "%s: --train-on all: expected records, found pairs, whose "
                       "prompts are never learnt",
                       j->o->files[pairs]);
    return 0;
}

static int encode_line(struct job *j, int64_t chunk, const struct text_document *d,
                       struct spill_writer *w, struct err *err)
{
    int file = j->plan.chunk[chunk].file;
    enum record_made made = RECORD_BAD;
    enum record_shape shape;
    if (j->shape[file] >= 0)
        made = record_maker_line(j->maker, (enum record_shape)j->shape[file], d->text,
                                 d->bytes, err);
    else if (!record_maker_shape(j->maker, d->text, d->bytes, &shape, err))
        err_set(err, ERR_INPUT, "expected a bad line as before, found a record");
    if (made == RECORD_DROPPED)
        return 0;
    if (made == RECORD_BAD && j->o->skip_bad) {
        if (bad_lines_full(&j->bad))
            err->text[0] = '\0';
        else
            text_line_error(j->o->files[file], d->offset, err);
        bad_lines_add(&j->bad, chunk, err->text);
        return 0;
    }
    if (made != RECORD_MADE)
        return text_line_error(j->o->files[file], d->offset, err);
    for (int p = 0; p < record_maker_parts(j->maker); p++) {
        int64_t n;
        const int32_t *value = record_maker_part(j->maker, p, &n);
        if (spill_add(w, value, n, 0, err))
            return -1;
    }
    return 0;
}

static int encode_chunk(struct job *j, int64_t i, struct spill_writer *w,
                        struct err *err)
{
    const struct text_chunk *k = &j->plan.chunk[i];
    struct text_document d;
    struct text_reader *r =
        text_reader_open(j->o->files[k->file], j->plan.file_bytes[k->file], TEXT_LINE,
                         k->begin, k->end, err);
    int more = -1, failed = !r;
    if (r)
        text_reader_cut(r, RECORD_LINE_BYTES);
    spill_begin_chunk(w);
    while (!failed && (more = text_reader_next(r, &d, err)) > 0) {
        if (!text_is_blank(&d))
            failed = encode_line(j, i, &d, w, err);
        progress_at(&j->progress, (j->done + (double)(d.offset - k->begin)) /
                                      j->own_bytes * (double)j->plan.bytes);
    }
    text_reader_close(r);
    j->done += (double)(k->end - k->begin);
    return failed || more < 0 || spill_end_chunk(w, &j->spilled[i], err) ? -1 : 0;
}

/* Chunks of this rank, up to one that another rank found bad. The error that all report
 * is that of the first bad chunk: *failed_at, the number of chunks if there is none. */
static void encode_own(struct job *j, struct spill_writer *w, int64_t *failed_at,
                       struct err *err)
{
    int rank = comm_rank(j->c), ranks = comm_size(j->c);
    *failed_at = j->plan.chunks;
    for (int64_t i = rank; i < j->plan.chunks; i += ranks) {
        if (ranks > 1 && i > bad_chunk_read(j->stage.failed))
            return;
        if (encode_chunk(j, i, w, err)) {
            bad_chunk_write(j->stage.failed, i);
            *failed_at = i;
            return;
        }
    }
}

/* -1 on every rank with the first bad chunk's error. */
static int agree_chunk(struct job *j, int64_t failed_at, struct err *err)
{
    comm_min_i64(j->c, &failed_at, 1);
    if (failed_at == j->plan.chunks)
        return 0;
    comm_bcast(j->c, err, sizeof *err, (int)(failed_at % comm_size(j->c)));
    return -1;
}

static int encode(struct job *j, struct err *err)
{
    int64_t failed_at;
    struct spill_writer *w =
        spill_create(j->stage.spill, record_value_bytes(tokenizer_vocab(j->t)), err);
    if (comm_agree(j->c, !w, err)) {
        spill_abandon(w);
        return -1;
    }
    for (int64_t i = comm_rank(j->c); i < j->plan.chunks; i += comm_size(j->c))
        j->own_bytes += (double)(j->plan.chunk[i].end - j->plan.chunk[i].begin);
    progress_begin(&j->progress, j->log, "records", "MB", (double)j->plan.bytes, 1e6);
    encode_own(j, w, &failed_at, err);
    if (agree_chunk(j, failed_at, err)) {
        spill_abandon(w);
        return -1;
    }
    if (comm_agree(j->c, spill_close(w, err), err))
        return -1;
    progress_end(&j->progress);
    comm_sum_i64(j->c, (int64_t *)j->spilled,
                 j->plan.chunks * (int64_t)(sizeof *j->spilled / 8));
    return 0;
}

/* Counts of all ranks. */
static int sum_counts(struct job *j, struct err *err)
{
    struct make_records_result *r = j->r;
    r->counts = *record_maker_counts(j->maker);
    int64_t longest[2] = {r->counts.longest, r->counts.longest_row};
    comm_sum_i64(j->c, (int64_t *)&r->counts, (int64_t)(sizeof r->counts / 8));
    comm_max_i64(j->c, longest, 2);
    r->counts.longest = longest[0];
    r->counts.longest_row = longest[1];
    r->skipped = j->bad.all;
    comm_sum_i64(j->c, &r->skipped, 1);
    r->bytes = j->plan.bytes;
    r->bad = bad_lines_gather(&j->bad, j->c, r->bad_line);
    if (r->counts.records == 0)
        return err_set(
            err, ERR_INPUT,
            "%s%s: expected at least one record to learn from, found none: %lld too "
            "long, %lld without counted tokens, %lld pairs of equal answers, %lld bad "
            "lines%s%s",
            j->o->files[0], j->o->files_n > 1 ? " and the others" : "",
            (long long)r->counts.dropped_too_long,
            (long long)r->counts.dropped_uncounted, (long long)r->counts.dropped_equal,
            (long long)r->skipped, r->bad ? ", the first " : "",
            r->bad ? r->bad_line[0] : "");
    return 0;
}

/* "alpaca, messages": the shapes of the files, each once. */
static char *shape_names(const struct job *j, struct err *err)
{
    char *all = mem_printf(err, "%s", "");
    for (int s = 0; s < RECORD_SHAPES && all; s++) {
        bool there = false;
        for (int i = 0; i < j->o->files_n; i++)
            there = there || j->shape[i] == s;
        if (!there)
            continue;
        char *more = mem_printf(err, "%s%s%s", all, *all ? ", " : "",
                                record_shape_name((enum record_shape)s));
        free(all);
        all = more;
    }
    return all;
}

/* The file's facts, with strings of `owned`, which the caller frees in any case. */
static int fill_info(const struct job *j, struct record_set_info *info, char *owned[5],
                     struct err *err)
{
    static char bos[3][9] = {"template", "yes", "no"}, on[2][8] = {"replies", "all"},
                cut[3][9] = {"truncate", "drop", "error"};
    const struct record_counts *n = &j->r->counts;
    struct err none;
    owned[0] = template_describe(j->chat, err);
    owned[1] = template_jinja(j->chat, false, &none);
    if (!owned[1]) /* a template without chats */
        owned[1] = mem_printf(err, "%s", "");
    owned[2] = shape_names(j, err);
    owned[3] = input_names(j->o->files, j->o->files_n, err);
    owned[4] = mem_printf(err, "%s", template_name(j->chat));
    *info = (struct record_set_info){
        .kind = j->r->kind,
        .records = n->records,
        .tokens = n->tokens,
        .counted_tokens = n->counted,
        .longest = n->longest,
        .longest_row = n->longest_row,
        .packs = j->r->packs,
        .pack_length = j->o->pack_length,
        .max_length = j->rule.max_length,
        .vocab = tokenizer_vocab(j->t),
        .template_name = owned[4],
        .template_text = owned[0],
        .jinja = owned[1],
        .bos = bos[j->o->bos],
        .train_on = on[j->o->all],
        .too_long = cut[j->o->too_long],
        .eos_id = record_maker_eos(j->maker),
        .shape = owned[2],
        .source = owned[3],
        .truncated = n->truncated,
        .dropped_too_long = n->dropped_too_long,
        .dropped_uncounted = n->dropped_uncounted,
        .dropped_equal = n->dropped_equal,
        .skipped = j->r->skipped,
    };
    tokenizer_hash(j->t, info->tokenizer, sizeof info->tokenizer);
    return owned[0] && owned[1] && owned[2] && owned[3] && owned[4] ? 0 : -1;
}

static int write_set(struct job *j, const struct record_gather *g,
                     const struct packing *p, struct err *err)
{
    struct record_set_info info = {0};
    char *owned[5] = {NULL};
    int failed = comm_agree(j->c, fill_info(j, &info, owned, err), err);
    struct sealed_writer *w =
        failed ? NULL : record_set_create(j->c, j->stage.partial[0], true, &info, err);
    for (int i = 0; i < 5; i++)
        free(owned[i]);
    if (!w)
        return -1;
    failed = record_gather_write(g, p->document, p->packs ? p->pack_begin + 1 : NULL,
                                 p->packs, comm_rank(j->c), w, err);
    if (comm_agree(j->c, failed, err)) {
        sealed_abort(w);
        return -1;
    }
    return sealed_commit(w, err);
}

/* Packs, if there are to be any, and the file. */
static int write_packed(struct job *j, struct err *err)
{
    struct record_gather g;
    struct packing p = {0};
    int failed = 0;
    if (record_gather_init(&g, j->c, &j->stage, tokenizer_vocab(j->t),
                           record_set_parts(j->r->kind), j->plan.chunks, j->spilled,
                           err))
        return -1;
    if (j->o->pack_length)
        failed = packing_init(&p, g.length, g.records, (int32_t)j->o->pack_length, err);
    failed = comm_agree(j->c, failed, err);
    j->r->packs = p.packs;
    failed = failed || write_set(j, &g, &p, err);
    packing_fini(&p);
    record_gather_fini(&g);
    return failed ? -1 : token_stage_publish(&j->stage, j->c, err);
}

int make_records(struct comm *c, const struct log *log, const struct tokenizer *t,
                 const struct make_records_options *o, struct make_records_result *r,
                 struct err *err)
{
    struct job j = {.c = c, .log = log, .t = t, .o = o, .r = r};
    *r = (struct make_records_result){0};
    int failed = prepare(&j, err) || plan(&j, err) || recognise(&j, err);
    if (!failed &&
        !(failed = token_stage_begin(&j.stage, c, o->output, false, o->force, err))) {
        failed = encode(&j, err) || sum_counts(&j, err) || write_packed(&j, err);
        token_stage_end(&j.stage, c);
    }
    input_plan_fini(&j.plan);
    record_maker_destroy(j.maker);
    template_destroy(j.chat);
    mem_free(j.shape);
    mem_free(j.spilled);
    return failed ? -1 : 0;
}
