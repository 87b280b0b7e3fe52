/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_tied.h"

#include "src/base/file.h"
#include "src/base/mem.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { PIECE_BYTES = 1 << 20 };

static int differ(const char *head_path, struct err *err)
{
    return err_set(err, ERR_INPUT,
                   "%s: lm_head.weight differs from model.embed_tokens.weight, but "
                   "config.json says tie_word_embeddings true: set it to false, or "
                   "remove lm_head.weight",
                   head_path);
}

static int compare(int fd_a, const char *path_a, int64_t at_a, int fd_b,
                   const char *path_b, int64_t at_b, int64_t bytes, char *room,
                   struct err *err)
{
    for (int64_t done = 0; done < bytes; done += PIECE_BYTES) {
        size_t n =
            (size_t)(bytes - done < PIECE_BYTES ? bytes - done : (int64_t)PIECE_BYTES);
        if (file_pread(fd_a, path_a, room, n, at_a + done, err) ||
            file_pread(fd_b, path_b, room + PIECE_BYTES, n, at_b + done, err))
            return -1;
        if (memcmp(room, room + PIECE_BYTES, n) != 0)
            return differ(path_b, err);
    }
    return 0;
}

int hf_tied_compare(const char *embed_path, const struct hf_place *embed,
                    const char *head_path, const struct hf_place *head,
                    int64_t elements, struct err *err)
{
    if (embed->dtype != head->dtype)
        return differ(head_path, err);
    int64_t bytes = elements * (int64_t)dtype_bytes(embed->dtype);
    char *room = mem_array(2, PIECE_BYTES, err);
    if (!room)
        return -1;
    int rc = -1, a = open(embed_path, O_RDONLY | O_CLOEXEC), b = -1;
    if (a < 0) {
        err_set_errno(err, 1, "%s", embed_path);
        goto out;
    }
    b = open(head_path, O_RDONLY | O_CLOEXEC);
    if (b < 0) {
        err_set_errno(err, 1, "%s", head_path);
        goto out;
    }
    rc = compare(a, embed_path, embed->offset, b, head_path, head->offset, bytes, room,
                 err);
out:
    if (a >= 0)
        close(a);
    if (b >= 0)
        close(b);
    mem_free(room);
    return rc;
}
