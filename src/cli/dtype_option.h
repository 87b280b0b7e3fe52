/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CLI_DTYPE_OPTION_H
#define DUSK_CLI_DTYPE_OPTION_H

/* --dtype keep|f32|bf16|f16 of the verbs that convert. Local. */

#include <stdbool.h>

#include "src/base/dtype.h"
#include "src/cli/options.h"

/* keep is what an absent --dtype means. `allowed` is for the message and the choice,
 * "keep|f32|bf16". 0, or -1 with err set (ERR_USAGE). */
int dtype_option(const struct options *o, const char *allowed, bool *keep,
                 enum dtype *dtype, struct err *err);

#endif
