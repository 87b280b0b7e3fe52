/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/options.h"

#include "io/token_set.h"
#include "io/tokenize.h"
#include "io/tokenizer_load.h"
#include "src/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct verb verb_tokens;

static const struct option options[] = {
    {"-o", "SET.h5", "the token set to write"},
    {"--tokenizer", "CKPT|MODEL",
     "where the tokenizer is: a checkpoint, or a SentencePiece tokenizer.model"},
    {"--format", "auto|text|jsonl",
     "auto (default): .jsonl and .json are JSON lines, all else is text"},
    {"--field", "NAME", "JSON lines: the field that holds the text (default: text)"},
    {"--document", "line|blank|file",
     "text: what a document is: a line that is not empty (default), lines up to a "
     "blank "
     "one, or a whole file; at most 64 MiB"},
    {"--valid", "F",
     "put this share of the documents, from 0 to 1, into SET.valid.h5 beside the set"},
    {"--seed", "N", "chooses the documents of --valid (default: 0)"},
    {"--no-bos", NULL, "write no BOS before each document"},
    {"--no-eos", NULL, "write no EOS after each document"},
    {"--parse-special", NULL,
     "read <s>, </s> and <unk> in the text as these tokens, not as plain text"},
    {"--force", NULL, "replace SET.h5 if it exists"},
    {"--show", "N",
     "print document N of a token set, counted from 0, token by token; writes nothing"},
    {NULL, NULL, NULL}};

/* The place of a word in a list, or -1 with err set. */
static int choose(const struct options *o, const char *name, const char *const *words,
                  int n, int *choice, struct err *err)
{
    const char *given = options_text(o, name, words[0]);
    for (*choice = 0; *choice < n; ++*choice)
        if (strcmp(given, words[*choice]) == 0)
            return 0;
    return err_set(err, ERR_USAGE, "%s: expected %s, %s or %s, found \"%s\"", name,
                   words[0], words[1], words[2], given);
}

static int read_make(const struct options *o, struct tokenize_options *t,
                     struct err *err)
{
    static const char *const formats[] = {"auto", "text", "jsonl"};
    static const char *const documents[] = {"line", "blank", "file"};
    int format, document;
    int64_t seed;
    double valid;
    if (!options_text(o, "-o", NULL))
        return err_set(err, ERR_USAGE, "expected -o SET.h5, the token set to write");
    if (choose(o, "--format", formats, 3, &format, err) ||
        choose(o, "--document", documents, 3, &document, err) ||
        options_double(o, "--valid", 0, 0, 1, &valid, err) ||
        options_int(o, "--seed", 0, 0, INT64_MAX, &seed, err))
        return -1;
    *t = (struct tokenize_options){
        .files = o->arg,
        .files_n = o->args,
        .output = options_text(o, "-o", NULL),
        .format = (enum tokenize_format)format,
        .document = (enum text_rule)document,
        .field = options_text(o, "--field", "text"),
        .valid = valid,
        .seed = (uint64_t)seed,
        .bos = !options_flag(o, "--no-bos"),
        .eos = !options_flag(o, "--no-eos"),
        .parse_special = options_flag(o, "--parse-special"),
        .force = options_flag(o, "--force"),
    };
    return 0;
}

static int make(const struct tokenize_options *o, struct comm *world,
                const struct log *log, const struct tokenizer *t, struct err *err)
{
    struct tokenize_counts n;
    double start = clock_s();
    if (tokenize(world, log, t, o, &n, err))
        return -1;
    double seconds = clock_s() - start;
    if (!comm_root(world))
        return 0;
    printf("%s: %lld documents, %lld tokens\n", o->output, (long long)n.documents,
           (long long)n.tokens);
    if (o->valid > 0)
        printf("validation: %lld documents, %lld tokens\n",
               (long long)n.valid_documents, (long long)n.valid_tokens);
    printf("%.2f MB in %.2f s on %d rank%s: %.0f tokens/s, %.2f MB/s\n",
           (double)n.bytes / 1e6, seconds, comm_size(world),
           comm_size(world) == 1 ? "" : "s",
           (double)(n.tokens + n.valid_tokens) / seconds,
           (double)n.bytes / 1e6 / seconds);
    return 0;
}

