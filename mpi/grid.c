/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/grid.h"

#include "src/base/check.h"

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

char *grid_describe(const struct grid *g)
{
    enum { LINE_BYTES = 384 }; /* a host name of 256 and four numbers */
    struct comm *world = g->world;
    int size = comm_size(world);
    char line[LINE_BYTES] = "";
    snprintf(line, sizeof line, "%d %s %d %d\n", comm_rank(world), comm_host(world),
             g->stage, g->replica);
    if (!comm_root(world)) {
        comm_send(world, line, sizeof line, 0);
        return NULL;
    }
    char *map = calloc((size_t)size, sizeof line);
    CHECK(map, "no memory for the map of %d ranks", size);
    size_t used = strlen(line);
    memcpy(map, line, used);
    for (int r = 1; r < size; r++) {
        comm_recv(world, line, sizeof line, r);
        size_t length = strlen(line);
        memcpy(map + used, line, length);
        used += length;
    }
    map[used] = '\0';
    return map;
}
