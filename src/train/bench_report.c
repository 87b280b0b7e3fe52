/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/bench_report.h"

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/gemm/bf16.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Three significant digits at least. */
static void number(char *text, size_t size, double x)
{
    snprintf(text, size,
             x >= 1000 || x <= -1000 ? "%.0f"
             : x >= 100              ? "%.1f"
                                     : "%.3g",
             x);
}

void bench_print(const struct bench *b, FILE *to)
{
    const char *section = "";
    for (int i = 0; i < b->rows; i++) {
        const struct bench_row *r = &b->row[i];
        if (strcmp(section, r->section) != 0)
            fprintf(to, "%s%s\n", *section ? "\n" : "", r->section);
        section = r->section;
        if (r->heading) {
            fprintf(to, "  %s\n", r->name);
            continue;
        }
        char median[24], low[24], high[24], spread[52] = "";
        number(median, sizeof median, r->value.median);
        number(low, sizeof low, r->value.low);
        number(high, sizeof high, r->value.high);
        if (r->value.samples > 1)
            snprintf(spread, sizeof spread, "%s .. %s", low, high);
        fprintf(to, "    %-46s %9s %-8s %-19s", r->name, median, r->unit, spread);
        if (r->share >= 0)
            fprintf(to, " %.3f of %s", r->share, r->of);
        fputc('\n', to);
    }
}

/* The value of the first "KEY : value" line of a file of /proc, owned by text; "" if
 * there is none. */
static void proc_line(const char *path, const char *key, char *text, size_t size)
{
    FILE *f = fopen(path, "r");
    char line[512];
    *text = '\0';
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        const char *colon = *key ? strchr(line, ':') : line - 1;
        const char *value = colon ? colon + 1 : "";
        snprintf(text, size, "%s", value + strspn(value, " \t"));
        text[strcspn(text, "\n")] = '\0';
        break;
    }
    if (f)
        fclose(f);
}

static void machine_json(const struct bench *b, struct json *j)
{
    char text[256] = "";
    gethostname(text, sizeof text - 1);
    json_text(j, "host", text);
    proc_line("/proc/cpuinfo", "model name", text, sizeof text);
    json_text(j, "cpu", text);
    proc_line("/proc/loadavg", "", text, sizeof text);
    json_text(j, "load", text);
    json_int(j, "cores", sysconf(_SC_NPROCESSORS_ONLN));
    json_int(j, "threads", omp_get_max_threads());
    json_int(j, "ranks", comm_size(b->world));
    json_text(j, "fp32", gemm_name(b->gemm));
    json_text(j, "bf16", gemm_bf16_name(b->gemm));
    json_text(j, "size", b->size.name);
}

static void row_json(const struct bench_row *r, const char *title, struct json *j)
{
    json_begin(j, NULL, '{');
    json_text(j, "section", r->section);
    json_text(j, "title", title);
    json_text(j, "name", r->name);
    json_text(j, "unit", r->unit);
    json_double(j, "median", r->value.median);
    json_double(j, "low", r->value.low);
    json_double(j, "high", r->value.high);
    json_int(j, "samples", r->value.samples);
    if (r->share >= 0) {
        json_double(j, "share", r->share);
        json_text(j, "of", r->of);
    }
    json_end(j, '}');
}

void bench_json(const struct bench *b, const char *section, struct json *j)
{
    const char *title = "";
    json_begin(j, NULL, '{');
    machine_json(b, j);
    json_begin(j, "rows", '[');
    for (int i = 0; i < b->rows; i++) {
        const struct bench_row *r = &b->row[i];
        if (i > 0 && strcmp(r->section, b->row[i - 1].section) != 0)
            title = "";
        if (section && strcmp(r->section, section) != 0)
            continue;
        if (r->heading)
            title = r->name;
        else
            row_json(r, title, j);
    }
    json_end(j, ']');
    json_end(j, '}');
}

static int save_section(const struct bench *b, const char *folder, const char *section,
                        struct err *err)
{
    struct json j = {0};
    bench_json(b, section, &j);
    char *path = mem_printf(err, "%s/%s.json", folder, section);
    int failed = !path || file_write_atomic(path, j.text, strlen(j.text), err);
    free(path);
    json_fini(&j);
    return failed;
}

int bench_save_profile(const struct bench *b, char **folder, struct err *err)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    *folder = NULL;
    if (!(cache && *cache) && !(home && *home))
        return 0;
    *folder = cache && *cache ? mem_printf(err, "%s/dusk/%s", cache, host)
                              : mem_printf(err, "%s/.cache/dusk/%s", home, host);
    if (!*folder || file_make_folders(*folder, err))
        return -1;
    const char *section = "";
    for (int i = 0; i < b->rows; i++) {
        if (strcmp(section, b->row[i].section) == 0)
            continue;
        section = b->row[i].section;
        if (save_section(b, *folder, section, err))
            return -1;
    }
    return 0;
}
