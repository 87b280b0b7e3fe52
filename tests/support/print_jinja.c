/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the built-in chat templates as jinja: {"plain": {NAME: TEXT}, "marked": ...},
 * the file tests/oracle/align/chat_templates.json, which check_templates.py shows to
 * transformers. */

#include "src/base/json.h"
#include "src/objective/template.h"

#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    struct json j = {0};
    struct err err = {0};
    json_begin(&j, NULL, '{');
    for (int marks = 0; marks < 2; marks++) {
        json_begin(&j, marks ? "marked" : "plain", '{');
        for (int i = 0; template_builtin(i); i++) {
            struct template *t =
                template_create(template_builtin(i), "<s>", "</s>", &err);
            char *jinja = t ? template_jinja(t, marks, &err) : NULL;
            if (jinja)
                json_text(&j, template_name(t), jinja);
            free(jinja);
            template_destroy(t);
        }
        json_end(&j, '}');
    }
    json_end(&j, '}');
    puts(j.text);
    json_fini(&j);
    return 0;
}
