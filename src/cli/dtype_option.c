/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/dtype_option.h"

#include <string.h>

static const struct {
    const char *name;
    bool keep;
    enum dtype dtype;
} choices[] = {{"keep", true, DTYPE_F32},
               {"f32", false, DTYPE_F32},
               {"bf16", false, DTYPE_BF16},
               {"f16", false, DTYPE_F16}};

/* Is `name` one of the names in "a|b|c"? */
static bool among(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = list; n && at; at = strchr(at, '|')) {
        at += *at == '|';
        if (strncmp(at, name, n) == 0 && (at[n] == '|' || at[n] == '\0'))
            return true;
    }
    return false;
}

int dtype_option(const struct options *o, const char *allowed, bool *keep,
                 enum dtype *dtype, struct err *err)
{
    const char *text = options_text(o, "--dtype", "keep");
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if (strcmp(text, choices[i].name) == 0 && among(allowed, text)) {
            *keep = choices[i].keep;
            *dtype = choices[i].dtype;
            return 0;
        }
    return err_set(err, ERR_USAGE, "--dtype: expected %s, found \"%.40s\"", allowed,
                   text);
}
