/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/schedule_file.h"

#include "mpi/schedule_parts.h"
#include "mpi/schedule_times.h"
#include "src/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As a cell's letter says. */
enum letter { LETTER_F, LETTER_B, LETTER_I, LETTER_W, LETTERS };
static const char letters[] = "FBIW";

struct cell {
    int row, at; /* from 1 */
    int stage, micro_batch;
    enum letter letter;
};

struct schedule_cells {
    const struct schedule_spec *spec; /* while it is read */
    int stages, cells;
    int *row_of;       /* [stages] from 1; 0: in none */
    int *first;        /* [stages] the cell that is why */
    int *place;        /* [stages][micro-batches][LETTERS] cells from 1; 0: none */
    struct cell *cell; /* [cells] in the order of the file */
    bool split;
};

enum { SHOWN = 24 };

static int refuse(const struct schedule_cells *c, int row, int at, struct err *err,
                  const char *format, ...) __attribute__((format(printf, 5, 6)));

/* at 0: no cell of the row. */
static int refuse(const struct schedule_cells *c, int row, int at, struct err *err,
                  const char *format, ...)
{
    char why[256], place[48] = "";
    va_list ap;
    va_start(ap, format);
    vsnprintf(why, sizeof why, format, ap);
    va_end(ap);
    if (at)
        snprintf(place, sizeof place, ", cell %d", at);
    return err_set(err, ERR_USAGE, "%s: row %d%s: %s", c->spec->file, row, place, why);
}

static int *place_of(const struct schedule_cells *c, int stage, int i, enum letter l)
{
    int64_t cell = (int64_t)stage * c->spec->micro_batches + i;
    return &c->place[cell * LETTERS + (int)l];
}

/* The slot of a computation, or 0: F; the input gradient, the weight gradient, in
 * whatever form. */
static int slot_of(const struct schedule_cells *c, int stage, int i, enum letter l)
{
    int place = *place_of(c, stage, i, l);
    if (!place && l != LETTER_F)
        place = *place_of(c, stage, i, LETTER_B);
    return place ? c->cell[place - 1].at : 0;
}

/* Digits from *p on; -1: none, or far too many. */
static int number(const char **p, const char *end)
{
    int n = 0, digits = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++, digits++)
        n = n < 100000000 ? 10 * n + (**p - '0') : n;
    return digits && digits < 9 ? n : -1;
}

/* [p, end) without blanks around it. */
static int parse(struct schedule_cells *c, int row, int at, const char *p,
                 const char *end, struct err *err)
{
    const struct schedule_spec *spec = c->spec;
    int n = end - p < SHOWN ? (int)(end - p) : SHOWN;
    const char *text = p, *letter;
    struct cell *cell = &c->cell[c->cells];
    *cell = (struct cell){.row = row, .at = at, .stage = number(&p, end)};
    letter = p < end && *p ? strchr(letters, *p) : NULL;
    if (letter) {
        cell->letter = (enum letter)(letter - letters);
        p++;
    }
    cell->micro_batch = number(&p, end);
    if (!letter || p < end || cell->stage < 0 || cell->micro_batch < 0)
        return refuse(c, row, at, err,
                      "expected nothing or a stage, one of F, B, I, W and a "
                      "micro-batch, such as 0F3, found \"%.*s\"",
                      n, text);
    if (cell->stage >= c->stages)
        return refuse(c, row, at, err,
                      "expected a stage below %d (parallel.pipeline %d x "
                      "parallel.chunks %d), found %.*s",
                      c->stages, spec->ranks, spec->chunks, n, text);
    if (cell->micro_batch >= spec->micro_batches)
        return refuse(c, row, at, err,
                      "expected a micro-batch below %d (train.global_batch / "
                      "(train.micro_batch x data)), found %.*s",
                      spec->micro_batches, n, text);
    c->cells++;
    return 0;
}

/* Notes where the latest cell is. */
static int note(struct schedule_cells *c, struct err *err)
{
    const struct cell *cell = &c->cell[c->cells - 1];
    int s = cell->stage, i = cell->micro_batch, row = cell->row, at = cell->at;
    char letter = letters[cell->letter];
    int *place = place_of(c, s, i, cell->letter);
    if (c->row_of[s] && c->row_of[s] != row)
        return refuse(c, row, at, err,
                      "expected stage %d in row %d alone, which has it in cell %d, "
                      "found %d%c%d",
                      s, c->row_of[s], c->first[s], s, letter, i);
    if (*place)
        return refuse(c, row, at, err, "expected %d%c%d once, found it in cell %d too",
                      s, letter, i, c->cell[*place - 1].at);
    *place = c->cells;
    if (!c->row_of[s])
        c->first[s] = at;
    c->row_of[s] = row;
    c->split = c->split || cell->letter >= LETTER_I;
    if (*place_of(c, s, i, LETTER_B) &&
        (*place_of(c, s, i, LETTER_I) || *place_of(c, s, i, LETTER_W)))
        return refuse(c, row, at, err,
                      "expected %dB%d alone or its halves %dI%d and %dW%d, found both",
                      s, i, s, i, s, i);
    return 0;
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static int read_row(struct schedule_cells *c, int row, const char *p, const char *end,
                    struct err *err)
{
    for (int at = 1; p <= end; at++) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const char *from = p, *to = comma ? comma : end;
        p = to + 1;
        while (from < to && blank(*from))
            from++;
        while (from < to && blank(to[-1]))
            to--;
        if (from < to && (parse(c, row, at, from, to, err) || note(c, err)))
            return -1;
    }
    return 0;
}

