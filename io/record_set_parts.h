/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_RECORD_SET_PARTS_H
#define DUSK_IO_RECORD_SET_PARTS_H

/* What record_set.c and record_set_read.c share. */

#include "io/record_set.h"

struct record_set {
    struct sealed *file; /* owned */
    char *path;          /* owned */
    struct record_set_info info;
    int tokens, counted, ends, pack_ends; /* arrays of the file; -1: none */
};

#endif
