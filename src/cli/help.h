/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CLI_HELP_H
#define DUSK_CLI_HELP_H

/* Text for people from the verbs' own descriptions: --help on a terminal and the man
 * page say the same. All local, to `to`. */

#include <stdio.h>

#include "src/cli/verb.h"

void help_program(FILE *to); /* dusk --help */
void help_verb(FILE *to, const struct verb *v);
void help_man(FILE *to); /* dusk.1, in man(7) macros */

#endif
