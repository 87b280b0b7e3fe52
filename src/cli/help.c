/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/help.h"

#include <string.h>

enum { WIDTH = 79, OPTION_COLUMN = 22 };

static const char *const about =
    "dusk trains Llama and Mistral language models on CPU clusters with plain MPI: it "
    "takes a Hugging Face checkpoint, up-scales its depth (SOLAR), continues "
    "pretraining over pipeline x data ranks, and hands a Hugging Face checkpoint "
    "back.\n"
    "Every verb works alone, in one process. Verbs that gain from ranks use them when "
    "started by srun or mpirun.";

static const struct option program_options[] = {
    {"--help", NULL, "show this text; after a verb, the options of the verb"},
    {"--version", NULL, "show the version"},
    {"--man", NULL, "write the man page, dusk.1, to standard output"},
    {NULL, NULL, NULL}};

static const struct option verb_help_option[] = {{"-h, --help", NULL, "show this text"},
                                                 {NULL, NULL, NULL}};

static const struct {
    enum err_code code;
    const char *meaning;
} exit_codes[] = {
    {ERR_NONE, "Done."},
    {ERR_OTHER, "Anything not below; diff: the checkpoints differ."},
    {ERR_USAGE, "The command line or the run file is wrong."},
    {ERR_INPUT, "An input file or a checkpoint is bad."},
    {ERR_IO, "The disk or the file system failed."},
    {ERR_NUMERIC, "A number is NaN or infinite."},
    {ERR_WATCHDOG, "A rank was stuck."},
    {ERR_STOPPED, "Stopped early, a checkpoint is committed: requeue the job."},
    {ERR_NO_REQUEUE, "Do not requeue the job."},
};

/* Words of one paragraph (up to '\n' or the end) filled into lines from `indent` on;
 * the first line is already at `column`. Returns where the next paragraph starts. */
static const char *write_paragraph(FILE *to, const char *text, int indent, int column)
{
    int at = column;
    bool first = true;
    while (*text && *text != '\n') {
        int n = (int)strcspn(text, " \n");
        if (!first && at + 1 + n > WIDTH) {
            fprintf(to, "\n%*s", indent, "");
            at = indent;
        } else if (!first) {
            putc(' ', to);
            at++;
        }
        fprintf(to, "%.*s", n, text);
        at += n;
        first = false;
        text += n;
        text += strspn(text, " ");
    }
    putc('\n', to);
    return *text ? text + 1 : text;
}

/* A line that starts with a space is drawn: it is printed as it is. */
static bool is_drawn(const char *text)
{
    return *text == ' ';
}

static const char *write_drawn(FILE *to, const char *text)
{
    int n = (int)strcspn(text, "\n");
    fprintf(to, "%.*s\n", n, text);
    return text + n + (text[n] == '\n');
}

static void write_paragraphs(FILE *to, const char *text)
{
    while (*text) {
        putc('\n', to);
        if (!is_drawn(text))
            text = write_paragraph(to, text, 0, 0);
        else
            while (is_drawn(text))
                text = write_drawn(to, text);
    }
}

static void write_options(FILE *to, const struct option *p)
{
    for (; p && p->name; p++) {
        int n = fprintf(to, "  %s%s%s", p->name, p->value ? " " : "",
                        p->value ? p->value : "");
        if (n > OPTION_COLUMN - 2) {
            putc('\n', to);
            n = 0;
        }
        fprintf(to, "%*s", OPTION_COLUMN - n, "");
        write_paragraph(to, p->help, OPTION_COLUMN, OPTION_COLUMN);
    }
}

static void write_indented(FILE *to, const char *lines)
{
    while (*lines) {
        int n = (int)strcspn(lines, "\n");
        fprintf(to, "  %.*s\n", n, lines);
        lines += n + (lines[n] == '\n');
    }
}

void help_verb(FILE *to, const struct verb *v)
{
    fprintf(to, "Usage: dusk %s %s\n\n", v->name, v->arguments);
    write_paragraph(to, v->summary, 0, 0);
    if (v->description)
        write_paragraphs(to, v->description);
    fputs("\nOptions:\n", to);
    write_options(to, v->options);
    write_options(to, verb_help_option);
    if (v->examples) {
        fputs("\nExamples:\n", to);
        write_indented(to, v->examples);
    }
}

