/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_SUPPORT_NEED_H
#define DUSK_TESTS_SUPPORT_NEED_H

#include <stdio.h>
#include <stdlib.h>

/* The pointer, or one line and abort if it is NULL. `what` is a file or a place in it.
 */
static inline void *need(const void *p, const char *what, const char *problem)
{
    if (!p) {
        fprintf(stderr, "test data: %s: %s\n", what, problem);
        abort();
    }
    union {
        const void *in;
        void *out;
    } same = {p};
    return same.out;
}

#endif
