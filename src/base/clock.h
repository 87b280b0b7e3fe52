/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_CLOCK_H
#define DUSK_BASE_CLOCK_H

/* Monotonic seconds since an arbitrary start. Local. */
double clock_s(void);

#endif
