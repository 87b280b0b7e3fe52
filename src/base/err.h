/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_ERR_H
#define DUSK_BASE_ERR_H

/* One error: what went wrong, in one line that a user can act on.
 *
 * The text names the file, the place in it, what was expected, what was found and the
 * fix if known. The code is the program's exit code, so that the layer which knows why
 * it failed also says how the job script will see it. Functions return 0, or -1 with
 * the error set and no side effect left. All local. */

enum err_code {
    ERR_NONE = 0,
    ERR_OTHER = 1,    /* no memory, a bug that was caught */
    ERR_USAGE = 2,    /* command line or run file */
    ERR_INPUT = 3,    /* bad input file or checkpoint */
    ERR_IO = 4,       /* the disk or the file system */
    ERR_NUMERIC = 5,  /* NaN or Inf */
    ERR_WATCHDOG = 6, /* a rank was stuck */
    ERR_STOPPED = 75, /* stopped early, checkpoint committed: requeue */
    ERR_NO_REQUEUE = 93
};

struct err {
    enum err_code code;
    char text[1024];
};

/* Sets code and text (truncated to fit, control bytes as '?': names from files may be
 * in it); returns -1, for `return err_set(...)`. A second call replaces the first. */
int err_set(struct err *err, enum err_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As err_set for a failed system call: appends ": " and strerror(errno). The code is
 * ERR_IO, but ERR_INPUT where errno says that the file is not there or may not be read
 * (ENOENT, ENOTDIR, EISDIR, EACCES, ELOOP, ENAMETOOLONG) and `reading` is nonzero. */
int err_set_errno(struct err *err, int reading, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " in front of the text; returns -1. */
int err_prefix(struct err *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
