/* SPDX-License-Identifier: Apache-2.0 */
/* model.safetensors.index.json: what is accepted names files of its folder. */
#include "io/hf_index.h"

#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hf_index x;
    struct err err = {0};
    fuzz_file("model-00001-of-00002.safetensors", "", 0);
    fuzz_file("model-00002-of-00002.safetensors", "", 0);
    fuzz_file("model.safetensors.index.json", data, size);
    if (hf_index_read(&x, fuzz_folder(), &err)) {
        fuzz_refused(&err, ERR_INPUT);
        return 0;
    }
    if (x.shards < 1)
        fuzz_fail("an index without shards");
    for (int i = 0; i < x.shards; i++) {
        const char *name = strrchr(x.shard[i], '/');
        if (!name || strncmp(x.shard[i], fuzz_folder(), (size_t)(name - x.shard[i])) ||
            access(x.shard[i], F_OK))
            fuzz_fail("shard %s", x.shard[i]);
    }
    hf_index_file(&x, "lm_head.weight");
    hf_index_fini(&x);
    return 0;
}
