/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/progress.h"

#include "src/base/clock.h"

#include <stdio.h>
#include <unistd.h>

enum { BAR_WIDTH = 24 };
static const double redraw_s = 0.1, line_s = 10, short_s = 2;

static void format_left(char *text, size_t size, double seconds)
{
    long long s = (long long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(text, size, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, size, "%lld:%02lld", s / 60, s % 60);
}

static void show(const struct progress *p, double done, double elapsed_s)
{
    double share = p->total > 0 ? done / p->total : 0;
    double rate = elapsed_s > 0 ? done / elapsed_s : 0;
    char left[32] = "?", bar[BAR_WIDTH + 1];
    share = share > 1 ? 1 : share;
    if (rate > 0 && p->total >= done)
        format_left(left, sizeof left, (p->total - done) / rate);
    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < (int)(share * BAR_WIDTH) ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    if (p->terminal) {
        fprintf(p->log->to,
                "\r%s [%s] %3.0f%%  %.4g of %.4g %s  %.4g %s/s  %s left\033[K", p->what,
                bar, 100 * share, done / p->per_unit, p->total / p->per_unit, p->unit,
                rate / p->per_unit, p->unit, left);
        fflush(p->log->to);
    } else {
        log_line(p->log, "%s: %.0f%%, %.4g of %.4g %s, %.4g %s/s, %s left", p->what,
                 100 * share, done / p->per_unit, p->total / p->per_unit, p->unit,
                 rate / p->per_unit, p->unit, left);
    }
}

static int silent(const struct progress *p)
{
    return !p->log || !p->log->to;
}

void progress_begin(struct progress *p, const struct log *log, const char *what,
                    const char *unit, double total, double per_unit)
{
    *p = (struct progress){
        .log = log, .what = what, .unit = unit, .total = total, .per_unit = per_unit};
    p->start_s = p->shown_s = clock_s();
    p->terminal = !silent(p) && isatty(fileno(log->to));
}

void progress_at(struct progress *p, double done)
{
    if (silent(p))
        return;
    double now = clock_s();
    if (now - p->shown_s < (p->terminal ? redraw_s : line_s))
        return;
    show(p, done, now - p->start_s);
    p->shown_s = now;
    p->shown = 1;
}

void progress_stop(struct progress *p)
{
    if (!silent(p) && p->shown && p->terminal)
        fputs("\r\033[K", p->log->to);
}

void progress_end(struct progress *p)
{
    if (silent(p))
        return;
    double seconds = clock_s() - p->start_s;
    progress_stop(p);
    if (!p->shown && seconds < short_s)
        return;
    log_line(p->log, "%s: %.4g %s in %.1f s, %.4g %s/s", p->what,
             p->total / p->per_unit, p->unit, seconds,
             seconds > 0 ? p->total / p->per_unit / seconds : 0, p->unit);
}
