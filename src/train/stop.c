/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/stop.h"

#include <signal.h>
#include <stddef.h>
#include <stdio.h>

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

const char *stop_name(int why, char text[STOP_NAME])
{
    if (why == STOP_TIME)
        snprintf(text, STOP_NAME, "the time limit");
    else
        snprintf(text, STOP_NAME, "signal %d", why);
    return text;
}

bool stop_requeues(int why)
{
    return why == STOP_TIME || why == SIGUSR1;
}
