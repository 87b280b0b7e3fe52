/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* madvise's advice */
#include "src/base/mem.h"

#include "src/base/err.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

enum { ALIGN_BYTES = 64, HUGE_BYTES = 2 << 20 };

void mem_keep_freed(void)
{
#if defined(__GLIBC__)
    /* The largest threshold that glibc takes; beyond it each block is a mapping of its
     * own. The heap grows by large steps and is never given back. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 4 << 20);
#endif
}

/* Zeroes by all threads: on fresh memory that is the first touch, which maps the pages
 * (near the threads that will use them) and takes as long as the kernel needs to clear
 * them. */
static void clear(char *p, size_t bytes)
{
    int64_t parts = (int64_t)((bytes + HUGE_BYTES - 1) / HUGE_BYTES);
#pragma omp parallel for schedule(static) if (parts > 1)
    for (int64_t i = 0; i < parts; i++) {
        size_t at = (size_t)i * HUGE_BYTES;
        memset(p + at, 0, bytes - at < HUGE_BYTES ? bytes - at : HUGE_BYTES);
    }
}

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
    bool huge = padded >= HUGE_BYTES;
    void *p = NULL;
    if (posix_memalign(&p, huge ? HUGE_BYTES : ALIGN_BYTES, padded)) {
        err_set(err, ERR_OTHER, "memory: no %zu bytes left", bytes);
        return NULL;
    }
#if defined(MADV_HUGEPAGE)
    if (huge) /* a wish: where the kernel has none, small pages do */
        madvise(p, padded / HUGE_BYTES * HUGE_BYTES, MADV_HUGEPAGE);
#endif
    clear(p, padded);
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

int64_t mem_page_faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)usage.ru_minflt + (int64_t)usage.ru_majflt;
}
