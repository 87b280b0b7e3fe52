/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_MEMORY_PLAN_H
#define DUSK_TRAIN_MEMORY_PLAN_H

/* Where each rank's memory will go, before any is taken: the same arithmetic that
 * creation uses, for any rank of any layout, without MPI. A run holds to it: nothing is
 * taken in a step. */

#include <stdint.h>

#include "src/base/log.h"
#include "src/train/engine.h"

enum memory_kind {
    MEMORY_WEIGHTS,
    MEMORY_PACKED, /* copies of the matrices in the product's own format */
    MEMORY_GRADIENTS,
    MEMORY_MASTERS, /* what bf16 weights lack of their fp32 masters, owned elements */
    MEMORY_MOMENTS, /* of owned elements */
    MEMORY_ACTIVATIONS,   /* of micro-batches in flight, what waits for weight gradients
                             among it */
    MEMORY_WORKSPACES,    /* scratch of operations, tables, of products */
    MEMORY_EVALUATION,    /* what a forward pass needs beside the weights */
    MEMORY_COMMUNICATION, /* messages between stages, pieces between replicas */
    MEMORY_DATA,          /* tokens of a step */
    MEMORY_TIMES,         /* what the run keeps of its steps' times */
    MEMORY_PROCESS,       /* program, libraries, their buffers: an estimate */
    MEMORY_KINDS
};

struct memory_plan {
    int replica;
    char stages[64];  /* of this rank, "0,7", and their layers, "0:2,14:16"; */
    char layers[128]; /* cut where there are many */
    int slots;        /* micro-batches in flight, in all its stages together */
    int waiting;      /* of these between the halves of a backward pass */
    int64_t bytes[MEMORY_KINDS];
};

const char *memory_kind_name(enum memory_kind k); /* "weights" */
int64_t memory_plan_total(const struct memory_plan *p);

/* The plan of `rank` of `ranks`; spec's data 0 is ranks / pipeline. gemm: for the
 * formats of its packed copies. -1 with err set (ERR_USAGE) for a layout that cannot
 * be. Pure. */
int memory_plan(const struct engine_spec *spec, int ranks, int rank,
                const struct gemm *gemm, struct memory_plan *plan, struct err *err);

/* The largest total of all ranks, and their sum if not NULL; -1 with err set. */
int64_t memory_plan_largest(const struct engine_spec *spec, int ranks,
                            const struct gemm *gemm, int64_t *sum, struct err *err);

/* Sets spec->packing to as many packed copies as fit, at most what it is; a second copy
 * for own kernels only where it leaves half of what a host has free: it saves 1 % of a
 * step's time, and costs as much as the weights. Refuses a run that the memory of
 * some host cannot hold even without (ERR_USAGE): numbers, and the smallest change of
 * micro-batch or stages that fits. spec->data is not 0. Ranks of
 * a host share what it has available, or `node_bytes` if that is not 0. Call it before
 * memory is taken. Collective over world. */
int memory_plan_admit(struct comm *world, struct engine_spec *spec, int64_t node_bytes,
                      const struct gemm *gemm, struct memory_plan *mine,
                      struct err *err);

/* "weights 1.40 GB, gradients 2.80 GB, ...": kinds below 0.5 % left out. */
void memory_plan_describe(const struct memory_plan *p, char *text, size_t size);

#endif
