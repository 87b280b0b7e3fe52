/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_ACCOUNT_FIGURES_H
#define DUSK_TRAIN_ACCOUNT_FIGURES_H

/* What a step's times on all ranks come to. Pure, local. */

#include <stddef.h>
#include <stdint.h>

#include "mpi/schedule_times.h"
#include "src/base/json.h"

/* A rank's seconds, in parts that add up to the step. */
enum account_part {
    ACCOUNT_FORWARD,
    ACCOUNT_BACKWARD, /* where the schedule does not split it, with weight gradients */
    ACCOUNT_WEIGHT,
    ACCOUNT_OPTIMIZER,    /* the update without its waits */
    ACCOUNT_MESSAGE_WAIT, /* for messages between stages */
    ACCOUNT_REDUCE_WAIT,  /* of the update: gradients, norm, weights */
    ACCOUNT_IDLE,         /* all the rest: data, the loss of all ranks, waiting for a
                             rank that is late */
    ACCOUNT_PARTS
};

extern const char *const account_part_names[ACCOUNT_PARTS]; /* "message_wait" */

/* What a rank tells of a step: doubles only, as they travel. */
struct account_rank {
    double part[ACCOUNT_IDLE]; /* seconds; what they leave of the step is idle */
    double exposed_s;          /* of message waits (mpi/trace.h) */
    double begin_s, end_s;     /* of the pass, shared time: first operation's begin,
                                  last one's end */
};
enum { ACCOUNT_FIELDS = sizeof(struct account_rank) / sizeof(double) };

struct account_figures {
    double step_s;
    double part[ACCOUNT_PARTS]; /* seconds, means over the ranks */
    double bubble;         /* share of a pipeline's pass, from the first operation's
                              begin to the last one's end, in which its stages compute
                              nothing; mean over the pipelines */
    double bubble_ideal;   /* the same of the table if all stages took this step's
                              mean times of an operation and messages none */
    double imbalance;      /* computing of the slowest rank / mean over the ranks */
    double exposed;        /* share of the step, mean over the ranks */
    int slowest;           /* the rank that computes longest */
    int64_t slowest_steps; /* how often it was, of... */
    int64_t steps;         /* ...this job's steps so far */
};

/* Fills all but bubble_ideal, slowest_steps and steps from pipeline x data ranks (rank
 * = replica * pipeline + stage). */
void account_figures(const struct account_rank *rank, int pipeline, int data,
                     double step_s, struct account_figures *f);

/* Mean times of an operation, for pricing a table with so many of a kind on a rank. */
struct schedule_costs account_costs(const struct account_figures *f, int operations);

/* Adds "time/PART", "bubble", "bubble_ideal", "imbalance", "slowest_rank",
 * "slowest_steps" and "exposed" to the object under way. */
void account_json(const struct account_figures *f, struct json *j);

/* One line for people. */
void account_describe(const struct account_figures *f, char *text, size_t size);

#endif
