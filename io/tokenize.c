/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tokenize.h"

#include "io/input_plan.h"
#include "io/jsonl.h"
#include "io/token_gather.h"
#include "io/token_set.h"
#include "io/token_spill.h"
#include "io/token_stage.h"
#include "src/base/mem.h"
#include "src/base/progress.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct job {
    struct comm *c;
    const struct tokenizer *t;
    const struct tokenize_options *o;
    struct input_plan plan;
    struct spill_chunk *spilled; /* [chunks]; own ones, after the exchange all */
    struct token_stage stage;
    struct token_ids ids; /* of the document at hand */
    struct progress progress;
    double done, own_bytes; /* bytes of this rank's chunks: encoded, all */
};

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool is_jsonl(const struct tokenize_options *o, int file)
{
    const char *name = o->files[file];
    if (o->format != TOKENIZE_AUTO)
        return o->format == TOKENIZE_JSONL;
    return ends_with(name, ".jsonl") || ends_with(name, ".json");
}

static enum text_rule rule_of(const struct tokenize_options *o, int file)
{
    return is_jsonl(o, file) ? TEXT_LINE : o->document;
}

static int check_options(const struct job *j, struct err *err)
{
    const struct tokenize_options *o = j->o;
    if (o->files_n < 1)
        return err_set(err, ERR_USAGE, "expected at least one input file");
    if (!(o->valid >= 0 && o->valid < 1))
        return err_set(err, ERR_USAGE,
                       "--valid: expected a share from 0 to below 1, found %g",
                       o->valid);
    if (o->bos && tokenizer_bos(j->t) < 0)
        return err_set(err, ERR_USAGE, "the tokenizer has no BOS; use --no-bos");
    if (o->eos && tokenizer_eos(j->t) < 0)
        return err_set(err, ERR_USAGE, "the tokenizer has no EOS; use --no-eos");
    return 0;
}

static int plan(struct job *j, struct err *err)
{
    enum text_rule *rule = mem_array(j->o->files_n, sizeof *rule, err);
    int failed = !rule;
    for (int i = 0; i < j->o->files_n && !failed; i++)
        rule[i] = rule_of(j->o, i);
    if (!comm_agree(j->c, failed, err) &&
        !input_plan_init(&j->plan, j->c, j->o->files, j->o->files_n, rule,
                         j->o->chunk_bytes, err)) {
        j->spilled = mem_array(j->plan.chunks, sizeof *j->spilled, err);
        failed = comm_agree(j->c, !j->spilled, err);
    } else {
        failed = -1;
    }
    mem_free(rule);
    return failed ? -1 : 0;
}

static int encode_text(struct job *j, const char *text, size_t bytes,
                       struct spill_writer *w, struct err *err)
{
    j->ids.n = 0;
    if ((j->o->bos && token_ids_push(&j->ids, tokenizer_bos(j->t), err)) ||
        tokenizer_encode(j->t, text, bytes, j->o->parse_special, &j->ids, err) ||
        (j->o->eos && token_ids_push(&j->ids, tokenizer_eos(j->t), err)))
        return -1;
    return j->ids.n ? spill_add(w, j->ids.id, j->ids.n, bytes, err) : 0;
}

static int encode_object(struct job *j, const struct text_document *d,
                         struct spill_writer *w, struct err *err)
{
    size_t spaces = 0;
    while (spaces < d->bytes && strchr(" \t\r", d->text[spaces]))
        spaces++;
    if (spaces == d->bytes)
        return 0;
    json_t *text = jsonl_text(d->text, d->bytes, j->o->field, err);
    if (!text)
        return -1;
    size_t bytes = json_string_length(text);
    int failed = bytes ? encode_text(j, json_string_value(text), bytes, w, err) : 0;
    json_decref(text);
    return failed;
}

static int encode_chunk(struct job *j, int64_t i, struct spill_writer *w,
                        struct err *err)
{
    const struct text_chunk *k = &j->plan.chunk[i];
    const char *path = j->o->files[k->file];
    struct text_document d;
    struct text_reader *r =
        text_reader_open(path, j->plan.file_bytes[k->file], rule_of(j->o, k->file),
                         k->begin, k->end, err);
    int more = -1, failed = !r;
    spill_begin_chunk(w);
    while (!failed && (more = text_reader_next(r, &d, err)) > 0) {
        failed = is_jsonl(j->o, k->file) ? encode_object(j, &d, w, err)
                                         : encode_text(j, d.text, d.bytes, w, err);
        if (failed)
            err_prefix(err, "%s:%lld", path,
                       (long long)text_line_number(path, d.offset));
        progress_at(&j->progress, (j->done + (double)(d.offset - k->begin)) /
                                      j->own_bytes * (double)j->plan.bytes);
    }
    text_reader_close(r);
    j->done += (double)(k->end - k->begin);
    return failed || more < 0 || spill_end_chunk(w, &j->spilled[i], err) ? -1 : 0;
}

/* A rank that fails leaves a mark, so that the others need not encode for hours what
 * will be thrown away. */
