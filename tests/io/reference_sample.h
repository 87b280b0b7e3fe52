/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_IO_REFERENCE_SAMPLE_H
#define DUSK_TESTS_IO_REFERENCE_SAMPLE_H

/* A key, sums and a folder for tests of reference log-probabilities; every function
 * fails the test itself. */

#include "io/reference.h"
#include "src/base/file.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char folder[256];
static char file_path[300], part_path[300]; /* a.h5 and its part, in folder */

/* MANY pairs are several blocks of a sealed file, FEW are 3 blocks of a part. */
enum { MANY = 10000, FEW = 12, PAIR_BYTES = 16, FILE_LIMIT = 1 << 24 };

static inline int entries(const char *path)
{
    DIR *d = opendir(path);
    assert_non_null(d);
    int n = -2;
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static inline struct reference_key key_of(int64_t pairs)
{
    return (struct reference_key){.weights = "0123456789abcdef 0:24,8:32",
                                  .data = "fedcba9876543210",
                                  .template_hash = "00112233445566778899aabbccddeeff",
                                  .precision = "fp32",
                                  .pairs = pairs};
}

/* Sums with NaN of a payload, both zeros and infinities among them. Owned (free). */
static inline double *make_sums(int64_t pairs)
{
    static const uint64_t odd[] = {
        UINT64_C(0x7ff8000000000123), UINT64_C(0x8000000000000000), 0,
        UINT64_C(0xfff0000000000000), UINT64_C(0x7ff0000000000000), 1};
    double *sums = malloc((size_t)pairs * PAIR_BYTES);
    assert_non_null(sums);
    for (int64_t i = 0; i < 2 * pairs; i++)
        sums[i] = -0.1 * (double)(i * 7919 % 10007);
    memcpy(sums + 3, odd, sizeof odd);
    return sums;
}

static inline struct reference_writer *
begin(const char *path, const struct reference_key *k, double *sums, int64_t *done)
{
    struct err err = {0};
    struct reference_writer *w = reference_begin(path, k, sums, done, &err);
    if (!w)
        fail_msg("%s", err.text);
    return w;
}

static inline void append(struct reference_writer *w, int64_t n, const double *sums)
{
    struct err err = {0};
    if (reference_append(w, n, sums, &err) < 0)
        fail_msg("%s", err.text);
}

static inline void commit(struct reference_writer *w)
{
    struct err err = {0};
    if (reference_commit(&w, &err) < 0)
        fail_msg("%s", err.text);
    assert_null(w);
}

/* A finished file, in one block. */
static inline void make_file(const char *path, const struct reference_key *k,
                             const double *sums)
{
    double *known = malloc((size_t)k->pairs * PAIR_BYTES);
    int64_t done;
    struct reference_writer *w = begin(path, k, known, &done);
    append(w, k->pairs - done, sums + 2 * done);
    commit(w);
    free(known);
}

static inline void put_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static char *get_bytes(const char *path, size_t *n)
{
    struct err err = {0};
    char *bytes = file_read(path, FILE_LIMIT, n, &err);
    if (!bytes)
        fail_msg("%s", err.text);
    return bytes;
}

static inline void assert_same_file(const char *path, const char *want, size_t n)
{
    size_t m;
    char *found = get_bytes(path, &m);
    assert_int_equal(m, n);
    assert_memory_equal(found, want, n);
    free(found);
}

static inline int make_folder(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/dusk-reference-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(folder))
        return -1;
    snprintf(file_path, sizeof file_path, "%s/a.h5", folder);
    snprintf(part_path, sizeof part_path, "%s/a.h5.part", folder);
    return 0;
}

static inline int remove_folder(void **state)
{
    (void)state;
    struct err err;
    return file_remove_tree(folder, &err);
}

#endif
