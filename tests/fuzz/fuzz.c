/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/fuzz.h"

#include "src/base/file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

void fuzz_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

void fuzz_refused(const struct err *err, enum err_code code)
{
    if (err->code != code || !err->text[0])
        fuzz_fail("expected code %d, found %d: %s", (int)code, (int)err->code,
                  err->text);
    for (const char *s = err->text; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            fuzz_fail("control byte %d in the message: %s", *s, err->text);
}

static void remove_folder(void)
{
    struct err ignored;
    file_remove_tree(folder, &ignored);
}

const char *fuzz_folder(void)
{
    struct stat st;
    if (!folder[0]) {
        bool memory = stat("/dev/shm", &st) == 0 && S_ISDIR(st.st_mode);
        snprintf(folder, sizeof folder, "%s/dusk-fuzz-XXXXXX",
                 memory ? "/dev/shm" : "/tmp");
        if (!mkdtemp(folder) || atexit(remove_folder))
            fuzz_fail("cannot make the folder %s", folder);
    }
    return folder;
}

const char *fuzz_path(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    return path;
}

const char *fuzz_file(const char *name, const void *data, size_t size)
{
    const char *path = fuzz_path(name);
    FILE *f = fopen(path, "w");
    if (!f || (size && fwrite(data, size, 1, f) != 1) || fclose(f))
        fuzz_fail("cannot write %s", path);
    return path;
}
