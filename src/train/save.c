/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/save.h"

#include "io/sealed.h"
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/train/weights.h"

#include <stdlib.h>

static void describe(struct ckpt_info *info, const struct engine *e,
                     const struct position *at)
{
    info->shape = *engine_shape(e);
    info->optimizer = true;
    for (int r = 0; r < ROLES; r++) {
        info->dtype[r] = DTYPE_F32;
        free(info->layer_dtype[r]);
        info->layer_dtype[r] = NULL;
    }
    info->step = at->step;
    info->samples = at->samples;
    info->tokens = at->tokens;
    info->adam_t = at->adam_t;
    info->skipped = at->skipped;
    info->skipped_in_a_row = at->skipped_in_a_row;
}

/* Reads the new checkpoint back, each rank a share. */
static int read_back(const char *path, struct comm *world, struct err *err)
{
    char *file = file_join(path, "state.h5", err);
    int failed = comm_agree(world, !file, err) || sealed_check(world, file, err);
    free(file);
    if (!failed)
        return 0;
    err->code = ERR_IO;
    return err_prefix(err, "what was saved does not read back, older ones stay");
}

static int tidy(const char *dir, const char *path, const struct retention *what,
                struct comm *world, struct err *err)
{
    struct checkpoints old = {0};
    int failed = comm_root(world) && checkpoints_surplus(&old, dir, what, err);
    if (comm_agree(world, failed, err))
        return -1;
    int64_t n = old.n;
    comm_bcast(world, &n, sizeof n, 0);
    failed = n > 0 && read_back(path, world, err);
    if (!failed && comm_root(world))
        failed = checkpoints_link(dir, "latest", what->newest, err) ||
                 (what->best == what->newest &&
                  checkpoints_link(dir, "best", what->best, err)) ||
                 checkpoints_remove(dir, &old, err);
    checkpoints_fini(&old);
    return comm_agree(world, failed, err);
}

/* Writes the checkpoint folder `path`, which may be NULL with err set. */
static int write(struct engine *e, const char *path, struct ckpt_info *info,
                 const struct position *at, struct err *err)
{
    struct comm *world = engine_grid(e)->world;
    describe(info, e, at);
    if (comm_agree(world, !path, err))
        return -1;
    struct ckpt_writer *w = ckpt_create(world, path, true, true, info, err);
    if (!w)
        return -1;
    if (comm_agree(world, weights_save(e, w, err), err)) {
        ckpt_abort(w);
        return -1;
    }
    return ckpt_commit(w, err);
}

int64_t save_bytes(const struct engine *e)
{
    const struct model_shape *s = engine_shape(e);
    int64_t all = table_elements(s);
    return 4 * all + 8 * (all - freeze_count(engine_freeze(e), s).elements);
}

int save_state(struct engine *e, const char *dir, struct ckpt_info *info,
               const struct position *at, const struct retention *what,
               const struct log *log, struct err *err)
{
    double start_s = clock_s();
    char *path = checkpoints_path(dir, at->step, err);
    int failed = write(e, path, info, at, err) ||
                 tidy(dir, path, what, engine_grid(e)->world, err);
    if (!failed) {
        double bytes = (double)save_bytes(e), spent_s = clock_s() - start_s;
        log_line(log, "saved %s: %.3f GB in %.2f s, %.2f GB/s", path, bytes * 1e-9,
                 spent_s, bytes * 1e-9 / spent_s);
    }
    free(path);
    return failed ? -1 : 0;
}

int save_nonfinite(struct engine *e, const char *dir, struct ckpt_info *info,
                   const struct position *at, const struct log *log, struct err *err)
{
    char *step = checkpoints_path(dir, at->step, err);
    char *path = step ? mem_printf(err, "%s-nonfinite", step) : NULL;
    int failed = write(e, path, info, at, err);
    if (!failed)
        log_line(log, "saved %s, the weights before the updates that were skipped",
                 path);
    free(step);
    free(path);
    return failed ? -1 : 0;
}
