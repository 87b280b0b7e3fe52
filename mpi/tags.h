/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_TAGS_H
#define DUSK_MPI_TAGS_H

/* Every tag of a point-to-point message, so that no two uses can take each other's. */

enum tag {
    TAG_SETUP = 1,     /* comm_send, comm_recv */
    TAG_FORWARD,       /* runner: activations, to the next stage */
    TAG_BACKWARD,      /* runner: their gradients, to the stage before */
    TAG_REDUCE,        /* exchange: gradients, to the owner of the elements */
    TAG_GATHER,        /* exchange: weights, from their owner */
    TAG_TIED_GRADIENT, /* zero: the tied head's gradient, to the embedding's stage */
    TAG_TIED_WEIGHT    /* zero: the tied weight, to the head's stage */
};

#endif
