/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_ATTENTION_TILE_H
#define DUSK_MODEL_ATTENTION_TILE_H

/* What the two passes of attention share: tiles, operands in the layouts that tile
 * products take (src/gemm/tile.h), scratch. Private to attention.
 *
 * The unit of work is a tile of queries, all heads of one kv head, and its keys come in
 * tiles of ATTENTION_KEYS. Queries are lanes: query row i of head h of the tile is lane
 * h x rows + i, lanes come in panels of TILE_COLS. A word is 4 bytes: a float, or two
 * bf16 that follow each other along the sum of the product that reads them; `step` is
 * the number of elements in a word. */

#include <string.h>

#include "src/gemm/tile.h"
#include "src/model/attention.h"

enum { ATTENTION_KEYS = 64 };

/* What follows from the dimensions. */
struct attention_shape {
    int group;     /* query heads of a kv head */
    int tile_rows; /* query rows of a tile */
    int step;      /* elements in a word */
    int words;     /* of a head's row: E / step */
    int wide;      /* E in whole TILE_ROWS */
    int slabs;     /* TILE_COLS columns each that hold E */
    float scale;   /* 1 / sqrt(E) */
};

struct attention_shape attention_shape_of(const struct attention_dims *d);

/* One thread's arrays, the same for every tile. "words" mean 4 bytes each. */
struct attention_scratch {
    int max_lanes;     /* a multiple of TILE_COLS */
    void *q;           /* [panels][words][TILE_COLS] queries, transposed */
    float *s;          /* [KEYS][TILE_COLS] one panel's scores */
    float *o;          /* [panels][wide][TILE_COLS] sums for the output, or for dq */
    void *k;           /* [KEYS][words] keys as they are */
    void *v;           /* forward: [KEYS / step][wide] values, steps of keys in a word;
                        * backward: [KEYS][words] as they are */
    bool *begun;       /* [panels] o has been written */
    int *first, *last; /* [lanes] places that a query sees */
    /* forward */
    void *p;          /* [KEYS / step][TILE_COLS] one panel's probabilities */
    float *max, *sum; /* [lanes] */
    /* backward */
    void *dout;                 /* as q */
    void *q_steps, *dout_steps; /* [slabs][lanes / step][TILE_COLS] */
    void *k_steps;              /* [KEYS / step][wide] */
    float *dp;                  /* as s */
    void *p_rows, *ds_rows;     /* [KEYS][max_lanes / step] of all panels */
    void *ds_steps;             /* as p */
    float *dk, *dv;             /* [slabs][KEYS][TILE_COLS] */
    float *lse, *delta;         /* [lanes] */
};

void attention_scratch_lay_out(struct attention_scratch *s, struct arena *a,
                               const struct attention_dims *d, int max_length,
                               bool backward);

/* A segment: rows [begin, end), and how many of the one before it sees as well. */
struct attention_span {
    int begin, end, prefix;
};

/* One tile of queries of one kv head, on one thread. Keys are told by their place: that
 * of a segment's own row is its number, and a prefix's rows have the places right in
 * front of the segment's first. */
struct attention_job {
    const struct attention_dims *d;
    const struct attention_input *x;
    const struct rows *of;
    struct attention_shape shape;
    struct attention_scratch scratch;
    struct attention_tile tile;
    struct attention_span own; /* the tile's segment */
    int before; /* first row of the segment before, where own has a prefix */
    gemm_tile_product *product;
    int kv_head, rows, lanes, panels; /* lanes: without the last panel's empty ones */
};

/* Threads that may work. */
int attention_team(const struct attention_work *w);

/* Segment s of the rows. */
struct attention_span attention_span_of(const struct rows *rows, int s);

/* Fills w->tile, in the order of their rows; the number of tiles. */
int attention_list_tiles(const struct attention_work *w, const struct attention_dims *d,
                         const struct rows *rows);

/* A job with the calling thread's scratch, its first and last filled. */
void attention_job_init(struct attention_job *j, const struct gemm *g,
                        const struct attention_dims *d, const struct attention_work *w,
                        const struct rows *rows, const struct attention_input *x,
                        bool backward);
void attention_job_start(struct attention_job *j, struct attention_tile tile,
                         int kv_head);

/* The key tiles [*begin, *end) that rows of the tile see: those of the prefix, then
 * those of the segment; tile n of either begins at its row n ATTENTION_KEYS, and none
 * goes beyond its end. */
void attention_key_tiles(const struct attention_job *j, int *begin, int *end);

/* Rows [row, row + keys) of the kv head of an array like k, with places from `key`. */
struct attention_keys {
    int key, row, keys;
    const void *x;
    int64_t stride;
};

struct attention_keys attention_keys_of(const struct attention_job *j, int tile,
                                        const void *x, int64_t stride);

/* [keys][words] as they are; a line of zeros follows where keys is odd. */
void attention_pack_keys(const struct attention_job *j, struct attention_keys from,
                         void *to);

/* [keys / step][wide], a word being the step's keys; zeros where there is no key and
 * beyond E. */
void attention_pack_key_steps(const struct attention_job *j, struct attention_keys from,
                              void *to);

/* x [rows, H E] with its stride into [panels][words][TILE_COLS]; empty lanes 0. */
void attention_pack_lanes(const struct attention_job *j, const void *x, int64_t stride,
                          void *to);

/* The same into [slabs][lanes / step][TILE_COLS], a word being the step's lanes. */
void attention_pack_lane_steps(const struct attention_job *j, const void *x,
                               int64_t stride, void *to);

/* from [panels][wide][TILE_COLS] times factor [lanes] into x [rows, H E]. */
void attention_unpack_lanes(const struct attention_job *j, const float *from,
                            const float *factor, int64_t stride, void *x);

/* Sums of x y along each lane's row, for arrays like q; empty lanes 0. */
void attention_dot_lanes(const struct attention_job *j, const void *x, const void *y,
                         int64_t stride, float *dot);

/* How many of the keys panel n has to do with: 0, or in whole steps those up to the
 * last that one of its lanes sees. *border: some lane does not see all of them. */
int attention_panel_keys(const struct attention_job *j, int panel,
                         struct attention_keys from, bool *border);

/* Sets those of the panel's scores [keys, TILE_COLS] to -inf that its lanes do not see,
 * and where whole steps have gone beyond the keys. */
void attention_mask_panel(const struct attention_job *j, int panel,
                          struct attention_keys from, int keys, float *s);

/* To bf16, to nearest even. NaNs made from bf16 values and by arithmetic have zeros in
 * their lower half and stay NaN. */
static inline uint16_t attention_round(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* keys in whole TILE_ROWS. */
static inline int attention_whole(int keys)
{
    return (keys + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
}

#endif
