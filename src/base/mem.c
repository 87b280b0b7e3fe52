/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/mem.h"

#include "src/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { ALIGN_BYTES = 64 };

void *mem_array(int64_t count, size_t size, struct err *err)
{
    size_t bytes;
    if (count < 0 || __builtin_mul_overflow((size_t)count, size, &bytes) ||
        bytes > SIZE_MAX - ALIGN_BYTES) {
        err_set(err, ERR_OTHER, "memory: %lld x %zu bytes is more than a process has",
                (long long)count, size);
        return NULL;
    }
    size_t padded = (bytes + ALIGN_BYTES) / ALIGN_BYTES * ALIGN_BYTES;
    void *p = aligned_alloc(ALIGN_BYTES, padded);
    if (!p) {
        err_set(err, ERR_OTHER, "memory: no %zu bytes left", bytes);
        return NULL;
    }
    memset(p, 0, padded);
    return p;
}

void mem_free(void *p)
{
    free(p);
}

char *mem_printf(struct err *err, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(NULL, 0, format, ap);
    va_end(ap);
    char *text = n < 0 ? NULL : malloc((size_t)n + 1);
    if (!text) {
        err_set(err, ERR_OTHER, "memory: none left for a string");
        return NULL;
    }
    va_start(ap, format);
    vsnprintf(text, (size_t)n + 1, format, ap);
    va_end(ap);
    return text;
}

int64_t mem_peak_rss_bytes(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)usage.ru_maxrss * 1024;
}
