/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/slurm.h"

#include "src/base/duration.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The job's number, NULL if there is none or it is not one. */
static const char *job_id(void)
{
    const char *id = getenv("SLURM_JOB_ID");
    return id && *id && id[strspn(id, "0123456789")] == '\0' ? id : NULL;
}

bool slurm_job(void)
{
    return job_id();
}

bool slurm_time_left(double *seconds)
{
    char command[160], line[64] = "";
    const char *id = job_id();
    if (!id)
        return false;
    snprintf(command, sizeof command, "squeue -h -j %.20s -o %%L 2>/dev/null", id);
    FILE *f = popen(command, "r");
    if (!f)
        return false;
    if (!fgets(line, sizeof line, f))
        line[0] = '\0';
    pclose(f);
    line[strcspn(line, " \n")] = '\0';
    return duration_parse(line, seconds);
}

void slurm_requeue(const struct log *log)
{
    char command[160], line[256] = "";
    const char *id = job_id();
    if (!id) {
        log_warning(log, "run.requeue: this is no Slurm job, nothing is queued");
        return;
    }
    snprintf(command, sizeof command, "scontrol requeue %.20s 2>&1", id);
    FILE *f = popen(command, "r");
    if (f && !fgets(line, sizeof line, f))
        line[0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (f && pclose(f) == 0)
        log_line(log, "job %s is queued again", id);
    else
        log_warning(log, "run.requeue: scontrol requeue %s failed: %s", id, line);
}
