/* SPDX-License-Identifier: Apache-2.0 */
/* A checkpoint with changed bytes under a seal that was made right again: what is left
 * to see it are HDF5's own checks, the comparison of its table with the seal's extents,
 * and the checksums of the arrays. An input is a list of changes: 2 bytes of offset, a
 * length, and so many bytes. */
#include "io/sealed_parts.h"
#include "src/base/file.h"
#include "tests/fuzz/ckpt_tiny.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 20 };

/* HDF5 1.10 does not free all that it had read when a file turns out to be bad. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

/* The file as it should be, made once. */
static const char *whole(size_t *bytes)
{
    static char *file;
    static size_t file_bytes;
    if (!file) {
        struct err err = {0};
        struct ckpt_info info = ckpt_tiny_info();
        const char *path = fuzz_path("whole.h5");
        struct ckpt_writer *w =
            ckpt_create(comm_self(), path, false, true, &info, &err);
        for (int i = 0; w && i < table_count(&info.shape); i++) {
            struct tensor t = table_at(&info.shape, i);
            if (ckpt_write(w, CKPT_MODEL, t.role, t.layer, 0, t.elements, NULL, &err))
                fuzz_fail("%s", err.text);
        }
        if (!w || ckpt_commit(w, &err) ||
            !(file =
                  file_read(fuzz_path("whole.h5"), FILE_BYTES_MAX, &file_bytes, &err)))
            fuzz_fail("%s", err.text);
    }
    *bytes = file_bytes;
    return file;
}

/* Seals the file again, with the extents that it had. */
static void reseal(const char *path, unsigned char block[SEAL_BYTES])
{
    struct err err = {0};
    struct seal seal;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || seal_decode(&seal, block, path, &err) ||
        seal_hash_outside(fd, path, &seal, -1, &seal.outside, &err))
        fuzz_fail("%s: %s", path, err.text);
    seal_encode(&seal, block);
    if (file_pwrite(fd, path, block, SEAL_BYTES, 0, &err))
        fuzz_fail("%s", err.text);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t bytes, at = 0;
    const char *good = whole(&bytes);
    char *copy = malloc(bytes);
    if (!copy)
        return 0;
    memcpy(copy, good, bytes);
    while (at + 3 < size) {
        size_t to =
            SEAL_BYTES + (data[at] | (size_t)data[at + 1] << 8) % (bytes - SEAL_BYTES);
        size_t n = data[at + 2] % 32u;
        at += 3;
        for (; n && at < size && to < bytes; n--)
            copy[to++] = (char)data[at++];
    }
    unsigned char block[SEAL_BYTES];
    memcpy(block, copy, sizeof block);
    const char *path = fuzz_file("damaged.h5", copy, bytes);
    reseal(path, block);
    ckpt_tiny_use(path);
    free(copy);
    return 0;
}
