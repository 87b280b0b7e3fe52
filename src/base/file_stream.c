/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/file.h"

#include "src/base/mem.h"

#include <stdlib.h>
#include <unistd.h>

int file_stream_open(struct file_stream *s, const char *path, struct err *err)
{
    *s = (struct file_stream){0};
    s->path = mem_printf(err, "%s", path);
    s->temporary = s->path ? mem_printf(err, "%s.tmp-%ld", path, (long)getpid()) : NULL;
    if (s->temporary) {
        unlink(s->temporary); /* of a dead process with our number */
        s->to = fopen(s->temporary, "wx");
        if (s->to)
            return 0;
        err_set_errno(err, 0, "%s: cannot create", s->temporary);
    }
    free(s->path);
    free(s->temporary);
    *s = (struct file_stream){0};
    return -1;
}

int file_stream_close(struct file_stream *s, int failed, struct err *err)
{
    if (!failed && (fflush(s->to) || ferror(s->to) || fsync(fileno(s->to))))
        failed = err_set_errno(err, 0, "%s: cannot write", s->temporary);
    if (fclose(s->to) && !failed)
        failed = err_set_errno(err, 0, "%s: cannot close", s->temporary);
    if (!failed && rename(s->temporary, s->path))
        failed = err_set_errno(
            err, 0, "%s: cannot rename the finished file to this name", s->path);
    if (failed)
        unlink(s->temporary);
    else
        failed = file_sync_folder_of(s->path, err);
    free(s->path);
    free(s->temporary);
    *s = (struct file_stream){0};
    return failed ? -1 : 0;
}
