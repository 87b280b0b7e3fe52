/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/trace.h"

#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/base/mem.h"

#include <math.h>
#include <string.h>

/* Waits that are shorter did not wait, and would only crowd a timeline. */
static const double least_wait_s = 1e-6;

const char *trace_kind_name(enum trace_kind k)
{
    static const char *const names[] = {
        "forward",   "backward", "weight", "receive_wait", "send_wait", "reduce",
        "optimizer", "publish",  "data",   "loss",         "step"};
    return names[k];
}

int trace_init(struct trace *t, int64_t room, struct err *err)
{
    *t = (struct trace){.on = true, .room = room};
    t->span = mem_array(room, sizeof *t->span, err);
    return t->span ? 0 : -1;
}

void trace_fini(struct trace *t)
{
    mem_free(t->span);
    *t = (struct trace){0};
}

int64_t trace_bytes(int64_t room)
{
    return (int64_t)sizeof(struct trace) + room * (int64_t)sizeof(struct trace_span);
}

int64_t trace_step_spans(int pass_ops)
{
    /* An operation is a span, a receive its wait; a send's wait comes when its buffer
     * is filled again or the pass ends. Besides: data, loss, reduce, optimizer, publish
     * and the step itself. */
    enum { OUTSIDE = 6 };
    return (int64_t)pass_ops + OUTSIDE;
}

void trace_step(struct trace *t)
{
    if (!t || !t->on)
        return;
    memset(t->seconds, 0, sizeof t->seconds);
    t->exposed_s = t->first_s = t->last_s = 0;
}

double trace_now(const struct trace *t)
{
    return t && t->on ? clock_s() : 0;
}

double trace_shared_now(const struct trace *t)
{
    return t && t->on ? clock_fix_shared(&t->fix, clock_s()) : 0;
}

static void keep(struct trace *t, enum trace_kind kind, int micro_batch, double begin_s,
                 double end_s)
{
    if (!t->keeps)
        return;
    CHECK(t->spans < t->room, "a timeline of more than %lld spans", (long long)t->room);
    t->span[t->spans++] = (struct trace_span){begin_s, end_s, micro_batch,
                                              (uint16_t)kind, (uint16_t)t->chunk};
}

void trace_chunk(struct trace *t, int chunk)
{
    if (t)
        t->chunk = chunk;
}

void trace_add(struct trace *t, enum trace_kind kind, int micro_batch, double begin_s)
{
    if (!t || !t->on)
        return;
    double end_s = clock_s();
    t->seconds[kind] += end_s - begin_s;
    if (kind <= TRACE_WEIGHT) {
        t->first_s = t->first_s > 0 ? t->first_s : begin_s;
        t->last_s = end_s;
    }
    keep(t, kind, micro_batch, begin_s, end_s);
}

void trace_wait(struct trace *t, enum trace_kind kind, int micro_batch, double begin_s,
                double end_s, double ready_s)
{
    if (!t || !t->on)
        return;
    double exposed = clock_fix_shared(&t->fix, end_s) -
                     fmax(clock_fix_shared(&t->fix, begin_s), ready_s);
    t->seconds[kind] += end_s - begin_s;
    t->exposed_s += fmax(exposed, 0);
    if (end_s - begin_s >= least_wait_s)
        keep(t, kind, micro_batch, begin_s, end_s);
}
