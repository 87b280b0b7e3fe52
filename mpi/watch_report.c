/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/watch_report.h"

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Ranks in full on stderr; status.json has all. */
enum { LINES = 40, ANSWER_BYTES = 4096, PATH_BYTES = 4096 };

/* "rank 2 (n1), stage 2, replica 0, training, step 17: waits for 61 s for activations
 * from stage 1, micro-batch 3" */
static void describe(const struct watch_ranks *r, const struct watch_state *s,
                     char *text, size_t size)
{
    size_t n = (size_t)snprintf(text, size, "rank %d (%s)", r->rank, r->host);
    if (s->stage >= 0 && n < size)
        n += (size_t)snprintf(text + n, size - n, ", stage %d, replica %d", s->stage,
                              s->replica);
    if (n < size)
        n += (size_t)snprintf(text + n, size - n, ", %s, step %lld: ", s->phase,
                              (long long)s->step);
    if (!s->waits && n < size)
        snprintf(text + n, size - n, "has waited for no rank for %.0f s", s->quiet_s);
    if (!s->waits || n >= size)
        return;
    n += (size_t)snprintf(text + n, size - n, "waits for %.0f s for %s", s->quiet_s,
                          s->what);
    if (s->peer >= 0 && n < size)
        n += (size_t)snprintf(text + n, size - n, " %d", s->peer);
    if (s->micro_batch >= 0 && n < size)
        snprintf(text + n, size - n, ", micro-batch %d", s->micro_batch);
}

/* -1 becomes null. */
static void number(struct json *j, const char *key, int value)
{
    if (value < 0)
        json_text(j, key, NULL);
    else
        json_int(j, key, value);
}

static void facts(struct json *j, const struct watch_ranks *r,
                  const struct watch_state *s)
{
    json_begin(j, NULL, '{');
    json_int(j, "rank", r->rank);
    json_text(j, "host", r->host);
    number(j, "stage", s->stage);
    number(j, "replica", s->replica);
    json_text(j, "phase", s->phase);
    json_int(j, "step", s->step);
    json_bool(j, "waits", s->waits);
    json_double(j, "quiet_s", s->quiet_s);
    json_text(j, "for", s->waits ? s->what : NULL);
    number(j, "peer", s->waits ? s->peer : -1);
    number(j, "micro_batch", s->waits ? s->micro_batch : -1);
    json_end(j, '}');
}

void watch_say(const struct watch_ranks *r, const struct watch_state *s, double limit_s)
{
    char text[512];
    describe(r, s, text, sizeof text);
    fprintf(stderr, "dusk: watchdog: no progress within %g s: %s\n", limit_s, text);
    fflush(stderr);
}

/* FOLDER/hang/NAME N, or without N if that is negative. */
static const char *path_of(char path[PATH_BYTES], const char *folder, const char *name,
                           int n)
{
    if (n < 0)
        snprintf(path, PATH_BYTES, "%s/hang%s", folder, name);
    else
        snprintf(path, PATH_BYTES, "%s/hang%s%d", folder, name, n);
    return path;
}

bool watch_asked(const char *folder)
{
    char path[PATH_BYTES];
    struct stat st;
    return stat(path_of(path, folder, "", -1), &st) == 0;
}

int watch_forget(const char *folder, struct err *err)
{
    char path[PATH_BYTES];
    if (file_remove_tree(path_of(path, folder, "", -1), err))
        return -1;
    snprintf(path, sizeof path, "%s/status.json", folder);
    if (unlink(path) && errno != ENOENT)
        return err_set_errno(err, 0, "%s: cannot be removed", path);
    return 0;
}

/* Two lines: for people, and JSON. It appears whole. */
void watch_answer(const struct watch_ranks *r, const struct watch_state *s,
                  const char *folder)
{
    char text[512], unfinished[PATH_BYTES], path[PATH_BYTES];
    struct json j = {0};
    describe(r, s, text, sizeof text);
    facts(&j, r, s);
    FILE *f = fopen(path_of(unfinished, folder, "/writing-", r->rank), "w");
    if (f) {
        fprintf(f, "%s\n%s\n", text, j.text);
        if (fclose(f) == 0)
            rename(unfinished, path_of(path, folder, "/rank-", r->rank));
    }
    json_fini(&j);
}