/* A piece as text: what a terminal would not show is written \xNN. */
static void print_piece(const char *piece)
{
    for (; *piece; piece++) {
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

static int print_document(struct token_set *set, const char *path,
                          const struct tokenizer *t, int64_t number, struct err *err)
{
    const struct token_set_info *info = token_set_info(set);
    int64_t ends[2] = {0, 0};
    if (number >= info->documents)
        return err_set(err, ERR_USAGE,
                       "--show: expected a document from 0 to %lld, found %lld",
                       (long long)info->documents - 1, (long long)number);
    if (number ? token_set_document_ends(set, number - 1, 2, ends, err)
               : token_set_document_ends(set, 0, 1, &ends[1], err))
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

static int show(const char *path, int64_t number, struct comm *world,
                const struct tokenizer *t, struct err *err)
{
    char hash[33];
    struct token_set *set = token_set_open(world, path, err);
    if (!set)
        return -1;
    int failed = 0;
    tokenizer_hash(t, hash, sizeof hash);
    if (strcmp(hash, token_set_info(set)->tokenizer) != 0)
        failed = err_set(err, ERR_INPUT,
                         "%s: made with another tokenizer: expected %s, found %s", path,
                         token_set_info(set)->tokenizer, hash);
    else if (comm_root(world))
        failed = print_document(set, path, t, number, err);
    token_set_close(set);
    return comm_agree(world, failed, err);
}

struct request {
    const char *tokenizer;
    bool show;
    int64_t number;               /* of the document to show */
    struct tokenize_options make; /* if nothing is to be shown */
};

static int read_request(const struct options *o, struct request *r, struct err *err)
{
    *r = (struct request){.tokenizer = options_text(o, "--tokenizer", NULL),
                          .show = options_text(o, "--show", NULL)};
    if (!r->tokenizer)
        return err_set(err, ERR_USAGE,
                       "expected --tokenizer CKPT or --tokenizer tokenizer.model");
    if (!r->show)
        return read_make(o, &r->make, err);
    if (options_text(o, "-o", NULL) || o->args != 1)
        return err_set(err, ERR_USAGE,
                       "--show: expected one token set and no -o: dusk tokens --show N "
                       "SET.h5 --tokenizer CKPT");
    return options_int(o, "--show", 0, 0, INT64_MAX, &r->number, err);
}

static int run(int argc, char **argv, struct comm *world, const struct log *log)
{
    struct options o;
    struct request r;
    struct err err = {0};
    if (options_read(&o, &verb_tokens, argc, argv, 1, -1, &err))
        return verb_fail(&verb_tokens, world, &err);
    int failed = read_request(&o, &r, &err);
    if (!failed) {
        struct tokenizer *t = tokenizer_load(world, r.tokenizer, &err);
        if (!t)
            failed = -1;
        else if (r.show)
            failed = show(o.arg[0], r.number, world, t, &err);
        else
            failed = make(&r.make, world, log, t, &err);
        tokenizer_destroy(t);
    }
    options_fini(&o);
    return failed ? verb_fail(&verb_tokens, world, &err) : 0;
}

const struct verb verb_tokens = {
    .name = "tokens",
    .arguments = "FILE... -o SET.h5 --tokenizer CKPT",
    .summary = "text or JSON lines -> token set",
    .description =
        "Encodes the documents of text files or JSON lines with a SentencePiece "
        "tokenizer and writes them, one after the other, as one stream of tokens with "
        "the ends of the documents: what dusk train and dusk eval read. BOS is written "
        "before and EOS after each document. Special tokens written in the text are "
        "text.\n"
        "Under mpirun or srun the ranks share the work; the set is the same byte for "
        "byte whatever their number. With --show it prints a document of a set.",
    .examples = "dusk tokens books.txt web.jsonl -o train.h5 --tokenizer base.h5\n"
                "mpirun dusk tokens *.jsonl --field content --valid 0.01 -o train.h5 "
                "--tokenizer base.h5\n"
                "dusk tokens --show 3 train.h5 --tokenizer base.h5",
    .options = options,
    .mpi = true,
    .run = run,
};
