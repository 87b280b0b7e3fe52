#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The lints see what they are for: each planted violation fails, by name, and the same
# tree without one passes.
set -u
srcdir=$(cd "${srcdir:-.}" && pwd)
tree=$(mktemp -d) || exit 99
trap 'rm -rf "$tree"' EXIT
failed=0

fresh_tree() {
    rm -rf "$tree"
    mkdir -p "$tree"/src/base "$tree"/src/param "$tree"/src/model "$tree"/src/gemm \
        "$tree"/src/cli "$tree"/mpi "$tree"/io
    cp "$srcdir/HACKING.md" "$tree"
    echo '#include <stddef.h>' >"$tree/src/base/err.h"
    printf '#include "src/base/err.h"\n#include <string.h>\n' >"$tree/src/param/table.h"
    printf '#include "src/param/table.h"\n/* exit() and\n#include <mpi.h> are only named. */\n' \
        >"$tree/src/model/stage.c"
    printf '#include "src/base/err.h"\n#include <mpi.h>\n' >"$tree/mpi/comm.c"
    printf '#include "mpi/comm.h"\n#include <hdf5.h>\n' >"$tree/io/ckpt.c"
    printf '#include <sentencepiece_processor.h>\n#include <string>\n' >"$tree/io/spm.cc"
    printf '#include "io/ckpt.h"\nexit(2);\n' >"$tree/src/cli/main.c"
}

# planted LINT FILE TEXT EXPECTED: the lint fails and its output holds EXPECTED.
planted() {
    fresh_tree
    printf '%b\n' "$3" >>"$tree/$2"
    if output=$(sh "$srcdir/tests/lint/$1" "$tree" 2>&1); then
        echo "FAIL: $1 passes '$3' in $2"
        failed=1
    elif ! echo "$output" | grep -qF "$4"; then
        echo "FAIL: $1 on '$3' in $2 says, without \"$4\":"
        echo "$output"
        failed=1
    else
        echo "ok: $1 on '$3' in $2: $(echo "$output" | grep -F "$4" | head -1)"
    fi
}

fresh_tree
for lint in layers.sh headers.sh; do
    if ! sh "$srcdir/tests/lint/$lint" "$tree"; then
        echo "FAIL: $lint refuses the tree without a violation"
        failed=1
    fi
done

planted layers.sh src/model/stage.c '#include "mpi/comm.h"' 'src/model/stage.c:4: src/model may not include mpi'
planted layers.sh src/base/err.h '#include "src/param/table.h"' 'src/base may not include src/param'
planted layers.sh io/ckpt.c '#include "src/model/stage.h"' 'io may not include src/model'
planted layers.sh io/ckpt.c '  #  include "src/cli/verb.h"' 'io may not include src/cli'
planted layers.sh io/ckpt.c '#include <mpi.h>' '<mpi.h> is for mpi only'
planted layers.sh src/model/stage.c '/* */ #include <blis.h>' '<blis.h> is for src/gemm only'
planted layers.sh src/cli/main.c '#include <hdf5.h>' '<hdf5.h> is for io only'
planted layers.sh src/cli/main.c '#include <H5Ppublic.h>' 'is for io only'
planted layers.sh mpi/comm.c '#include <yaml.h>' '<yaml.h> is for src/config only'
planted layers.sh src/base/err.h '#include <sentencepiece_processor.h>' 'is for io only'
planted layers.sh src/base/err.h '#include <dnnl.h>' 'is for src/gemm only'
planted layers.sh src/param/table.h '    exit(1);' 'exit() is for src/cli only'
planted layers.sh src/param/table.h '    _exit (1);' 'exit() is for src/cli only'
planted layers.sh src/param/table.h '#include "err.h"' 'expected a full path from the root'
mkdir -p "$tree"
planted layers.sh src/odd.c 'int x;' 'src is no folder of the table'
planted headers.sh src/base/err.h 'extern struct absent *f(FILE *to);' 'src/base/err.h: does not compile alone'
planted headers.sh src/param/table.h 'enum { ONCE };' 'src/param/table.h: does not compile alone'

exit $failed
