/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/duration.h"

#include <stdlib.h>
#include <string.h>

enum { PARTS = 3, DIGITS = 7 };

/* "1:02:3" into numbers; how many, or 0 for another text. */
static int parse_parts(const char *text, double part[PARTS])
{
    for (int n = 0; n < PARTS; n++) {
        size_t digits = strspn(text, "0123456789");
        if (digits < 1 || digits > DIGITS)
            return 0;
        part[n] = strtod(text, NULL);
        text += digits;
        if (*text == '\0')
            return n + 1;
        if (*text++ != ':')
            return 0;
    }
    return 0;
}

bool duration_parse(const char *text, double *seconds)
{
    const char *dash = strchr(text, '-');
    double part[PARTS] = {0}, days = 0;
    if (dash) {
        size_t digits = strspn(text, "0123456789");
        if (digits < 1 || digits > DIGITS - 1 || text + digits != dash)
            return false;
        days = strtod(text, NULL);
    }
    int n = parse_parts(dash ? dash + 1 : text, part);
    if (n == 0)
        return false;
    double s = 0;
    if (dash || n == PARTS) /* hours lead */
        s = 3600 * part[0] + 60 * part[1] + part[2];
    else
        s = 60 * part[0] + part[1];
    *seconds = 86400 * days + s;
    return *seconds > 0;
}
