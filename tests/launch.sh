#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# launch.sh PATH/NAME.N.mpi: runs the test program PATH/NAME on N ranks. A hang is
# stopped after DUSK_TEST_TIMEOUT seconds (300) and fails by name.
set -u
entry=$1
stem=${entry%.mpi}
ranks=${stem##*.}
program=${stem%.*}
limit=${DUSK_TEST_TIMEOUT:-300}

case $ranks in
'' | *[!0-9]*)
    echo "$entry: expected NAME.RANKS.mpi" >&2
    exit 99
    ;;
esac

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Open MPI itself leaks at exit; leaks of ours are found by the serial tests.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0"

mpirun=${MPIRUN:-mpirun}
set -- -n "$ranks" "$program"
if "$mpirun" --version 2>&1 | grep -qi 'open.*mpi\|open-mpi\|openrte'; then
    set -- --oversubscribe "$@"
fi
timeout -k 10 "$limit" "$mpirun" "$@" </dev/null
code=$?
if [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; then
    echo "$entry: hung: not done after $limit s on $ranks ranks" >&2
    exit 1
fi
exit "$code"
