/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_STOP_H
#define DUSK_TRAIN_STOP_H

/* The wish to stop: SIGTERM and SIGUSR1 set a flag that the training loop asks at each
 * step boundary and all ranks agree on. (The only global of the program: a handler has
 * no other way to speak.) Local. */

void stop_watch(void); /* installs the handlers */
int stop_signal(void); /* the signal that came, 0: none */

#endif
