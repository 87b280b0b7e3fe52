/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_STOP_H
#define DUSK_TRAIN_STOP_H

/* The wish to stop: SIGTERM and SIGUSR1 set a flag that the training loop asks at each
 * step boundary, and between the rounds of a validation, and all ranks agree on. (The
 * only global of the program: a handler has no other way to speak.) Local. */

#include <stdbool.h>

/* Why to stop, as one number, of which the ranks take the largest. */
enum { STOP_NOT = 0, /* 1 to 64: a signal */ STOP_TIME = 128 };

void stop_watch(void); /* installs the handlers */
int stop_signal(void); /* the signal that came, 0: none */

/* "signal 10", "the time limit". */
enum { STOP_NAME = 32 };
const char *stop_name(int why, char text[STOP_NAME]); /* text */

/* May the job be queued again for it (run.requeue)? Not after SIGTERM, which is also
 * how jobs are cancelled. */
bool stop_requeues(int why);

#endif
