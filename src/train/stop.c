/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/stop.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t caught;

static void remember(int signal)
{
    caught = signal;
}

void stop_watch(void)
{
    struct sigaction action = {.sa_handler = remember, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

int stop_signal(void)
{
    return caught;
}