static int read_rows(struct schedule_cells *c, struct err *err)
{
    int rows = 0, ranks = c->spec->ranks;
    for (const char *p = c->spec->text; *p;) {
        const char *end = p + strcspn(p, "\n");
        bool empty = p + strspn(p, " \t\r") == end;
        if (!(empty && p + strspn(p, " \t\r\n") == p + strlen(p))) { /* not the end */
            rows++;
            if (rows <= ranks && read_row(c, rows, p, end, err))
                return -1;
        }
        p = *end ? end + 1 : end;
    }
    if (rows != ranks)
        return err_set(err, ERR_USAGE,
                       "%s: expected %d row%s, one for each rank of parallel.pipeline, "
                       "found %d",
                       c->spec->file, ranks, ranks > 1 ? "s" : "", rows);
    return 0;
}

/* Every row holds its number of stages. */
static int check_placement(const struct schedule_cells *c, struct err *err)
{
    for (int s = 0; s < c->stages; s++)
        if (!c->row_of[s])
            return err_set(err, ERR_USAGE,
                           "%s: expected stage %d in a row, found stages %d x %d "
                           "(parallel.pipeline x parallel.chunks) without it",
                           c->spec->file, s, c->spec->ranks, c->spec->chunks);
    for (int row = 1; row <= c->spec->ranks; row++) {
        int held = 0;
        for (int s = 0; s < c->stages; s++)
            held += c->row_of[s] == row;
        if (held != c->spec->chunks)
            return refuse(c, row, 0, err,
                          "expected %d stage%s (parallel.chunks), found %d",
                          c->spec->chunks, c->spec->chunks > 1 ? "s" : "", held);
    }
    return 0;
}

/* What computation `l` of (stage, i) needs is in an earlier slot than its own, `at`. */
static int check_after(const struct schedule_cells *c, int stage, int i, enum letter l,
                       int needed_stage, int needed, enum letter needed_letter,
                       struct err *err)
{
    int from = slot_of(c, needed_stage, needed, needed_letter);
    int at = slot_of(c, stage, i, l);
    bool whole = l == LETTER_W && needed_letter == LETTER_I && from == at;
    if (from < at || whole)
        return 0;
    return refuse(c, c->row_of[stage], at, err,
                  "expected %d%c%d after %d%c%d, found that in cell %d of row %d",
                  stage, *place_of(c, stage, i, l) ? letters[l] : 'B', i, needed_stage,
                  *place_of(c, needed_stage, needed, needed_letter)
                      ? letters[needed_letter]
                      : 'B',
                  needed, from, c->row_of[needed_stage]);
}

static int check_there(const struct schedule_cells *c, int stage, int i,
                       struct err *err)
{
    static const enum letter wanted[] = {LETTER_F, LETTER_I, LETTER_W};
    for (int k = 0; k < 3; k++) {
        if (slot_of(c, stage, i, wanted[k]))
            continue;
        bool half =
            *place_of(c, stage, i, LETTER_I) || *place_of(c, stage, i, LETTER_W);
        if (wanted[k] == LETTER_F || half)
            return refuse(c, c->row_of[stage], 0, err, "expected %d%c%d, found no cell",
                          stage, letters[wanted[k]], i);
        return refuse(c, c->row_of[stage], 0, err,
                      "expected %dB%d, or %dI%d and %dW%d, found no cell", stage, i,
                      stage, i, stage, i);
    }
    return 0;
}

static int check_order(const struct schedule_cells *c, int stage, int i,
                       struct err *err)
{
    static const enum letter kinds[] = {LETTER_F, LETTER_I, LETTER_W};
    for (int k = 0; i > 0 && k < 3; k++)
        if (check_after(c, stage, i, kinds[k], stage, i - 1, kinds[k], err))
            return -1;
    if (stage > 0 && check_after(c, stage, i, LETTER_F, stage - 1, i, LETTER_F, err))
        return -1;
    if (check_after(c, stage, i, LETTER_I, stage, i, LETTER_F, err))
        return -1;
    if (stage < c->stages - 1 &&
        check_after(c, stage, i, LETTER_I, stage + 1, i, LETTER_I, err))
        return -1;
    return check_after(c, stage, i, LETTER_W, stage, i, LETTER_I, err);
}