static void nap(double seconds)
{
    struct timespec t = {.tv_sec = (time_t)seconds,
                         .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
}

static bool answered(const char *folder, int rank)
{
    char path[PATH_BYTES];
    return access(path_of(path, folder, "/rank-", rank), F_OK) == 0;
}

/* Waits for the answers of all, or WATCH_ANSWERS_S. */
static void await_answers(const struct watch_ranks *r, const char *folder)
{
    int next = 0;
    for (int tenths = 0; tenths < 10 * WATCH_ANSWERS_S; tenths++) {
        while (next < r->size && answered(folder, next))
            next++;
        if (next == r->size)
            return;
        nap(0.1);
    }
}

/* Reads rank n's answer: its text and, in *json, the line behind it. False: none. */
static bool read_answer(const char *folder, int n, char text[ANSWER_BYTES],
                        const char **json)
{
    char path[PATH_BYTES];
    int fd = open(path_of(path, folder, "/rank-", n), O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd < 0 ? -1 : read(fd, text, ANSWER_BYTES - 1);
    if (fd >= 0)
        close(fd);
    if (bytes <= 0)
        return false;
    text[bytes] = '\0';
    char *end = strchr(text, '\n');
    if (!end)
        return false;
    *end = '\0';
    *json = end + 1;
    end[1 + strcspn(end + 1, "\n")] = '\0';
    return true;
}

/* The lines of all ranks on stderr, those without an answer first, and status.json. */
static void tell(const struct watch_ranks *r, const char *folder, double limit_s)
{
    char text[ANSWER_BYTES], path[PATH_BYTES];
    const char *json;
    int silent = 0, shown = 0;
    struct json j = {0};
    snprintf(path, sizeof path, "%s/status.json", folder);
    FILE *f = fopen(path, "w");
    json_begin(&j, NULL, '[');
    for (int n = 0; n < r->size; n++) {
        if (read_answer(folder, n, text, &json))
            continue;
        const char *host = r->hosts + (size_t)n * WATCH_HOST;
        json_begin(&j, NULL, '{');
        json_int(&j, "rank", n);
        json_text(&j, "host", host);
        json_end(&j, '}');
        silent++;
        if (shown++ < LINES)
            fprintf(stderr, "dusk: watchdog: rank %d (%s): no answer\n", n, host);
    }
    json_end(&j, ']');
    if (f)
        fprintf(f,
                "{\"state\": \"hung\", \"limit_s\": %.17g, \"ranks\": %d, \"silent\": "
                "%s, \"answers\": [",
                limit_s, r->size, j.text);
    for (int n = 0, before = 0; n < r->size; n++) {
        if (!read_answer(folder, n, text, &json))
            continue;
        if (shown++ < LINES)
            fprintf(stderr, "dusk: watchdog: %s\n", text);
        if (f)
            fprintf(f, "%s\n  %s", before++ ? "," : "", json);
    }
    if (f) {
        fprintf(f, "\n]}\n");
        fclose(f);
    }
    json_fini(&j);
    fprintf(stderr,
            "dusk: watchdog: no progress within %g s; of %d ranks %d do not answer; "
            "all of this is in %s\n",
            limit_s, r->size, silent, path);
    fflush(stderr);
}

void watch_report(const struct watch_ranks *r, const struct watch_state *s,
                  const char *folder, double limit_s)
{
    char path[PATH_BYTES];
    if (!folder || (mkdir(path_of(path, folder, "", -1), 0777) && errno != EEXIST)) {
        watch_say(r, s, limit_s);
        nap(2); /* for others to say theirs */
        return;
    }
    watch_answer(r, s, folder);
    await_answers(r, folder);
    int fd =
        open(path_of(path, folder, "/report", -1), O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
        nap(2); /* another rank reports, and ends the job */
        return;
    }
    close(fd);
    tell(r, folder, limit_s);
}
