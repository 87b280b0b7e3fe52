/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_COMM_MPI_H
#define DUSK_MPI_COMM_MPI_H

/* The MPI side of mpi/comm.h, for those who include mpi.h: this folder, and the HDF5
 * code that must hand a communicator to the library. */

#include <mpi.h>

#include "mpi/comm.h"

/* Borrowed; MPI_COMM_NULL for comm_self(). Local. */
MPI_Comm comm_mpi(const struct comm *c);

/* Waits for all n requests; each becomes MPI_REQUEST_NULL. All waiting of the program
 * is here: where ranks outnumber cores, it tests and naps, because a rank that polls
 * keeps the one it waits for from running. Local. */
void comm_wait(const struct comm *c, int n, MPI_Request *requests);

#endif
