/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/grid.h"

#include "src/base/check.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int grid_init(struct grid *g, struct comm *world, int pipeline, int data,
              struct err *err)
{
    int size = comm_size(world), rank = comm_rank(world);
    memset(g, 0, sizeof *g);
    if (pipeline < 1 || data < 0)
        return err_set(err, ERR_USAGE,
                       "parallel: pipeline %d and data %d: expected at least 1 each",
                       pipeline, data);
    if (data == 0 && size % pipeline)
        return err_set(err, ERR_USAGE,
                       "parallel: %d ranks are not a multiple of pipeline %d: start a "
                       "multiple of it",
                       size, pipeline);
    if (data == 0)
        data = size / pipeline;
    if ((int64_t)pipeline * data != size)
        return err_set(err, ERR_USAGE,
                       "parallel: pipeline %d x data %d needs %lld ranks, but %d %s "
                       "started",
                       pipeline, data, (long long)pipeline * data, size,
                       size == 1 ? "was" : "were");
    g->pipeline = pipeline;
    g->data = data;
    g->stage = rank % pipeline;
    g->replica = rank / pipeline;
    g->head_at = pipeline - 1;
    g->world = world;
    g->pipe_axis = comm_split(world, g->replica, g->stage);
    g->data_axis = comm_split(world, g->stage, g->replica);
    return 0;
}

void grid_fini(struct grid *g)
{
    comm_free(g->pipe_axis);
    comm_free(g->data_axis);
    g->pipe_axis = g->data_axis = NULL;
}

static void describe_rank(const struct grid *g, int n, const int *stages, char *line,
                          size_t size)
{
    size_t used = (size_t)snprintf(line, size, "%d %s ", comm_rank(g->world),
                                   comm_host(g->world));
    for (int i = 0; i < n; i++)
        used +=
            (size_t)snprintf(line + used, size - used, "%s%d", i ? "," : "", stages[i]);
    snprintf(line + used, size - used, " %d\n", g->replica);
}

char *grid_describe(const struct grid *g, int n, const int *stages)
{
    enum { LINE_BYTES = 384, STAGE_BYTES = 12 }; /* a host name of 256 and numbers */
    struct comm *world = g->world;
    size_t size = (size_t)comm_size(world);
    size_t line_bytes = LINE_BYTES + STAGE_BYTES * (size_t)n;
    bool root = comm_root(world);
    char *map = calloc(root ? size : 1, line_bytes), *line = calloc(1, line_bytes);
    CHECK(map && line, "no memory for the map of %zu ranks", size);
    describe_rank(g, n, stages, root ? map : line, line_bytes);
    if (!root) {
        comm_send(world, line, line_bytes, 0);
        free(line);
        free(map);
        return NULL;
    }
    size_t used = strlen(map);
    for (int r = 1; r < (int)size; r++) {
        comm_recv(world, line, line_bytes, r);
        size_t length = strlen(line);
        memcpy(map + used, line, length);
        used += length;
    }
    map[used] = '\0';
    free(line);
    return map;
}
