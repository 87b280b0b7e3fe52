/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_CHECK_H
#define DUSK_BASE_CHECK_H

/* CHECK(condition, format, ...): a broken invariant is a bug, never the user's doing.
 * It prints place and text on stderr and aborts; the launcher then ends the job. On in
 * every build; keep it out of loops over elements. */

#include <stdint.h>

#define CHECK(condition, ...)                                                          \
    do {                                                                               \
        if (!(condition))                                                              \
            check_failed(__FILE__, __LINE__, #condition, __VA_ARGS__);                 \
    } while (0)

_Noreturn void check_failed(const char *file, int line, const char *condition,
                            const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Narrowing casts that CHECK their range. */
int to_int(int64_t value);
int64_t to_i64(uint64_t value);

#endif
