/* SPDX-License-Identifier: Apache-2.0 */
/* A fuzzer without libFuzzer: runs the inputs kept in tests/fuzz/corpus/NAME, then
 * changed copies of them, the same ones in every run and as many as time allows. A
 * crash leaves the input that did it in NAME.crash. NAME [SECONDS]: changed copies for
 * so long, by default FUZZ_SECONDS or 1. */
#include "tests/fuzz/fuzz.h"

#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/rng.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INPUTS = 256, INPUT_BYTES_MAX = 1 << 20, GROWN = 64 };

static struct {
    char *data;
    size_t bytes;
} input[INPUTS];
static int inputs;

/* What is under way, for the handler. */
static char crash_path[128];
static const char *volatile current;
static volatile size_t current_bytes;

static void keep_input(int number)
{
    int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd >= 0 && write(fd, current, current_bytes) == (ssize_t)current_bytes)
        close(fd);
    signal(number, SIG_DFL);
    raise(number);
}

static void try(const char *data, size_t bytes)
{
    current = data;
    current_bytes = bytes;
    LLVMFuzzerTestOneInput((const uint8_t *)data, bytes);
}

static void add(const char *data, size_t bytes)
{
    if (inputs == INPUTS)
        fuzz_fail("more than %d inputs", INPUTS);
    input[inputs].data = malloc(bytes + 1);
    if (!input[inputs].data)
        fuzz_fail("no memory");
    memcpy(input[inputs].data, data, bytes);
    input[inputs++].bytes = bytes;
}

static void read_corpus(const char *name)
{
    struct err err;
    char path[512];
    const char *srcdir = getenv("srcdir");
    int n = snprintf(path, sizeof path, "%s/tests/fuzz/corpus/%s",
                     srcdir ? srcdir : ".", name);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path + n, sizeof path - (size_t)n, "/%s", e->d_name);
        size_t bytes;
        char *data = file_read(path, INPUT_BYTES_MAX, &bytes, &err);
        if (!data)
            fuzz_fail("%s", err.text);
        add(data, bytes);
        free(data);
    }
    if (d)
        closedir(d);
    if (!inputs)
        fuzz_fail("%s: no inputs", path);
}

/* Changes one thing of the n bytes in place; the new length. Room for GROWN more. */
static size_t change(char *to, size_t n, uint64_t draw)
{
    static const char hostile[] = "[]{}:,-?!&*#|\"'\\\n 0123456789eE.+";
    size_t at = n ? (size_t)(draw >> 8) % n : 0, run = 1 + (draw >> 40) % 8;
    char value = (char)(draw >> 48);
    if (run > n - at)
        run = n - at;
    switch (draw % 6) {
    case 0: /* a bit */
        if (n)
            to[at] = (char)(to[at] ^ (1 << (value & 7)));
        return n;
    case 1: /* a byte */
        if (n)
            to[at] = value;
        return n;
    case 2: /* a byte with a meaning */
        if (n)
            to[at] = hostile[(unsigned char)value % (sizeof hostile - 1)];
        return n;
    case 3: /* a run left out */
        memmove(to + at, to + at + run, n - at - run);
        return n - run;
    case 4: /* a run twice */
        memmove(to + at + run, to + at, n - at);
        return n + run;
    default: /* the end cut off */
        return value & 15 ? n : at;
    }
}

static int64_t try_changed(double seconds)
{
    char *room = malloc(INPUT_BYTES_MAX + GROWN);
    double end = clock_s() + seconds;
    int64_t tried = 0;
    if (!room)
        fuzz_fail("no memory");
    for (; clock_s() < end; tried++) {
        uint64_t draw = rng_u64(1, 0, (uint64_t)tried);
        size_t which = (size_t)(draw % (uint64_t)inputs), n = input[which].bytes;
        memcpy(room, input[which].data, n);
        for (uint64_t k = 0; k <= (draw >> 32) % 6; k++)
            n = change(room, n, rng_u64(2, (uint64_t)tried, k));
        try(room, n);
    }
    free(room);
    return tried;
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
    const char *seconds = argc > 1 ? argv[1] : getenv("FUZZ_SECONDS");
    static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    snprintf(crash_path, sizeof crash_path, "%.100s.crash", name);
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        signal(fatal[i], keep_input);
    read_corpus(name);
    for (int i = 0; i < inputs; i++)
        try(input[i].data, input[i].bytes);
    int64_t tried = try_changed(seconds ? atof(seconds) : 1);
    printf("%s: %d inputs and %lld changed ones: no crash\n", name, inputs,
           (long long)tried);
    for (int i = 0; i < inputs; i++)
        free(input[i].data);
    return tried > 100 ? 0 : 1;
}
