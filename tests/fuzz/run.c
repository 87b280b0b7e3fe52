/* SPDX-License-Identifier: Apache-2.0 */
/* A run file: what is accepted is the same after it was written again. */
#include "src/config/run.h"

#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run r, back;
    struct err err = {0};
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (run_parse(&r, "run.yaml", text, &err)) {
        fuzz_refused(&err, ERR_USAGE);
        free(text);
        return 0;
    }
    char *resolved = run_format(&r, &err);
    if (!resolved)
        fuzz_fail("accepted, but not written: %s", err.text);
    if (run_parse(&back, "resolved", resolved, &err))
        fuzz_fail("accepted, but not as resolved: %s\n%s", err.text, resolved);
    char *again = run_format(&back, &err);
    if (!again || strcmp(resolved, again) != 0)
        fuzz_fail("resolved twice:\n%s\nis\n%s", resolved, again ? again : err.text);
    free(again);
    free(resolved);
    run_fini(&back);
    run_fini(&r);
    free(text);
    return 0;
}
