/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OBJECTIVE_PREFERENCE_H
#define DUSK_OBJECTIVE_PREFERENCE_H

/* Losses of preference tuning (DPO and its kin) on one pair of answers to one prompt,
 * with their derivatives. Equal to TRL 1.16's. Pure, double precision, local.
 *
 * A model enters by the sums of log-probabilities that it gives to the tokens of the
 * chosen and of the rejected answer, in nats. With c and r these sums, policy minus
 * reference (the log-ratios), Nc and Nr the counted tokens, b the setting beta, e its
 * label_smoothing, S the logistic function, s(x) = -log S(x), x = b (c - r):
 *
 *   sigmoid       s(x)                               DPO, arXiv 2305.18290, eq. 7
 *     with e > 0  (1-e) s(x) + e s(-x)               cDPO [1]
 *     rpo_alpha   + rpo_alpha times sft              RPO, arXiv 2404.19733, eq. 1 [2]
 *   ipo           (c/Nc - r/Nr - 1/(2b))^2           arXiv 2310.12036, eq. 17 [3]
 *   hinge         max(0, 1 - x)                      SLiC, arXiv 2305.10425 [4]
 *   robust        ((1-e) s(x) - e s(-x)) / (1-2e)    arXiv 2403.00409
 *   sft           -log p of the chosen tokens        [2]
 *   apo_zero      1 - S(bc) + S(br)                  arXiv 2408.06266, eq. 7
 *   apo_down      S(bc) + 1 - S(x)                   arXiv 2408.06266, eq. 8
 *   sppo_hard     (c - 1/(2b))^2 + (r + 1/(2b))^2    arXiv 2405.00675, eq. 4.7 [5]
 *   exo_pair      S(x) log(S(x)/(1-e))               arXiv 2402.00856, eq. 16
 *                 + S(-x) log(S(-x)/e)
 *   nca_pair      s(bc) + s(-bc)/2 + s(-br)/2        arXiv 2402.05369
 *   sigmoid_norm  s(b (c/Nc - r/Nr))                 Tulu 3, arXiv 2411.15124
 *   discopop      (1-m) s(x) + m exp(-x),            arXiv 2406.08414, eq. 5
 *                 m = S(x/discopop_tau)
 *
 *   [1] E. Mitchell, A note on DPO with noisy preferences and relationship to IPO
 *   [2] The mean over all chosen tokens of the step, as in TRL, not over an answer's
 *   [3] By mean log-ratios of the tokens, as in TRL (there: as its authors meant it)
 *   [4] With ratios to the reference: arXiv 2309.06657
 *   [5] With preference probabilities 1 and 0
 *
 * The loss of a step is the mean over its pairs, but for sft: that is one mean over the
 * chosen tokens of the whole step, so that it does not depend on the cut into
 * micro-batches (in TRL it does). Nothing overflows while sums and ratios are within
 * 1e4 and the settings pass their check. A NaN in what a loss reads
 * stays NaN. */

#include <stdint.h>

#include "src/base/err.h"

enum preference_loss {
    PREFERENCE_SIGMOID,
    PREFERENCE_IPO,
    PREFERENCE_HINGE,
    PREFERENCE_ROBUST,
    PREFERENCE_SFT,
    PREFERENCE_APO_ZERO,
    PREFERENCE_APO_DOWN,
    PREFERENCE_SPPO_HARD,
    PREFERENCE_EXO_PAIR,
    PREFERENCE_NCA_PAIR,
    PREFERENCE_SIGMOID_NORM,
    PREFERENCE_DISCOPOP,
    PREFERENCE_LOSSES
};

/* TRL's names, "sigmoid" first; in the order of the enum. */
extern const char *const preference_names[PREFERENCE_LOSSES];

/* The loss of this name. -1: none has it; ERR_USAGE, with the closest or all names. */
int preference_find(const char *name, enum preference_loss *loss, struct err *err);

struct preference_settings {
    enum preference_loss loss;
    double beta;            /* 1e-9 to 1e9 */
    double label_smoothing; /* sigmoid, robust [0, 0.5), exo_pair (0, 0.5); else 0 */
    double rpo_alpha;       /* sigmoid: weight of sft, 0 to 1e9; else 0 */
    double discopop_tau;    /* discopop: 1e-9 to 1; 0.05 in the paper; else not read */
};

/* -1 with ERR_USAGE, the key's name first, for a value that is outside of the ranges
 * above: not a number, or a setting that this loss would ignore. */
int preference_check(const struct preference_settings *s, struct err *err);

struct preference_pair {
    double policy_chosen, policy_rejected;       /* sums over counted tokens, nats */
    double reference_chosen, reference_rejected; /* likewise; 0: without a reference */
    int64_t chosen_tokens, rejected_tokens;      /* counted; of 0 a mean divides by 1 */
};

/* What a step's means divide by, over all ranks and micro-batches. One pair alone:
 * {1, its chosen_tokens}. */
struct preference_step {
    int64_t pairs;         /* >= 1 */
    int64_t chosen_tokens; /* sum over the pairs; of 0 a mean divides by 1 */
};

/* Shares of a pair in the loss of its step: these sum up over the pairs to the step's
 * loss and its derivatives. The step's loss changes with the log-probability of each
 * token of the chosen answer by d_chosen + d_chosen_token, of the rejected one by
 * d_rejected. */
struct preference_share {
    double loss;
    double d_chosen, d_rejected;           /* by the policy's sums; sft left out */
    double d_chosen_token;                 /* by each chosen token, of sft alone */
    double reward_chosen, reward_rejected; /* b c, b r: of the pair, not divided */
};

/* The settings have passed preference_check. */
struct preference_share preference_pair_share(const struct preference_settings *s,
                                              const struct preference_step *step,
                                              const struct preference_pair *pair);

#endif
