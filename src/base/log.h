/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_LOG_H
#define DUSK_BASE_LOG_H

/* Lines for people. A log is passed to whoever may speak; one rank's log writes, the
 * others' are silent, so that no module asks which rank it is on. All local. */

#include <stdio.h>

struct log {
    FILE *to; /* borrowed; NULL: silent */
};

/* One line, with its newline added, flushed. A NULL log is silent. */
void log_line(const struct log *log, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The same with "warning: " in front. */
void log_warning(const struct log *log, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
