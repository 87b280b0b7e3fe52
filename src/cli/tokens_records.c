/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/tokens_records.h"

#include "src/base/clock.h"
#include "src/objective/template.h"

#include <stdio.h>
#include <string.h>

const char *const tokens_formats[TOKENS_FORMATS] = {"auto",       "text",     "jsonl",
                                                    "messages",   "sharegpt", "alpaca",
                                                    "completion", "openorca", "pairs"};
enum { FORMAT_RECORDS = 3 }; /* the first that names records */

/* Above what a record may have: positions are 32-bit. */
enum { LENGTH_MAX = 1 << 30 };

bool tokens_wants_records(const struct options *o)
{
    const char *format = options_text(o, "--format", "auto");
    for (int i = FORMAT_RECORDS; i < TOKENS_FORMATS; i++)
        if (strcmp(format, tokens_formats[i]) == 0)
            return true;
    return options_text(o, "--template", NULL);
}

int tokens_check_kind(const struct options *o, bool records, struct err *err)
{
    static const char *const of_records[] = {"--map",        "--bos",      "--train-on",
                                             "--max-length", "--too-long", "--pack",
                                             "--skip-bad",   NULL};
    static const char *const of_tokens[] = {"--field",         "--document", "--valid",
                                            "--seed",          "--no-bos",   "--no-eos",
                                            "--parse-special", NULL};
    const char *const *list = records ? of_tokens : of_records;
    for (int i = 0; list[i]; i++)
        if (options_flag(o, list[i]))
            return err_set(err, ERR_USAGE,
                           records ? "%s: is for token sets; a record set has --map, "
                                     "--bos and its template"
                                   : "%s: is for record sets: --template NAME",
                           list[i]);
    return 0;
}

static int shape_of(int format)
{
    static const int shapes[TOKENS_FORMATS] = {
        RECORD_SHAPE_AUTO, RECORD_TEXT,     RECORD_SHAPE_AUTO,
        RECORD_MESSAGES,   RECORD_SHAREGPT, RECORD_ALPACA,
        RECORD_COMPLETION, RECORD_OPENORCA, RECORD_PAIRS};
    return shapes[format];
}

int tokens_read_records(const struct options *o, struct make_records_options *m,
                        struct err *err)
{
    static const char *const bos[] = {"template", "yes", "no"};
    static const char *const train_on[] = {"replies", "all"};
    static const char *const too_long[] = {"truncate", "drop", "error"};
    int format, bos_rule, all, cut;
    int64_t max_length, pack_length;
    if (options_choice(o, "--format", tokens_formats, TOKENS_FORMATS, &format, err) ||
        options_choice(o, "--bos", bos, 3, &bos_rule, err) ||
        options_choice(o, "--train-on", train_on, 2, &all, err) ||
        options_choice(o, "--too-long", too_long, 3, &cut, err) ||
        options_int(o, "--max-length", 0, 2, LENGTH_MAX, &max_length, err) ||
        options_int(o, "--pack", 0, 2, LENGTH_MAX, &pack_length, err))
        return -1;
    *m = (struct make_records_options){
        .files = o->arg,
        .files_n = o->args,
        .output = options_text(o, "-o", NULL),
        .shape = shape_of(format),
        .map = options_text(o, "--map", NULL),
        .chat = options_text(o, "--template", template_builtin(0)->name),
        .bos = (enum record_bos)bos_rule,
        .all = all,
        .max_length = max_length,
        .pack_length = pack_length,
        .too_long = (enum record_too_long)cut,
        .skip_bad = options_flag(o, "--skip-bad"),
        .force = options_flag(o, "--force"),
    };
    return 0;
}

static void print_count(int64_t n, const char *one, const char *many)
{
    if (n)
        printf("%lld %s\n", (long long)n, n == 1 ? one : many);
}

/* What became of the lines. */
static void print_counts(const struct make_records_options *m,
                         const struct make_records_result *r)
{
    const struct record_counts *n = &r->counts;
    bool pairs = r->kind == RECORD_SET_PAIRS;
    printf("%s: %lld %s, %lld tokens, %lld counted (%.1f %%), the longest %lld\n",
           m->output, (long long)n->records, record_set_kind_name(r->kind),
           (long long)n->tokens, (long long)n->counted,
           100 * (double)n->counted / (double)n->tokens, (long long)n->longest);
    if (r->packs)
        printf("%lld packs of %lld: %.4f of their tokens are in use\n",
               (long long)r->packs, (long long)m->pack_length,
               (double)n->tokens / ((double)r->packs * (double)m->pack_length));
    if (n->truncated)
        printf("%lld cut to %lld tokens\n", (long long)n->truncated,
               (long long)(m->max_length ? m->max_length : m->pack_length));
    print_count(n->dropped_too_long, "dropped: too long", "dropped: too long");
    print_count(n->dropped_uncounted, "dropped: nothing of it is learnt",
                "dropped: nothing of them is learnt");
    if (pairs)
        print_count(n->dropped_equal, "dropped: both answers are the same",
                    "dropped: both answers are the same");
    print_count(r->skipped, "bad line skipped", "bad lines skipped");
    for (int i = 0; i < r->bad; i++)
        printf("  %s\n", r->bad_line[i]);
}

int tokens_make_records(const struct make_records_options *m, struct comm *world,
                        const struct log *log, const struct tokenizer *t,
                        struct err *err)
{
    struct make_records_result r;
    double start = clock_s();
    if (make_records(world, log, t, m, &r, err))
        return -1;
    double seconds = clock_s() - start;
    if (!comm_root(world))
        return 0;
    print_counts(m, &r);
    printf("%.2f MB in %.2f s on %d rank%s: %.0f tokens/s, %.2f MB/s\n",
           (double)r.bytes / 1e6, seconds, comm_size(world),
           comm_size(world) == 1 ? "" : "s", (double)r.counts.tokens / seconds,
           (double)r.bytes / 1e6 / seconds);
    return 0;
}
