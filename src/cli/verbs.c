/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/verb.h"

#include <stdio.h>
#include <string.h>

/* One line a verb here, and its name in the table. */
extern const struct verb verb_import;
extern const struct verb verb_export;
extern const struct verb verb_upscale;
extern const struct verb verb_merge;
extern const struct verb verb_inspect;
extern const struct verb verb_diff;
extern const struct verb verb_tokens;
extern const struct verb verb_train;
extern const struct verb verb_eval;
extern const struct verb verb_check;
extern const struct verb verb_bench;

const struct verb *const verbs[] = {
    &verb_import, &verb_export, &verb_upscale, &verb_merge, &verb_inspect, &verb_diff,
    &verb_tokens, &verb_train,  &verb_eval,    &verb_check, &verb_bench,   NULL};

/* Does the text start with the place of the error in a run file or an override? Then
 * that comes first on the line, where editors look for it. */
static bool starts_with_place(const char *text)
{
    int line, column, used = 0;
    sscanf(text, "--set %*[^: ]: %n", &used);
    const char *colon = strchr(text, ':');
    if (!used && colon)
        sscanf(colon, ":%d:%d: %n", &line, &column, &used);
    return used > 0;
}

int verb_fail(const struct verb *v, const struct comm *world, const struct err *err)
{
    if (comm_root(world)) {
        fflush(stdout);
        if (starts_with_place(err->text))
            fprintf(stderr, "%s\n", err->text);
        else
            fprintf(stderr, "dusk %s: %s\n", v->name, err->text);
    }
    return err->code ? (int)err->code : ERR_OTHER;
}
