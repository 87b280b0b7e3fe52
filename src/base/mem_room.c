/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory is left: of the host, and within the control groups that a batch
 * system puts a job into (Linux cgroups, versions 1 and 2). */
#include "src/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 1024, LINE_BYTES = 1024 };

/* What differs between the versions. */
struct version {
    const char *folder, *limit, *used;
};
static const struct version version1 = {"memory", "memory.limit_in_bytes",
                                        "memory.usage_in_bytes"};
static const struct version version2 = {"", "memory.max", "memory.current"};

/* The number in a file; -1: there is none ("max", no such file). */
static int64_t read_number(const char *folder, const char *name)
{
    char path[PATH_BYTES + 64];
    int64_t n = -1;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    if (fscanf(f, "%" SCNd64, &n) != 1)
        n = -1;
    fclose(f);
    return n;
}

/* Bytes of files that the kernel gives back when they are needed. */
static int64_t read_reclaimable(const char *folder)
{
    char path[PATH_BYTES + 64], line[LINE_BYTES];
    int64_t n = 0;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "inactive_file %" SCNd64, &n) == 1)
            break;
    if (f)
        fclose(f);
    return n;
}

/* The least room of the group and of those above it; group starts with "/". */
static int64_t room_of(const char *root, const struct version *v, const char *group)
{
    char folder[PATH_BYTES];
    int64_t least = -1;
    size_t top = strlen(root) + 1 + strlen(v->folder);
    int n = snprintf(folder, sizeof folder, "%s/%s%s", root, v->folder, group);
    if (n < 0 || (size_t)n >= sizeof folder)
        return -1;
    for (;;) {
        int64_t limit = read_number(folder, v->limit);
        int64_t used = read_number(folder, v->used);
        if (limit >= 0 && used >= 0) {
            int64_t room = limit - used + read_reclaimable(folder);
            room = room < 0 ? 0 : room > limit ? limit : room;
            least = least < 0 || room < least ? room : least;
        }
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= top || !slash || slash < folder + top)
            return least;
        *slash = '\0';
    }
}

/* Does the list "cpu,memory" hold memory? */
static int lists_memory(const char *controllers)
{
    const char *at = strstr(controllers, "memory");
    return at && (at == controllers || at[-1] == ',') &&
           (at[6] == '\0' || at[6] == ',');
}

int64_t mem_group_room(const char *groups, const char *root)
{
    char line[LINE_BYTES];
    int64_t least = -1;
    FILE *f = fopen(groups, "r");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        controllers++;
        *group++ = '\0';
        const struct version *v = *controllers == '\0'        ? &version2
                                  : lists_memory(controllers) ? &version1
                                                              : NULL;
        int64_t room = v ? room_of(root, v, group) : -1;
        if (room >= 0 && (least < 0 || room < least))
            least = room;
    }
    if (f)
        fclose(f);
    return least;
}

int64_t mem_available_bytes(void)
{
    FILE *f = fopen("/proc/meminfo", "r");
    int64_t kib = -1;
    char line[LINE_BYTES];
    while (f && kib < 0 && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %" SCNd64 " kB", &kib) != 1)
            kib = -1;
    if (f)
        fclose(f);
    int64_t host = kib < 0 ? -1 : kib * 1024;
    int64_t group = mem_group_room("/proc/self/cgroup", "/sys/fs/cgroup");
    return host < 0 || (group >= 0 && group < host) ? group : host;
}
