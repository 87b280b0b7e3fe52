/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/process.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

unsigned long long process_born(long pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    const char *p = strrchr(text, ')'); /* the name before it may hold anything */
    unsigned long long born = 0;
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (p)
        sscanf(p, "%llu", &born);
    return born;
}

double process_age_s(void)
{
    unsigned long long born = process_born((long)getpid());
    long ticks = sysconf(_SC_CLK_TCK);
    struct timespec up;
    if (!born || ticks <= 0 || clock_gettime(CLOCK_BOOTTIME, &up) < 0)
        return 0;
    double age_s =
        (double)up.tv_sec + 1e-9 * (double)up.tv_nsec - (double)born / (double)ticks;
    return age_s > 0 ? age_s : 0;
}
