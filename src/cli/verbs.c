/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/verb.h"

#include <stdio.h>

/* One line a verb here, and its name in the table. */
extern const struct verb verb_import;
extern const struct verb verb_export;
extern const struct verb verb_upscale;
extern const struct verb verb_inspect;
extern const struct verb verb_diff;
extern const struct verb verb_tokens;
extern const struct verb verb_train;
extern const struct verb verb_eval;
extern const struct verb verb_check;
extern const struct verb verb_bench;

const struct verb *const verbs[] = {
    &verb_import, &verb_export, &verb_upscale, &verb_inspect, &verb_diff, &verb_tokens,
    &verb_train,  &verb_eval,   &verb_check,   &verb_bench,   NULL};

int verb_fail(const struct verb *v, const struct comm *world, const struct err *err)
{
    if (comm_root(world)) {
        fflush(stdout);
        fprintf(stderr, "dusk %s: %s\n", v->name, err->text);
    }
    return err->code ? (int)err->code : ERR_OTHER;
}
