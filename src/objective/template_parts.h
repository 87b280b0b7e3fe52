/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OBJECTIVE_TEMPLATE_PARTS_H
#define DUSK_OBJECTIVE_TEMPLATE_PARTS_H

/* What template.c and template_jinja.c share. */

#include "src/objective/template.h"

struct template
{
    struct template_spec spec;  /* its strings are owned; parts as described */
    char *text[TEMPLATE_PARTS]; /* the parts with the pieces put in; owned */
    size_t bytes[TEMPLATE_PARTS];
};

#endif