static int encode_own(struct job *j, struct spill_writer *w, struct err *err)
{
    int rank = comm_rank(j->c), ranks = comm_size(j->c);
    for (int64_t i = rank; i < j->plan.chunks; i += ranks) {
        if (ranks > 1 && access(j->stage.failed, F_OK) == 0)
            return 0;
        if (encode_chunk(j, i, w, err)) {
            int fd = open(j->stage.failed, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
            if (fd >= 0)
                close(fd);
            return -1;
        }
    }
    return 0;
}

static int encode(struct job *j, const struct log *log, struct err *err)
{
    size_t id_bytes = token_set_id_bytes(tokenizer_vocab(j->t));
    struct spill_writer *w = spill_create(j->stage.spill, id_bytes, err);
    int failed = !w;
    if (comm_agree(j->c, failed, err)) {
        spill_abandon(w);
        return -1;
    }
    for (int64_t i = comm_rank(j->c); i < j->plan.chunks; i += comm_size(j->c))
        j->own_bytes += (double)(j->plan.chunk[i].end - j->plan.chunk[i].begin);
    progress_begin(&j->progress, log, "tokens", "MB", (double)j->plan.bytes, 1e6);
    failed = encode_own(j, w, err);
    if (failed)
        spill_abandon(w);
    else
        failed = spill_close(w, err);
    if (comm_agree(j->c, failed, err))
        return -1;
    progress_end(&j->progress);
    comm_sum_i64(j->c, (int64_t *)j->spilled,
                 j->plan.chunks * (int64_t)(sizeof *j->spilled / 8));
    return 0;
}

static char *document_rule(const struct tokenize_options *o, struct err *err)
{
    static const char *const names[] = {
        [TEXT_LINE] = "line", [TEXT_BLANK] = "blank", [TEXT_FILE] = "file"};
    int jsonl = 0;
    for (int i = 0; i < o->files_n; i++)
        jsonl += is_jsonl(o, i);
    if (jsonl == 0)
        return mem_printf(err, "%s", names[o->document]);
    if (jsonl == o->files_n)
        return mem_printf(err, "field:%s", o->field);
    return mem_printf(err, "%s, field:%s", names[o->document], o->field);
}

static int fill_info(const struct job *j, struct token_set_info *info, struct err *err)
{
    *info = (struct token_set_info){
        .vocab = tokenizer_vocab(j->t), .bos = j->o->bos, .eos = j->o->eos};
    tokenizer_hash(j->t, info->tokenizer, sizeof info->tokenizer);
    return !(info->source = input_names(j->o->files, j->o->files_n, err)) ||
                   !(info->document = document_rule(j->o, err))
               ? -1
               : 0;
}

static int write_set(struct job *j, const struct token_gather *g, int set,
                     struct token_set_info *info, struct err *err)
{
    struct token_totals all = token_gather_totals(g, set);
    info->tokens = all.ids;
    info->documents = all.documents;
    info->source_bytes = all.text_bytes;
    struct sealed_writer *w =
        token_set_create(j->c, j->stage.partial[set], true, info, err);
    if (!w)
        return -1;
    int failed = token_gather_write(g, set, comm_rank(j->c), w, err);
    if (comm_agree(j->c, failed, err)) {
        sealed_abort(w);
        return -1;
    }
    return sealed_commit(w, err);
}

/* The same on all ranks: totals are. */
static int check_totals(const struct job *j, const struct token_gather *g,
                        struct err *err)
{
    struct token_totals train = token_gather_totals(g, 0),
                        valid = token_gather_totals(g, 1);
    if (train.documents + valid.documents == 0)
        return err_set(err, ERR_INPUT,
                       "%s%s: empty text: expected at least one document",
                       j->o->files[0], j->o->files_n > 1 ? " and the others" : "");
    if (j->o->valid > 0 && (valid.documents == 0 || train.documents == 0))
        return err_set(err, ERR_USAGE,
                       "--valid %g of %lld documents leaves %s set empty; choose "
                       "another share or --seed",
                       j->o->valid, (long long)(train.documents + valid.documents),
                       train.documents ? "the validation" : "the training");
    return 0;
}

static int write_sets(struct job *j, struct tokenize_counts *counts, struct err *err)
{
    struct token_set_info info = {0};
    struct token_gather g;
    size_t id_bytes = token_set_id_bytes(tokenizer_vocab(j->t));
    if (token_gather_init(&g, j->c, &j->stage, id_bytes, j->plan.chunks, j->spilled,
                          j->o->valid, j->o->seed, err))
        return -1;
    int failed = check_totals(j, &g, err) || fill_info(j, &info, err);
    failed = comm_agree(j->c, failed, err);
    for (int set = 0; set < 1 + (j->o->valid > 0) && !failed; set++)
        failed = write_set(j, &g, set, &info, err);
    struct token_totals train = token_gather_totals(&g, 0),
                        valid = token_gather_totals(&g, 1);
    *counts = (struct tokenize_counts){.documents = train.documents,
                                       .tokens = train.ids,
                                       .valid_documents = valid.documents,
                                       .valid_tokens = valid.ids,
                                       .bytes = j->plan.bytes};
    free(info.source);
    free(info.document);
    token_gather_fini(&g);
    return failed ? -1 : token_stage_publish(&j->stage, j->c, err);
}

int tokenize(struct comm *c, const struct log *log, const struct tokenizer *t,
             const struct tokenize_options *o, struct tokenize_counts *counts,
             struct err *err)
{
    struct job j = {.c = c, .t = t, .o = o};
    int failed = comm_agree(c, check_options(&j, err), err) || plan(&j, err);
    if (!failed && !(failed = token_stage_begin(&j.stage, c, o->output, o->valid > 0,
                                                o->force, err))) {
        failed = encode(&j, log, err) || write_sets(&j, counts, err);
        token_stage_end(&j.stage, c);
    }
    input_plan_fini(&j.plan);
    mem_free(j.spilled);
    free(j.ids.id);
    return failed ? -1 : 0;
}
