/* SPDX-License-Identifier: Apache-2.0 */
/* config.json: what is accepted is a possible shape, and the same after it was written
 * again. */
#include "io/hf_config.h"

#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model_shape s = {0}, again = {0};
    struct log silent = {0};
    struct err err = {0};
    char *copy = malloc(size + 1); /* exactly so long: a reader must not go beyond */
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    if (hf_config_read(copy, size, "config.json", &silent, &s, &err)) {
        fuzz_refused(&err, ERR_INPUT);
        free(copy);
        return 0;
    }
    if (shape_check(&s, &err))
        fuzz_fail("accepted, but: %s", err.text);
    char *text = hf_config_write(copy, size, &s, NULL, &err);
    if (!text)
        fuzz_fail("accepted, but not written: %s", err.text);
    const char *differs = NULL;
    if (hf_config_read(text, strlen(text), "again", &silent, &again, &err))
        fuzz_fail("accepted, but not as written: %s\n%s", err.text, text);
    differs = shape_difference(&s, &again);
    if (differs)
        fuzz_fail("%s differs after it was written:\n%s", differs, text);
    free(text);
    free(copy);
    return 0;
}
