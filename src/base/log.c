/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/log.h"

#include <stdarg.h>

static void write_line(const struct log *log, const char *prefix, const char *format,
                       va_list ap)
{
    char text[4096];
    vsnprintf(text, sizeof text, format, ap);
    fprintf(log->to, "%s%s\n", prefix, text);
    fflush(log->to);
}

void log_line(const struct log *log, const char *format, ...)
{
    if (!log || !log->to)
        return;
    va_list ap;
    va_start(ap, format);
    write_line(log, "", format, ap);
    va_end(ap);
}

void log_warning(const struct log *log, const char *format, ...)
{
    if (!log || !log->to)
        return;
    va_list ap;
    va_start(ap, format);
    write_line(log, "warning: ", format, ap);
    va_end(ap);
}
