/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_PROCESS_H
#define DUSK_BASE_PROCESS_H

/* When a process of this host was started. Local. */

/* Clock ticks since boot, by which a process is told from a later one with its number;
 * 0: not known. */
unsigned long long process_born(long pid);

/* Seconds that this process has lived; 0 if that is not known. */
double process_age_s(void);

#endif