static int check_cells(const struct schedule_cells *c, struct err *err)
{
    for (int stage = 0; stage < c->stages; stage++)
        for (int i = 0; i < c->spec->micro_batches; i++)
            if (check_there(c, stage, i, err))
                return -1;
    for (int stage = 0; stage < c->stages; stage++)
        for (int i = 0; i < c->spec->micro_batches; i++)
            if (check_order(c, stage, i, err))
                return -1;
    return 0;
}

static int most_cells(const char *text)
{
    int n = 1;
    for (; *text; text++)
        n += *text == ',' || *text == '\n';
    return n;
}

struct schedule_cells *schedule_cells_read(const struct schedule_spec *spec,
                                           struct err *err)
{
    struct schedule_cells *c = mem_array(1, sizeof *c, err);
    if (!c)
        return NULL;
    c->spec = spec;
    c->stages = spec->ranks * spec->chunks;
    int64_t places = (int64_t)c->stages * spec->micro_batches * LETTERS;
    c->row_of = mem_array(c->stages, sizeof *c->row_of, err);
    c->first = mem_array(c->stages, sizeof *c->first, err);
    c->place = mem_array(places, sizeof *c->place, err);
    c->cell = mem_array(most_cells(spec->text), sizeof *c->cell, err);
    if (!c->row_of || !c->first || !c->place || !c->cell || read_rows(c, err) ||
        check_placement(c, err) || check_cells(c, err)) {
        schedule_cells_destroy(c);
        return NULL;
    }
    return c;
}

void schedule_cells_destroy(struct schedule_cells *c)
{
    if (!c)
        return;
    mem_free(c->row_of);
    mem_free(c->first);
    mem_free(c->place);
    mem_free(c->cell);
    mem_free(c);
}

bool schedule_cells_split(const struct schedule_cells *c)
{
    return c->split;
}

int schedule_cells_rank(const struct schedule_cells *c, int stage)
{
    return c->row_of[stage] - 1;
}

void schedule_cells_fill(const struct schedule_cells *c, struct schedule *s)
{
    static const enum pipe_op_kind kinds[] = {PIPE_FORWARD, PIPE_BACKWARD,
                                              PIPE_BACKWARD, PIPE_WEIGHT};
    for (int k = 0; k < c->cells; k++) {
        const struct cell *cell = &c->cell[k];
        int rank = cell->row - 1, at = s->ops[rank];
        schedule_push(s, cell->stage, kinds[cell->letter], cell->micro_batch);
        if (cell->letter == LETTER_B && s->split)
            schedule_push(s, cell->stage, PIPE_WEIGHT, cell->micro_batch);
        for (; at < s->ops[rank]; at++)
            s->cell[rank][at] = cell->at;
    }
}

/* A table's row: its cells at the begin of their operations. */
static void write_row(FILE *f, const struct schedule *s, const struct schedule_times *t,
                      int rank)
{
    static const char letter[] = {'F', 'I', 'W'};
    int slots = (int)t->length, next = 0;
    for (int slot = 0; slot < slots; slot++) {
        while (next < s->ops[rank] &&
               (s->op[rank][next].kind > PIPE_WEIGHT || t->start[rank][next] < slot))
            next++;
        if (slot)
            fputc(',', f);
        if (next == s->ops[rank] || t->start[rank][next] > slot)
            continue;
        struct pipe_op op = s->op[rank][next++];
        bool whole = op.kind == PIPE_BACKWARD && !s->split;
        fprintf(f, "%d%c%d", op.stage, whole ? 'B' : letter[op.kind], op.micro_batch);
    }
    fputc('\n', f);
}

char *schedule_file_text(const struct schedule *s, struct err *err)
{
    const struct schedule_costs costs = {1, 1, 1};
    struct schedule_times t;
    char *text = NULL;
    size_t bytes = 0;
    if (schedule_times_init(&t, s, &costs, err))
        return NULL;
    FILE *f = open_memstream(&text, &bytes);
    for (int rank = 0; f && rank < s->ranks; rank++)
        write_row(f, s, &t, rank);
    int failed = !f || ferror(f);
    if (f)
        failed |= fclose(f);
    schedule_times_fini(&t);
    if (failed) {
        err_set(err, ERR_OTHER, "no memory for the text of a schedule");
        free(text);
        return NULL;
    }
    return text;
}
