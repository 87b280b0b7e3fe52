/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CLI_SCHEDULE_SVG_H
#define DUSK_CLI_SCHEDULE_SVG_H

#include "mpi/schedule_times.h"

/* Draws a table whose operations take `costs`, as simulated in `times`, as an SVG
 * picture: a row of boxes for each rank on a common axis of time, coloured by what is
 * computed, paler for later stages of the rank, gaps where it idles. `title`: a line above, XML-safe. The file
 * appears whole or not at all. -1 with err set (ERR_IO, ERR_OTHER). Local. */
int schedule_svg(const struct schedule *s, const struct schedule_costs *costs,
                 const struct schedule_times *times, const char *title,
                 const char *path, struct err *err);

#endif
