/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/ticker.h"

#include "src/base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR = 24 };

void ticker_begin(struct ticker *t, const struct log *log, int64_t every, int64_t first,
                  int64_t steps)
{
    *t = (struct ticker){.log = log, .every = every, .first = first, .steps = steps};
    t->terminal = log && log->to && isatty(fileno(log->to));
    t->start_s = clock_s();
}

void ticker_time(double seconds, char *text, size_t size)
{
    int64_t s = (int64_t)(seconds + 0.5);
    if (s >= 3600)
        snprintf(text, size, "%" PRId64 ":%02d:%02d", s / 3600, (int)(s / 60 % 60),
                 (int)(s % 60));
    else
        snprintf(text, size, "%d:%02d", (int)(s / 60), (int)(s % 60));
}

static void bar(char *text, double share)
{
    int full = (int)(share * BAR);
    memset(text, '#', (size_t)full);
    memset(text + full, '.', (size_t)(BAR - full));
    text[BAR] = '\0';
}

void ticker_step(struct ticker *t, const struct ticker_step *s)
{
    if (!t->log || !t->log->to)
        return;
    bool due = s->step == t->steps || (t->every > 0 && s->step % t->every == 0);
    if (!t->terminal && !due)
        return;
    double spent = clock_s() - t->start_s, done = (double)(s->step - t->first);
    char left[24], body[256], progress[BAR + 1];
    ticker_time(spent / done * (double)(t->steps - s->step), left, sizeof left);
    snprintf(body, sizeof body,
             "step %" PRId64 "/%" PRId64 "  loss %.5f  lr %.3e  grad norm %.3f  %.0f "
             "tokens/s  left %s",
             s->step, t->steps, s->loss, s->lr, s->grad_norm, s->tokens_per_s, left);
    if (!t->terminal) {
        log_line(t->log, "%s", body);
        if (s->note)
            log_line(t->log, "  %s", s->note);
        return;
    }
    bar(progress, (double)s->step / (double)t->steps);
    fprintf(t->log->to, "\r\033[K[%s] %s", progress, body);
    fflush(t->log->to);
    t->drawn = true;
    if (s->step == t->steps)
        ticker_pause(t);
}

void ticker_pause(struct ticker *t)
{
    if (t->drawn)
        fputc('\n', t->log->to);
    t->drawn = false;
}
