/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/tokens_show.h"

#include "io/record_set.h"
#include "io/token_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A piece as text: what a terminal would not show is written \xNN. */
static void print_piece(const char *piece)
{
    for (; piece && *piece; piece++) {
        unsigned char c = (unsigned char)*piece;
        if (c < 0x20 || c == 0x7f || c == '\\')
            printf("\\x%02x", c);
        else
            putchar(c);
    }
}

static void print_tokens(const struct token_set_info *info, const struct tokenizer *t,
                         int64_t begin, const int32_t *ids, int64_t n)
{
    printf("%12s %8s  %-10s piece\n", "position", "id", "");
    for (int64_t i = 0; i < n; i++) {
        const char *edge = "";
        if (i == 0)
            edge = info->bos ? "begin, BOS" : "begin";
        else if (i == n - 1)
            edge = info->eos ? "end, EOS" : "end";
        printf("%12lld %8d  %-10s ", (long long)(begin + i), (int)ids[i], edge);
        print_piece(tokenizer_piece(t, ids[i]));
        putchar('\n');
    }
}

/* Is there an item `number` among n? */
static int check_number(const char *what, int64_t n, int64_t number, struct err *err)
{
    return number < n ? 0
                      : err_set(err, ERR_USAGE,
                                "--show: expected a %s from 0 to %lld, found %lld",
                                what, (long long)n - 1, (long long)number);
}

static int print_document(struct token_set *set, const char *path,
                          const struct tokenizer *t, int64_t number, struct err *err)
{
    const struct token_set_info *info = token_set_info(set);
    int64_t ends[2] = {0, 0};
    if (check_number("document", info->documents, number, err) ||
        (number ? token_set_document_ends(set, number - 1, 2, ends, err)
                : token_set_document_ends(set, 0, 1, &ends[1], err)))
        return -1;
    int64_t n = ends[1] - ends[0];
    int32_t *ids = malloc((size_t)n * sizeof *ids + 1);
    if (!ids)
        return err_set(err, ERR_OTHER, "memory: none left for %lld tokens",
                       (long long)n);
    int failed = token_set_read(set, ends[0], n, ids, err);
    if (!failed) {
        printf("%s: document %lld of %lld: %lld of %lld tokens\n", path,
               (long long)number, (long long)info->documents, (long long)n,
               (long long)info->tokens);
        print_tokens(info, t, ends[0], ids, n);
    }
    free(ids);
    return failed;
}

/* How counted tokens are marked. */
struct marks {
    const char *before, *after;
};

static struct marks marks_of_terminal(void)
{
    const char *none = getenv("NO_COLOR");
    bool colour = isatty(STDOUT_FILENO) && !(none && *none);
    return colour ? (struct marks){"\033[32m", "\033[0m"} : (struct marks){"[", "]"};
}

/* Positions are those of the model: they start anew in each record, and the rejected
 * part of a pair goes on from the prompt. */
static void print_part(const struct record_tokens *r, const struct tokenizer *t,
                       int64_t part, int64_t position)
{
    struct marks marks = marks_of_terminal();
    for (int64_t i = part ? r->end[part - 1] : 0; i < r->end[part]; i++, position++) {
        printf("%12lld %8d  %s", (long long)position, (int)r->id[i],
               r->counted[i] ? marks.before : "");
        print_piece(tokenizer_piece(t, r->id[i]));
        printf("%s\n", r->counted[i] ? marks.after : "");
    }
}

static void print_title(const struct record_tokens *r, const char *what, int64_t number,
                        int64_t part)
{
    int64_t begin = part ? r->end[part - 1] : 0, counted = 0;
    for (int64_t i = begin; i < r->end[part]; i++)
        counted += r->counted[i];
    printf("---- %s", what);
    if (number >= 0)
        printf(" %lld", (long long)number);
    printf(": %lld tokens, %lld counted\n", (long long)(r->end[part] - begin),
           (long long)counted);
}

static void print_pair(const struct record_tokens *r, const struct tokenizer *t)
{
    static const char *const names[] = {"prompt", "chosen", "rejected"};
    for (int p = 0; p < 3; p++) {
        print_title(r, names[p], -1, p);
        print_part(r, t, p, p ? r->end[0] : 0);
    }
}

static int print_record(struct record_set *s, const struct tokenizer *t, int64_t number,
                        struct err *err)
{
    const struct record_set_info *info = record_set_info(s);
    const char *what = info->packs                      ? "pack"
                       : info->kind == RECORD_SET_PAIRS ? "pair"
                                                        : "record";
    int64_t first = number, n = info->packs ? info->packs : info->records;
    struct record_tokens r = {0};
    if (check_number(what, n, number, err))
        return -1;
    int failed = info->packs ? record_set_read_pack(s, number, &first, &r, err)
                             : record_set_read(s, number, 1, &r, err);
    if (!failed) {
        printf("%s: %s %lld of %lld: %lld of %lld tokens, template %s\n",
               record_set_path(s), what, (long long)number, (long long)n,
               (long long)r.n, (long long)info->tokens, info->template_name);
        printf("%12s %8s  piece\n", "position", "id");
        if (info->kind == RECORD_SET_PAIRS)
            print_pair(&r, t);
        for (int64_t i = 0; info->kind == RECORD_SET_RECORDS && i < r.parts; i++) {
            print_title(&r, "record", first + i, i);
            print_part(&r, t, i, 0);
        }
    }
    record_tokens_fini(&r);
    return failed;
}

static int check_tokenizer(const char *path, const char *made_with,
                           const struct tokenizer *t, struct err *err)
{
    char hash[33];
    tokenizer_hash(t, hash, sizeof hash);
    return strcmp(hash, made_with) == 0
               ? 0
               : err_set(err, ERR_INPUT,
                         "%s: made with another tokenizer: expected %s, found %s", path,
                         made_with, hash);
}

static int show_records(const char *path, int64_t number, struct comm *world,
                        const struct tokenizer *t, struct err *err)
{
    struct record_set *s = record_set_open(world, path, err);
    if (!s)
        return -1;
    int failed = check_tokenizer(path, record_set_info(s)->tokenizer, t, err);
    if (!failed && comm_root(world))
        failed = print_record(s, t, number, err);
    record_set_close(s);
    return comm_agree(world, failed, err);
}

int tokens_show(const char *path, int64_t number, struct comm *world,
                const struct tokenizer *t, struct err *err)
{
    if (record_set_is(world, path))
        return show_records(path, number, world, t, err);
    struct token_set *set = token_set_open(world, path, err);
    if (!set)
        return -1;
    int failed = check_tokenizer(path, token_set_info(set)->tokenizer, t, err);
    if (!failed && comm_root(world))
        failed = print_document(set, path, t, number, err);
    token_set_close(set);
    return comm_agree(world, failed, err);
}
