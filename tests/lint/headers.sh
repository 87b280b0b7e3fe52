#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# headers.sh [ROOT]: each header compiles alone and twice, with the flags of its folder.
# $DUSK_COMPILE is the compiler with its flags, $DUSK_CFLAGS_FOLDER what a folder adds,
# $DUSK_HEADERS_WITHOUT are those whose library is not there.
set -u
root=${1:-${srcdir:-.}}
folder=$(mktemp -d) || exit 99
trap 'rm -rf "$folder"' EXIT
bad=0
count=0
for header in $(cd "$root" && find src mpi io -name '*.h' | sort); do
    case " ${DUSK_HEADERS_WITHOUT-} " in *" $header "*) continue ;; esac
    case $header in
    src/config/*) flags=${DUSK_CFLAGS_CONFIG-} ;;
    src/gemm/*) flags=${DUSK_CFLAGS_GEMM-} ;;
    mpi/*) flags=${DUSK_CFLAGS_MPI-} ;;
    io/*) flags=${DUSK_CFLAGS_IO-} ;;
    *) flags= ;;
    esac
    printf '#include "%s"\n#include "%s"\nextern int not_empty;\n' "$header" "$header" \
        >"$folder/alone.c"
    # The flags are lists of words.
    # shellcheck disable=SC2086
    if ! ${DUSK_COMPILE:-cc -std=c17 -D_XOPEN_SOURCE=700} -I"$root" $flags -Werror \
        -fsyntax-only "$folder/alone.c"; then
        echo "$header: does not compile alone"
        bad=1
    fi
    count=$((count + 1))
done
echo "$count headers"
[ $count -gt 0 ] && exit $bad
exit 1
