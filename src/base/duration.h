/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_DURATION_H
#define DUSK_BASE_DURATION_H

/* A length of time as Slurm writes it (sbatch --time, squeue %L): "minutes",
 * "minutes:seconds", "hours:minutes:seconds", "days-hours", "days-hours:minutes" or
 * "days-hours:minutes:seconds". Local. */

#include <stdbool.h>

/* False for any other text, for more than 1e6 days, and for no time at all. */
bool duration_parse(const char *text, double *seconds);

#endif
