/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/mpx.h"

#include "src/base/err.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void mpx_failed(int code, const char *call, const char *file, int line)
{
    char reason[MPI_MAX_ERROR_STRING] = "", host[MPI_MAX_PROCESSOR_NAME] = "";
    int size = 0, rank = -1, started = 0;
    MPI_Initialized(&started);
    if (started) {
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        MPI_Get_processor_name(host, &size);
        MPI_Error_string(code, reason, &size);
    }
    fprintf(stderr, "dusk: rank %d (%s): MPI failed at %s:%d: %s: %s\n", rank, host,
            file, line, call, reason);
    fflush(stderr);
    if (started)
        MPI_Abort(MPI_COMM_WORLD, ERR_OTHER);
    abort();
}
