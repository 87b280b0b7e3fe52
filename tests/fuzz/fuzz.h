/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_FUZZ_FUZZ_H
#define DUSK_TESTS_FUZZ_FUZZ_H

/* What the fuzzers share. Each tests/fuzz/NAME.c is one, in libFuzzer's form; with
 * `./configure --enable-fuzz CC=clang CXX=clang++` it is linked with libFuzzer, else
 * with tests/fuzz/replay.c, which runs the inputs of tests/fuzz/corpus/NAME and changed
 * copies of them. An input passes if it is read, or refused in one line with the right
 * code: whatever else happens is a crash. All local. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/err.h"

/* libFuzzer's entry: one input. 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A folder of this process, in memory if the machine has /dev/shm; removed at the end.
 * Borrowed. */
const char *fuzz_folder(void);

/* Path of `name` in the folder; borrowed until the next call. */
const char *fuzz_path(const char *name);

/* The bytes as the file `name` of the folder; its path, borrowed likewise. */
const char *fuzz_file(const char *name, const void *data, size_t size);

/* Aborts unless err has the code and is one line without control bytes. */
void fuzz_refused(const struct err *err, enum err_code code);

/* Aborts with this text. */
void fuzz_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
