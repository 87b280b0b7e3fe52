#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# layers.sh [ROOT]: holds the layering table of ROOT/HACKING.md against the #include
# lines of src, mpi and io. Prints each violation as file:line: text; exit 1 if any.
set -u
root=${1:-${srcdir:-.}}
cd "$root" || exit 99
if [ ! -f HACKING.md ]; then
    echo "$root/HACKING.md: not there, the layering table is in it"
    exit 99
fi

find src mpi io -type f \( -name '*.c' -o -name '*.h' -o -name '*.cc' \) | sort |
    xargs awk '
function trim(s) { gsub(/^[ \t]+|[ \t]+$/, "", s); return s }

# A shell pattern as a regular expression; "*" is the only special character.
function pattern(s) { gsub(/\./, "\\.", s); gsub(/\*/, ".*", s); return "^" s "$" }

function complain(text) { printf "%s:%d: %s\n", FILENAME, FNR, text; bad++ }

function read_table(    line, cell, names, n, i, folder, name) {
    while ((getline line < "HACKING.md") > 0) {
        if (line !~ /^\| *(src\/[a-z]+|mpi|io) *\|/)
            continue
        split(line, cell, "|")
        folder = trim(cell[2])
        name = folder
        sub(/^src\//, "", name)
        known[folder] = 1
        path[name] = folder
        may[folder, folder] = 1
        allowed[folder] = trim(cell[4])
        n = split(cell[5], names, "`")
        for (i = 2; i <= n; i += 2) {
            owners++
            owner[owners] = folder
            if (names[i] ~ /\(\)$/) {
                sub(/\(\)$/, "", names[i])
                call[owners] = "(^|[^A-Za-z0-9_])_?" names[i] "[ \t]*\\("
            } else
                header[owners] = pattern(names[i])
            token[owners] = names[i]
        }
    }
    for (folder in known) {
        folders++
        n = split(allowed[folder], names, " ")
        for (i = 1; i <= n; i++) {
            if (!(names[i] in path)) {
                printf "HACKING.md: %s may include %s, which is no folder of the table\n",
                    folder, names[i]
                bad++
            } else
                may[folder, path[names[i]]] = 1
        }
    }
    if (folders < 2) {
        print "HACKING.md: no layering table found"
        bad++
    }
}

# The line without comments; strings stay.
function code(s,    i, out) {
    out = ""
    while (s != "") {
        if (in_comment) {
            i = index(s, "*/")
            if (!i)
                return out
            s = substr(s, i + 2)
            in_comment = 0
        } else if (match(s, /\/\*|\/\//)) {
            out = out substr(s, 1, RSTART - 1)
            if (substr(s, RSTART, 2) == "//")
                return out
            s = substr(s, RSTART + 2)
            in_comment = 1
        } else
            return out s
    }
    return out
}

function check_project(name,    target) {
    target = name
    if (!sub(/\/[^\/]*$/, "", target) || !(target in known))
        complain("\"" name "\": expected a full path from the root, in a folder of the table")
    else if (!((folder, target) in may))
        complain(folder " may not include " target " (\"" name "\"); see HACKING.md")
}

function check_library(name,    k, listed, mine) {
    for (k = 1; k <= owners; k++) {
        if (!(k in header) || name !~ header[k])
            continue
        listed = 1
        if (owner[k] == folder)
            mine = 1
        else
            whose = owner[k]
    }
    if (listed && !mine)
        complain("<" name "> is for " whose " only; see HACKING.md")
    else if (!listed && name !~ libc)
        complain("<" name "> is neither of the C library nor in the table of HACKING.md")
}

BEGIN {
    read_table()
    libc = "^(assert|complex|cpuid|ctype|dirent|errno|execinfo|fcntl|fenv|float|fnmatch|" \
        "ftw|glob|immintrin|inttypes|libgen|limits|locale|malloc|math|omp|poll|pthread|" \
        "sched|setjmp|signal|spawn|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|" \
        "stdio|stdlib|string|strings|tgmath|time|unistd|wchar|x86intrin|" \
        "sys/[a-z]+)\\.h$|^[a-z_]+$"
}
FNR == 1 {
    in_comment = 0
    folder = FILENAME
    sub(/\/[^\/]*$/, "", folder)
    if (!(folder in known))
        complain(folder " is no folder of the table in HACKING.md")
}
{
    line = code($0)
    if (match(line, /^[ \t]*#[ \t]*include[ \t]*"[^"]*"/)) {
        split(line, part, "\"")
        check_project(part[2])
    } else if (match(line, /^[ \t]*#[ \t]*include[ \t]*<[^>]*>/)) {
        split(line, part, /[<>]/)
        check_library(part[2])
    } else {
        for (k = 1; k <= owners; k++)
            if ((k in call) && owner[k] != folder && line ~ call[k])
                complain(token[k] "() is for " owner[k] " only; see HACKING.md")
    }
}
END { exit bad > 0 }
'
code=$?
[ $code -eq 0 ] && echo "src, mpi and io keep to the table of HACKING.md"
[ $code -eq 0 ] || exit 1
