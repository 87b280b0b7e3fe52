/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_MPX_H
#define DUSK_MPI_MPX_H

/* MPX(call): an MPI call that must succeed. A failure of MPI itself is nothing that the
 * program can mend: MPX prints rank, call, place and MPI's reason on stderr and aborts
 * the job. For use inside mpi/ and the parallel parts of io/ only. */

#include <mpi.h>

#define MPX(call)                                                                      \
    do {                                                                               \
        int mpx_code = (call);                                                         \
        if (mpx_code != MPI_SUCCESS)                                                   \
            mpx_failed(mpx_code, #call, __FILE__, __LINE__);                           \
    } while (0)

_Noreturn void mpx_failed(int code, const char *call, const char *file, int line);

#endif
