/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What files hold may stand in a message: it stays one line, and says nothing to the
 * terminal. */
static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

int err_set(struct err *err, enum err_code code, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(err->text, sizeof err->text, format, ap);
    va_end(ap);
    make_printable(err->text);
    err->code = code;
    return -1;
}

static int errno_is_users(int e)
{
    return e == ENOENT || e == ENOTDIR || e == EISDIR || e == EACCES || e == ELOOP ||
           e == ENAMETOOLONG;
}

int err_set_errno(struct err *err, int reading, const char *format, ...)
{
    int e = errno;
    va_list ap;
    va_start(ap, format);
    vsnprintf(err->text, sizeof err->text, format, ap);
    va_end(ap);
    size_t used = strlen(err->text);
    snprintf(err->text + used, sizeof err->text - used, ": %s", strerror(e));
    make_printable(err->text);
    err->code = reading && errno_is_users(e) ? ERR_INPUT : ERR_IO;
    return -1;
}

int err_prefix(struct err *err, const char *format, ...)
{
    char text[sizeof err->text];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    size_t used = strlen(text);
    int room = (int)(sizeof text - used) - (int)sizeof ": " + 1;
    if (room > 0)
        snprintf(text + used, sizeof text - used, ": %.*s", room - 1, err->text);
    memcpy(err->text, text, sizeof text);
    make_printable(err->text);
    return -1;
}
