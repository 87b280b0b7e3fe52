/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/check.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

_Noreturn void check_failed(const char *file, int line, const char *condition,
                            const char *format, ...)
{
    fprintf(stderr, "dusk: bug at %s:%d (%s): ", file, line, condition);
    va_list ap;
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

int to_int(int64_t value)
{
    CHECK(value >= INT_MIN && value <= INT_MAX, "%lld does not fit an int",
          (long long)value);
    return (int)value;
}

int64_t to_i64(uint64_t value)
{
    CHECK(value <= INT64_MAX, "%llu does not fit 63 bits", (unsigned long long)value);
    return (int64_t)value;
}
