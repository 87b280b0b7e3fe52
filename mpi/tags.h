/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_TAGS_H
#define DUSK_MPI_TAGS_H

/* Every tag of a point-to-point message, so that no two uses can take each other's. */

enum tag {
    TAG_SETUP = 1,     /* comm_send, comm_recv */
    TAG_REDUCE,        /* exchange: gradients, to the owner of the elements */
    TAG_GATHER,        /* exchange: weights, from their owner */
    TAG_TIED_GRADIENT, /* zero: the tied head's gradient, to the embedding's stage */
    TAG_TIED_WEIGHT,   /* zero: the tied weight, to the head's stage */
    /* runner; these two + TAG_CHUNK times the receiving stage's place among its rank's
     */
    TAG_FORWARD, /* activations, to the next stage */
    TAG_BACKWARD /* their gradients, to the stage before */
};

/* A rank has at most TAG_CHUNKS stages, so that tags end below the 32767 that every MPI
 * has. */
enum { TAG_CHUNK = 2, TAG_CHUNKS = 16000 };

#endif
