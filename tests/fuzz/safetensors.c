/* SPDX-License-Identifier: Apache-2.0 */
/* A safetensors file: what is accepted lies within the file, without holes. */
#include "io/safetensors.h"

#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors s;
    struct err err = {0};
    const char *path = fuzz_file("model.safetensors", data, size);
    if (safetensors_read(&s, path, &err)) {
        fuzz_refused(&err, ERR_INPUT);
        return 0;
    }
    int64_t at = s.data_at;
    for (int i = 0; i < s.n; i++) {
        const struct safetensor *t = &s.tensor[i];
        if (t->offset != at || t->bytes < 0 || t->elements < 0 ||
            t->bytes * 8 != t->elements * t->bits ||
            safetensors_find(&s, t->name) == NULL)
            fuzz_fail("tensor %d of %d at %lld", i, s.n, (long long)t->offset);
        at += t->bytes;
    }
    if (at != s.file_bytes || at != (int64_t)size)
        fuzz_fail("%lld of %zu bytes are tensors'", (long long)at, size);
    safetensors_fini(&s);
    return 0;
}