void help_program(FILE *to)
{
    fputs("Usage: dusk VERB [ARGUMENTS] [OPTIONS]\n"
          "       dusk VERB --help\n",
          to);
    write_paragraphs(to, about);
    fputs("\nVerbs:\n", to);
    for (int i = 0; verbs[i]; i++) {
        int n = fprintf(to, "  %s", verbs[i]->name);
        fprintf(to, "%*s", 12 - n, "");
        write_paragraph(to, verbs[i]->summary, 12, 12);
    }
    fputs("\nOptions:\n", to);
    write_options(to, program_options);
    fputs("\nExit codes:\n", to);
    for (size_t i = 0; i < sizeof exit_codes / sizeof *exit_codes; i++)
        fprintf(to, "  %2d  %s\n", exit_codes[i].code, exit_codes[i].meaning);
}

/* Text in man(7): hyphens that can be copied, no escape, no request by accident. */
static void man_text(FILE *to, const char *text, size_t n)
{
    bool line_start = true;
    for (size_t i = 0; i < n; i++) {
        if (line_start && (text[i] == '.' || text[i] == '\''))
            fputs("\\&", to);
        if (text[i] == '\\')
            fputs("\\e", to);
        else if (text[i] == '-')
            fputs("\\-", to);
        else
            putc(text[i], to);
        line_start = text[i] == '\n';
    }
}

static const char *man_line(FILE *to, const char *text)
{
    size_t n = strcspn(text, "\n");
    man_text(to, text, n);
    putc('\n', to);
    return text + n + (text[n] == '\n');
}

static void man_paragraphs(FILE *to, const char *text)
{
    while (*text) {
        if (is_drawn(text)) {
            fputs(".nf\n", to);
            while (is_drawn(text))
                text = man_line(to, text);
            fputs(".fi\n", to);
        } else
            text = man_line(to, text);
        if (*text)
            fputs(".PP\n", to);
    }
}

static void man_options(FILE *to, const struct option *p)
{
    for (; p && p->name; p++) {
        fputs(".TP\n\\fB", to);
        man_text(to, p->name, strlen(p->name));
        fputs("\\fR", to);
        if (p->value) {
            fputs(" \\fI", to);
            man_text(to, p->value, strlen(p->value));
            fputs("\\fR", to);
        }
        putc('\n', to);
        man_paragraphs(to, p->help);
    }
}

static void man_verb(FILE *to, const struct verb *v)
{
    fprintf(to, ".SS dusk %s ", v->name);
    man_text(to, v->arguments, strlen(v->arguments));
    putc('\n', to);
    man_paragraphs(to, v->summary);
    if (v->description) {
        fputs(".PP\n", to);
        man_paragraphs(to, v->description);
    }
    man_options(to, v->options);
    if (v->examples) {
        fputs(".PP\nExamples:\n.PP\n.nf\n", to);
        man_text(to, v->examples, strlen(v->examples));
        fputs("\n.fi\n", to);
    }
}

void help_man(FILE *to)
{
    fprintf(to, ".TH DUSK 1 \"\" \"dusk %s\" \"User Commands\"\n", PACKAGE_VERSION);
    fputs(".SH NAME\ndusk \\- depth up\\-scaling and training of language models with "
          "MPI\n"
          ".SH SYNOPSIS\n.B dusk\n\\fIVERB\\fR [\\fIARGUMENTS\\fR] [\\fIOPTIONS\\fR]\n"
          ".SH DESCRIPTION\n",
          to);
    man_paragraphs(to, about);
    fputs(".SH OPTIONS\n", to);
    man_options(to, program_options);
    fputs(".SH VERBS\n", to);
    for (int i = 0; verbs[i]; i++)
        man_verb(to, verbs[i]);
    fputs(".SH EXIT STATUS\n", to);
    for (size_t i = 0; i < sizeof exit_codes / sizeof *exit_codes; i++) {
        fprintf(to, ".TP\n.B %d\n", exit_codes[i].code);
        man_paragraphs(to, exit_codes[i].meaning);
    }
}
