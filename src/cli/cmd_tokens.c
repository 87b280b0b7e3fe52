/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/options.h"

#include "io/tokenize.h"
#include "io/tokenizer_load.h"
#include "src/base/clock.h"
#include "src/cli/tokens_records.h"
#include "src/cli/tokens_show.h"

#include <stdio.h>

extern const struct verb verb_tokens;

static const struct option options[] = {
    {"-o", "SET.h5", "the set to write"},
    {"--tokenizer", "CKPT|MODEL",
     "where the tokenizer is: a checkpoint, or a SentencePiece tokenizer.model"},
    {"--format", "auto|text|jsonl|SHAPE",
     "auto (default): .jsonl and .json are JSON lines, all else is text; with "
     "--template: the shape of each file's first record. Or messages, sharegpt, "
     "alpaca, "
     "completion, openorca, pairs: records of this shape"},
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
     "read <s>, </s>, <unk> and added tokens in the text as these tokens, not as plain "
     "text"},
    {"--force", NULL, "replace SET.h5 if it exists"},
    {"--show", "N",
     "print document N of a token set, or record, pair or pack N of a record set, "
     "counted from 0, token by token; writes nothing"},
    {"--template", "NAME|FILE.yaml",
     "make a record set with this chat template (below)"},
    {"--map", "FIELD=KEY,...", "records: read a field from another key of the lines"},
    {"--bos", "template|yes|no",
     "records: a BOS in front of each; template (default): as the template has it"},
    {"--train-on", "replies|all",
     "records: learn the assistant's replies with their end marks (default), or all"},
    {"--max-length", "N",
     "records: the most tokens of one, of a pair with one answer (default: --pack's, "
     "else any)"},
    {"--too-long", "truncate|drop|error",
     "records that are longer: keep their start (default), leave them out, or stop"},
    {"--pack", "N",
     "put whole records together into packs of at most N tokens (best-fit decreasing), "
     "N being data.seq_len; not for pairs"},
    {"--skip-bad", NULL,
     "leave out lines that are no records, count them and list the first 20"},
    {NULL, NULL, NULL}};

static int read_make(const struct options *o, struct tokenize_options *t,
                     struct err *err)
{
    static const char *const documents[] = {"line", "blank", "file"};
    int format, document;
    int64_t seed;
    double valid;
    if (options_choice(o, "--format", tokens_formats, TOKENS_FORMATS, &format, err) ||
        options_choice(o, "--document", documents, 3, &document, err) ||
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

struct request {
    const char *tokenizer;
    bool show, records;
    int64_t number;                  /* of what is to be shown */
    struct tokenize_options make;    /* else: a token set */
    struct make_records_options set; /* or a record set */
};

static int read_request(const struct options *o, struct request *r, struct err *err)
{
    *r = (struct request){.tokenizer = options_text(o, "--tokenizer", NULL),
                          .show = options_text(o, "--show", NULL),
                          .records = tokens_wants_records(o)};
    if (!r->tokenizer)
        return err_set(err, ERR_USAGE,
                       "expected --tokenizer CKPT or --tokenizer tokenizer.model");
    if (r->show && (options_text(o, "-o", NULL) || o->args != 1))
        return err_set(err, ERR_USAGE,
                       "--show: expected one set and no -o: dusk tokens --show N "
                       "SET.h5 --tokenizer CKPT");
    if (r->show)
        return options_int(o, "--show", 0, 0, INT64_MAX, &r->number, err);
    if (!options_text(o, "-o", NULL))
        return err_set(err, ERR_USAGE, "expected -o SET.h5, the set to write");
    if (tokens_check_kind(o, r->records, err))
        return -1;
    return r->records ? tokens_read_records(o, &r->set, err)
                      : read_make(o, &r->make, err);
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
            failed = tokens_show(o.arg[0], r.number, world, t, &err);
        else if (r.records)
            failed = tokens_make_records(&r.set, world, log, t, &err);
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
    .summary = "text or JSON lines -> token set; records -> record set",
    .description =
        "Encodes the documents of text files or JSON lines with a SentencePiece "
        "tokenizer and writes them, one after the other, as one stream of tokens with "
        "the ends of the documents: what dusk train and dusk eval read. BOS is written "
        "before and EOS after each document. Special tokens written in the text are "
        "text.\n"
        "With --template (or --format with a shape of records) the files are JSON "
        "lines "
        "of records or of pairs for instruction and preference tuning, and the set "
        "keeps for each token whether it is learnt: replies and their end marks. "
        "Shapes: messages [{role, content}]; sharegpt: conversations [{from, value}]; "
        "alpaca: instruction, input, output; completion: prompt, completion; openorca: "
        "system_prompt, question, response; text; pairs: prompt, chosen, rejected. "
        "Templates: solar_eos (default), solar, chatml, chatml_added, zephyr, llama2, "
        "mistral, alpaca, plain_completion and plain_text, which take strings as they "
        "are, or a YAML file with the keys name, start, system_before, system_after, "
        "user_before, user_after, input_before, input_joint, reply_before, reply_open, "
        "reply_end, reply_after (texts, in which {bos} and {eos} are the tokenizer's), "
        "tokens, eos, system (turn, merged, refused), and bos, strip, "
        "skip_empty_system, raw, text, one_turn, end_once (true or false). Tokens that "
        "a template asks for, as chatml_added does, must be in the tokenizer: dusk "
        "upscale --add-tokens. Records and pairs of which nothing is learnt, and pairs "
        "of equal answers, are dropped and "
        "counted.\n"
        "Under mpirun or srun the ranks share the work; the set is the same byte for "
        "byte whatever their number. With --show it prints a document, record, pair or "
        "pack of a set; tokens that are learnt are coloured, or in brackets.",
    .examples = "dusk tokens books.txt web.jsonl -o train.h5 --tokenizer base.h5\n"
                "mpirun dusk tokens *.jsonl --field content --valid 0.01 -o train.h5 "
                "--tokenizer base.h5\n"
                "dusk tokens chats.jsonl -o sft.h5 --tokenizer base.h5 --template "
                "chatml --pack 4096\n"
                "dusk tokens gsm8k.jsonl -o sft.h5 --tokenizer base.h5 --template "
                "solar_eos --map prompt=question,completion=answer\n"
                "dusk tokens --show 3 train.h5 --tokenizer base.h5",
    .options = options,
    .mpi = true,
    .run = run,
};
