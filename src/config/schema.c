/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/schema.h"

#include <string.h>

#define AT(field) offsetof(struct run, field)

/* Bounds of counts: far above any use, and products of three stay inside 63 bits. */
#define COUNT_MAX 1048576.0
#define STEPS_MAX 1e12
#define TOKENS_MAX 1e18
#define RANKS_MAX 65536.0
#define LAYERS_MAX 65536.0
#define CHUNKS_MAX 1024.0

static const char *const objectives[] = {
    [RUN_PRETRAIN] = "pretrain", [RUN_SFT] = "sft", [RUN_DPO] = "dpo", NULL};
static const char *const losses[] = {
    "sigmoid",      "ipo",      "hinge",     "robust",   "sft",
    "apo_zero",     "apo_down", "sppo_hard", "exo_pair", "nca_pair",
    "sigmoid_norm", "discopop", NULL};
static const char *const precisions[] = {
    [RUN_FP32] = "fp32", [RUN_BF16] = "bf16", NULL};
static const char *const products[] = {[RUN_PRODUCTS_AUTO] = "auto",
                                       [RUN_PRODUCTS_GENERIC] = "generic",
                                       [RUN_PRODUCTS_AVX2] = "avx2",
                                       [RUN_PRODUCTS_AVX512] = "avx512",
                                       [RUN_PRODUCTS_AVX512_BF16] = "avx512_bf16",
                                       [RUN_PRODUCTS_AMX_BF16] = "amx_bf16",
                                       NULL};
static const char *const schedules[] = {[RUN_CONSTANT] = "constant",
                                        [RUN_LINEAR] = "linear",
                                        [RUN_COSINE] = "cosine",
                                        [RUN_WSD] = "wsd",
                                        NULL};
static const char *const decay_shapes[] = {[RUN_DECAY_COSINE] = "cosine",
                                           [RUN_DECAY_LINEAR] = "linear",
                                           [RUN_DECAY_SQRT] = "sqrt",
                                           NULL};
static const char *const on_errors[] = {
    [RUN_STOP] = "stop", [RUN_CONTINUE] = "continue", NULL};
static const char *const optimizers[] = {
    [RUN_RESET] = "reset", [RUN_MAP] = "map", NULL};
static const char *const pipes[] = {
    [RUN_GPIPE] = "gpipe", [RUN_1F1B] = "1f1b", [RUN_INTERLEAVED] = "interleaved",
    [RUN_ZB_H1] = "zb-h1", [RUN_ZB_V] = "zb-v", NULL};

const struct key schema_keys[] = {
    {.path = "run.name",
     .type = KEY_TEXT,
     .offset = AT(run.name),
     .example = "\"solar-10.7b\"",
     .help = "Name of the run: letters, digits, and . _ - inside; everything of the "
             "run lies in dir/name."},
    {.path = "run.dir",
     .type = KEY_TEXT,
     .offset = AT(run.dir),
     .missing = "runs",
     .help = "Folder of runs; made if missing. All relative paths start at the current "
             "folder."},
    {.path = "run.seed",
     .type = KEY_U64,
     .offset = AT(run.seed),
     .missing = "0",
     .min = 0,
     .max = 18446744073709551615.0,
     .help = "Seed of the data order and of random weights."},
    {.path = "run.walltime",
     .type = KEY_TEXT,
     .offset = AT(run.walltime),
     .missing = "auto",
     .example = "\"24:00:00\"",
     .help = "Time from the start of the process at which the job ends, as sbatch "
             "--time takes it (minutes, HH:MM:SS, D-HH:MM:SS). The run saves before "
             "it, by what steps and saves have taken, and exits with 75. auto: what "
             "Slurm gives the job, else none; none: no end."},
    {.path = "run.requeue",
     .type = KEY_BOOL,
     .offset = AT(run.requeue),
     .missing = "false",
     .help = "Under Slurm, ask for the job to be queued again (scontrol requeue) after "
             "such an end and after SIGUSR1; not after SIGTERM, by which jobs are "
             "cancelled."},
    {.path = "model.init",
     .type = KEY_INIT,
     .example = "\"base.h5\"",
     .help = "Where the weights come from: a checkpoint (.h5 file or step-* folder), "
             "or random."},
    {.path = "model.layers",
     .type = KEY_TEXT,
     .offset = AT(model.layers),
     .missing = "null",
     .when = WHEN_CHECKPOINT,
     .example = "\"0:24,8:32\"",
     .help =
         "Depth up-scaling while loading: half-open ranges of source layers, any "
         "overlap; null takes all once. Averaged, zeroed or noisy layers are made by "
         "dusk upscale."},
    {.path = "model.optimizer",
     .type = KEY_CHOICE,
     .offset = AT(model.optimizer),
     .missing = "reset",
     .choices = optimizers,
     .when = WHEN_CHECKPOINT,
     .help = "The moments of AdamW when a new run starts from a checkpoint: reset "
             "starts them at zero; map takes those of the source layers that the "
             "weights come from, with the count of updates, of a training checkpoint."},
    {.path = "model.tokenizer",
     .type = KEY_TEXT,
     .offset = AT(model.tokenizer),
     .missing = "null",
     .when = WHEN_RANDOM,
     .example = "\"tokenizer.model\"",
     .help = "Checkpoint or tokenizer.model that the random model goes with; null for "
             "none."},
    {.path = "model.init_std",
     .type = KEY_DOUBLE,
     .offset = AT(model.init_std),
     .missing = "0.02",
     .min = 0,
     .max = 10,
     .when = WHEN_RANDOM,
     .help = "Standard deviation of random matrices (norms start at 1)."},
    {.path = "model.shape.num_hidden_layers",
     .type = KEY_INT,
     .offset = AT(model.shape.layers),
     .min = 1,
     .max = LAYERS_MAX,
     .when = WHEN_RANDOM,
     .example = "12",
     .help = "Layers."},
    {.path = "model.shape.hidden_size",
     .type = KEY_INT,
     .offset = AT(model.shape.hidden),
     .min = 1,
     .max = COUNT_MAX,
     .when = WHEN_RANDOM,
     .example = "768",
     .help = "Width of the residual stream."},
    {.path = "model.shape.intermediate_size",
     .type = KEY_INT,
     .offset = AT(model.shape.ff),
     .min = 1,
     .max = COUNT_MAX,
     .when = WHEN_RANDOM,
     .example = "2048",
     .help = "Width of the feed-forward block."},
    {.path = "model.shape.num_attention_heads",
     .type = KEY_INT,
     .offset = AT(model.shape.heads),
     .min = 1,
     .max = COUNT_MAX,
     .when = WHEN_RANDOM,
     .example = "12",
     .help = "Query heads."},
    {.path = "model.shape.num_key_value_heads",
     .type = KEY_INT,
     .offset = AT(model.shape.kv_heads),
     .missing = "null",
     .min = 1,
     .max = COUNT_MAX,
     .when = WHEN_RANDOM,
     .example = "4",
     .help =
         "Key and value heads; a divisor of num_attention_heads, null for the same."},
    {.path = "model.shape.head_dim",
     .type = KEY_INT,
     .offset = AT(model.shape.head_dim),
     .missing = "null",
     .min = 2,
     .max = COUNT_MAX,
     .when = WHEN_RANDOM,
     .example = "64",
     .help = "Width of a head, even; null for hidden_size / num_attention_heads."},
    {.path = "model.shape.vocab_size",
     .type = KEY_INT,
     .offset = AT(model.shape.vocab),
     .min = 1,
     .max = COUNT_MAX * 16,
     .when = WHEN_RANDOM,
     .example = "32000",
     .help = "Token ids are below this."},
    {.path = "model.shape.max_position_embeddings",
     .type = KEY_INT,
     .offset = AT(model.shape.max_positions),
     .missing = "4096",
     .min = 1,
     .max = COUNT_MAX * 64,
     .when = WHEN_RANDOM,
     .help = "Longest sequence, tokens."},
    {.path = "model.shape.sliding_window",
     .type = KEY_INT,
     .offset = AT(model.shape.window),
     .missing = "null",
     .min = 1,
     .max = COUNT_MAX * 64,
     .when = WHEN_RANDOM,
     .example = "1024",
     .help =
         "A position sees this many tokens, itself included; null for all before it."},
    {.path = "model.shape.rope_theta",
     .type = KEY_DOUBLE,
     .offset = AT(model.shape.rope_theta),
     .missing = "10000",
     .min = 0,
     .max = 1000000000000000.0,
     .above_min = true,
     .when = WHEN_RANDOM,
     .help = "Base of the rotary embedding."},
    {.path = "model.shape.rms_norm_eps",
     .type = KEY_DOUBLE,
     .offset = AT(model.shape.norm_eps),
     .missing = "1e-5",
     .min = 0,
     .max = 1,
     .above_min = true,
     .when = WHEN_RANDOM,
     .help = "Added to the mean square in RMSNorm."},
    {.path = "model.shape.tie_word_embeddings",
     .type = KEY_BOOL,
     .offset = AT(model.shape.tied),
     .missing = "false",
     .when = WHEN_RANDOM,
     .help = "One matrix for embedding and head."},
    {.path = "data.train",
     .type = KEY_TRAIN_SETS,
     .example = "[{path: \"train.h5\", weight: 1}]",
     .help = "Token sets (dusk tokens) to train on, record sets with train.objective: "
             "sft, sets of pairs with dpo; weight is the share of samples drawn from "
             "each, relative to the others (default 1)."},
    {.path = "data.valid",
     .type = KEY_VALID_SETS,
     .missing = "[]",
     .example = "[{name: \"held-out\", path: \"train.valid.h5\"}]",
     .help = "Held-out token or record sets; metrics.jsonl gets eval_NAME_loss and "
             "eval_NAME_perplexity, of sets of pairs (dpo) eval_NAME_loss, "
             "eval_NAME_rewards/... and so on. NAME: letters, digits, _ and -."},
    {.path = "data.seq_len",
     .type = KEY_INT,
     .offset = AT(data.seq_len),
     .min = 1,
     .max = COUNT_MAX * 16,
     .example = "4096",
     .help = "Tokens of one sequence; with sft, of a pack, and at most of a record; "
             "with dpo, at most of a prompt and one of its answers."},
    {.path = "data.shuffle",
     .type = KEY_BOOL,
     .offset = AT(data.shuffle),
     .missing = "true",
     .help = "Draw the samples of an epoch in a random order (of run.seed) instead of "
             "the file's."},
    {.path = "data.packing",
     .type = KEY_BOOL,
     .offset = AT(data.packing),
     .missing = "false",
     .help = "With sft: a sample is a whole pack, of sets made with dusk tokens --pack "
             "of data.seq_len, instead of one record."},
    {.path = "train.objective",
     .type = KEY_CHOICE,
     .offset = AT(train.objective),
     .missing = "pretrain",
     .choices = objectives,
     .help = "What is minimised: pretrain is the cross-entropy of every next token, "
             "sft that of the tokens of records that count (replies), a mean over all "
             "those of a step; dpo prefers the chosen to the rejected answers of "
             "pairs, by dpo.loss."},
    {.path = "train.steps",
     .type = KEY_I64,
     .offset = AT(train.steps),
     .missing = "null",
     .min = 1,
     .max = STEPS_MAX,
     .example = "10000",
     .help = "Length of the run in optimizer steps, all of them, also after a resume; "
             "give this, train.tokens or train.epochs."},
    {.path = "train.tokens",
     .type = KEY_I64,
     .offset = AT(train.tokens),
     .missing = "null",
     .min = 1,
     .max = TOKENS_MAX,
     .example = "null",
     .help =
         "Length of the run in tokens, rounded up to whole steps; with sft and dpo, "
         "whose samples have any length, give train.steps or train.epochs."},
    {.path = "train.epochs",
     .type = KEY_DOUBLE,
     .offset = AT(train.epochs),
     .missing = "null",
     .min = 0,
     .max = COUNT_MAX,
     .above_min = true,
     .example = "null",
     .help = "Length of the run in passes over the samples of all sets, rounded up to "
             "whole steps."},
    {.path = "train.global_batch",
     .type = KEY_INT,
     .offset = AT(train.global_batch),
     .min = 1,
     .max = COUNT_MAX * 16,
     .example = "512",
     .help = "Samples (sequences, records, packs, pairs) of one optimizer step, over "
             "all ranks; a multiple of parallel.data x train.micro_batch."},
    {.path = "train.micro_batch",
     .type = KEY_INT,
     .offset = AT(train.micro_batch),
     .missing = "1",
     .min = 1,
     .max = COUNT_MAX,
     .help = "Samples that go through the pipeline together, for each replica."},
    {.path = "train.precision",
     .type = KEY_CHOICE,
     .offset = AT(train.precision),
     .missing = "fp32",
     .choices = precisions,
     .help =
         "Numbers of weights and activations. bf16 keeps fp32 masters of the "
         "weights and sums in fp32, and is faster on CPUs that multiply it (dusk "
         "check --precision says whether this one does); a checkpoint of either goes "
         "on in the other."},
    {.path = "train.allow_slow_bf16",
     .type = KEY_BOOL,
     .offset = AT(train.allow_slow_bf16),
     .missing = "false",
     .help =
         "Take bf16 also where the program or a CPU of the job has no fast products "
         "for it, so that it is slower than fp32; else such a run is refused."},
    {.path = "train.products",
     .type = KEY_CHOICE,
     .offset = AT(train.products),
     .missing = "auto",
     .choices = products,
     .help =
         "CPU level of the matrix products, which decides their last bits. auto: what "
         "the lowest CPU of the job has, and on a resume what the checkpoint was "
         "computed with, if this job has it. A level that a CPU lacks is refused."},
    {.path = "train.max_skipped",
     .type = KEY_INT,
     .offset = AT(train.max_skipped),
     .missing = "3",
     .min = 1,
     .max = COUNT_MAX,
     .help =
         "A step whose loss or gradient is NaN or Inf updates nothing; so many in a "
         "row end the run (exit 5), with the place where the first one arises and "
         "the weights in step-N-nonfinite."},
    {.path = "train.freeze",
     .type = KEY_PATTERNS,
     .missing = "[]",
     .example = "[]",
     .help =
         "Tensors of the run's model that stay as they are: layers.FROM-TO (both "
         "included; or layers.N) for all of these layers, or patterns of Hugging Face "
         "names with * ? [abc], such as \"model.layers.3.mlp.*\", \"*norm*\" or "
         "\"model.embed_tokens.weight\" (of a tied model that is the head too). They "
         "have no gradient, moments or decay and no part in the gradient's norm; of "
         "fp32 weights bf16 keeps the rounded ones."},
    {.path = "dpo.loss",
     .type = KEY_CHOICE,
     .offset = AT(dpo.loss),
     .missing = "sigmoid",
     .choices = losses,
     .when = WHEN_DPO,
     .help = "The loss of a pair, by TRL's names; sigmoid is DPO, with label_smoothing "
             "cDPO, with rpo_alpha RPO."},
    {.path = "dpo.beta",
     .type = KEY_DOUBLE,
     .offset = AT(dpo.beta),
     .missing = "0.1",
     .min = 0,
     .max = 1e9,
     .above_min = true,
     .when = WHEN_DPO,
     .help = "How firmly the model is held to the reference: the log-ratios' factor."},
    {.path = "dpo.label_smoothing",
     .type = KEY_DOUBLE,
     .offset = AT(dpo.label_smoothing),
     .missing = "0",
     .min = 0,
     .max = 0.5,
     .when = WHEN_DPO,
     .help = "Share of pairs that are thought to be the wrong way round, below 0.5: "
             "sigmoid, robust, exo_pair (above 0)."},
    {.path = "dpo.rpo_alpha",
     .type = KEY_DOUBLE,
     .offset = AT(dpo.rpo_alpha),
     .missing = "0",
     .min = 0,
     .max = 1e9,
     .when = WHEN_DPO,
     .help = "Weight of the cross-entropy of the chosen answers' tokens beside sigmoid "
             "(RPO)."},
    {.path = "dpo.discopop_tau",
     .type = KEY_DOUBLE,
     .offset = AT(dpo.discopop_tau),
     .missing = "0.05",
     .min = 0,
     .max = 1,
     .above_min = true,
     .when = WHEN_DPO,
     .help = "Temperature of discopop's blend."},
    {.path = "dpo.reference",
     .type = KEY_TEXT,
     .offset = AT(dpo.reference),
     .missing = "init",
     .when = WHEN_DPO,
     .help = "The model that log-ratios are to: init (what the run starts from), none "
             "(log-probabilities 0), or a checkpoint's path. It is run once over the "
             "pairs, before the first step."},
    {.path = "dpo.cache",
     .type = KEY_TEXT,
     .offset = AT(dpo.cache),
     .missing = "null",
     .when = WHEN_DPO,
     .help = "File of the reference's log-probabilities of data.train (one set): read "
             "if it is there and was made of the same, else refused; written if it is "
             "not. null: a file in the run's folder, named by what it was made of."},
    {.path = "dpo.chunks",
     .type = KEY_INT,
     .offset = AT(dpo.chunks),
     .missing = "1",
     .min = 1,
     .max = 1024,
     .when = WHEN_DPO,
     .help = "Above 1: sDPO. The pairs, ordered from easy to hard by the margin of the "
             "model that the run starts from, are learnt chunk by chunk; each chunk's "
             "reference is what the one before it made, and optimizer, warm-up and "
             "schedule start anew. train.epochs are of each chunk, train.steps are "
             "shared among them."},
    {.path = "dpo.prefix_sharing",
     .type = KEY_BOOL,
     .offset = AT(dpo.prefix_sharing),
     .missing = "true",
     .when = WHEN_DPO,
     .help = "Run the prompt of a pair once for both answers, instead of once for "
             "each; the losses differ by rounding."},
    {.path = "optim.lr",
     .type = KEY_DOUBLE,
     .offset = AT(optim.lr),
     .min = 0,
     .max = 1000.0,
     .above_min = true,
     .example = "1e-5",
     .help = "Peak learning rate of AdamW."},
    {.path = "optim.min_lr",
     .type = KEY_DOUBLE,
     .offset = AT(optim.min_lr),
     .missing = "0",
     .min = 0,
     .max = 1000.0,
     .example = "1e-6",
     .help = "Rate at the end of cosine and wsd (a rate, not a share of lr); 0 with "
             "constant and linear."},
    {.path = "optim.schedule",
     .type = KEY_CHOICE,
     .offset = AT(optim.schedule),
     .missing = "cosine",
     .choices = schedules,
     .help = "Course of the rate after the warm-up; wsd is warm-up, stable, decay."},
    {.path = "optim.warmup",
     .type = KEY_I64,
     .offset = AT(optim.warmup),
     .missing = "0",
     .min = 0,
     .max = STEPS_MAX,
     .example = "100",
     .help =
         "Steps of linear warm-up; the first of them has rate 0 (min_lr with wsd)."},
    {.path = "optim.decay",
     .type = KEY_I64,
     .offset = AT(optim.decay),
     .min = 1,
     .max = STEPS_MAX,
     .when = WHEN_WSD,
     .example = "2000",
     .help = "Steps of decay at the end of the run."},
    {.path = "optim.decay_shape",
     .type = KEY_CHOICE,
     .offset = AT(optim.decay_shape),
     .missing = "cosine",
     .choices = decay_shapes,
     .when = WHEN_WSD,
     .help = "Curve of that decay; sqrt is 1 - sqrt(share done)."},
    {.path = "optim.betas",
     .type = KEY_BETAS,
     .missing = "[0.9, 0.95]",
     .min = 0,
     .max = 1,
     .help = "AdamW's decay rates of both moments, each at least 0 and below 1."},
    {.path = "optim.eps",
     .type = KEY_DOUBLE,
     .offset = AT(optim.eps),
     .missing = "1e-8",
     .min = 0,
     .max = 1,
     .above_min = true,
     .help = "Added to the root of the second moment."},
    {.path = "optim.weight_decay",
     .type = KEY_DOUBLE,
     .offset = AT(optim.weight_decay),
     .missing = "0.1",
     .min = 0,
     .max = 1000.0,
     .help = "Decoupled decay of all matrices, embedding and head included; norms have "
             "none."},
    {.path = "optim.clip",
     .type = KEY_DOUBLE,
     .offset = AT(optim.clip),
     .missing = "1",
     .min = 0,
     .max = 1000000.0,
     .help = "Largest L2 norm of the whole gradient; 0 switches clipping off."},
    {.path = "parallel.pipeline",
     .type = KEY_INT,
     .offset = AT(parallel.pipeline),
     .missing = "1",
     .min = 1,
     .max = RANKS_MAX,
     .example = "4",
     .help = "Pipeline stages; pipeline x data is the number of ranks."},
    {.path = "parallel.data",
     .type = KEY_INT,
     .offset = AT(parallel.data),
     .missing = "null",
     .min = 1,
     .max = RANKS_MAX,
     .help = "Replicas of the model; null for ranks / pipeline."},
    {.path = "parallel.schedule",
     .type = KEY_PIPE,
     .missing = "1f1b",
     .choices = pipes,
     .help =
         "Order of forwards and backwards: gpipe keeps all micro-batches in "
         "memory, 1f1b at most one a stage; interleaved idles 1 / chunks of 1f1b, "
         "for more messages and memory; zb-h1 idles a third as much as 1f1b, "
         "with as many on every stage as 1f1b has on the first, and what weight "
         "gradients put off need; zb-v, on two chunks a rank, hardly idles, with as "
         "many on every rank. FILE.csv is a table of your own: a row a rank, a cell "
         "a slot of time, empty or STAGE, F, I, W or B and MICRO-BATCH, such as 0F3 "
         "(I and W: the two halves of a backward, B: both); dusk check --schedule "
         "--csv writes one. Results are the same bits. dusk check --schedule draws "
         "it."},
    {.path = "parallel.chunks",
     .type = KEY_INT,
     .offset = AT(parallel.chunks),
     .missing = "null",
     .min = 1,
     .max = CHUNKS_MAX,
     .help =
         "Pipeline stages that each rank holds: the model is cut into pipeline x "
         "chunks. Any number with interleaved (whose micro-batches of a step and "
         "replica are a multiple of pipeline) or FILE.csv, 2 with zb-v, else 1; null "
         "for 2 with interleaved and zb-v, else 1."},
    {.path = "parallel.split",
     .type = KEY_SPLIT,
     .missing = "auto",
     .min = 0,
     .max = LAYERS_MAX,
     .help =
         "Layers of each stage, one entry a stage (pipeline x chunks of them); auto "
         "balances the work, embedding and head included."},
    {.path = "parallel.node_gb",
     .type = KEY_DOUBLE,
     .offset = AT(parallel.node_gb),
     .missing = "0",
     .min = 0,
     .max = 1e6,
     .help = "GB (1e9 bytes) that the ranks of a host may take together; 0 for what is "
             "free when the run starts. A run that needs more is refused; dusk check "
             "--memory shows what it needs."},
    {.path = "eval.every",
     .type = KEY_I64,
     .offset = AT(eval.every),
     .missing = "0",
     .min = 0,
     .max = STEPS_MAX,
     .example = "500",
     .help = "Steps between losses on data.valid; 0 for never."},
    {.path = "eval.batches",
     .type = KEY_I64,
     .offset = AT(eval.batches),
     .missing = "0",
     .min = 0,
     .max = STEPS_MAX,
     .example = "16",
     .help = "Global batches of each set that are read; 0 for the whole set."},
    {.path = "checkpoint.every",
     .type = KEY_I64,
     .offset = AT(checkpoint.every),
     .missing = "0",
     .min = 0,
     .max = STEPS_MAX,
     .example = "500",
     .help = "Steps between checkpoints; there is one at the end in any case, 0 for "
             "only that."},
    {.path = "checkpoint.keep",
     .type = KEY_I64,
     .offset = AT(checkpoint.keep),
     .missing = "3",
     .min = 0,
     .max = STEPS_MAX,
     .help = "Newest checkpoints that stay, older ones are removed; 0 keeps all."},
    {.path = "checkpoint.keep_every",
     .type = KEY_I64,
     .offset = AT(checkpoint.keep_every),
     .missing = "0",
     .min = 0,
     .max = STEPS_MAX,
     .help = "Checkpoints at multiples of this step stay for ever; a multiple of "
             "checkpoint.every, 0 for none."},
    {.path = "checkpoint.best",
     .type = KEY_BOOL,
     .offset = AT(checkpoint.best),
     .missing = "false",
     .help = "Keep also, as the link best, the checkpoint with the least loss on the "
             "first set of data.valid, of those saved at a step that was evaluated."},
    {.path = "checkpoint.on_error",
     .type = KEY_CHOICE,
     .offset = AT(checkpoint.on_error),
     .missing = "stop",
     .choices = on_errors,
     .help = "What follows a checkpoint that cannot be written (disk full, quota, "
             "permission): stop ends the run (exit 4); continue trains on and tries "
             "again when the next is due, and exits with 4 if the last one failed. "
             "Older ones are whole either way."},
    {.path = "checkpoint.resume",
     .type = KEY_TEXT,
     .offset = AT(checkpoint.resume),
     .missing = "auto",
     .help = "auto continues from the newest valid checkpoint of the run if there is "
             "one, never refuses a run that has any, a path continues from that one."},
    {.path = "checkpoint.resume_allow",
     .type = KEY_KEYS,
     .missing = "[]",
     .example = "[]",
     .help = "Keys or sections that may differ from the checkpoint's though they "
             "change the run (model, run.seed, data, train.global_batch, "
             "train.freeze)."},
    {.path = "log.every",
     .type = KEY_I64,
     .offset = AT(log.every),
     .missing = "1",
     .min = 1,
     .max = STEPS_MAX,
     .help = "Steps between progress lines; metrics.jsonl has every step."},
    {.path = "log.timeout",
     .type = KEY_DOUBLE,
     .offset = AT(log.timeout),
     .missing = "600",
     .min = 0,
     .max = 1e9,
     .help =
         "Seconds that a rank may wait for another during steps and validation; then "
         "the job says where each rank is, also in status.json of the run's folder, "
         "and ends with 6. 0: for ever."},
    {.path = "log.io_timeout",
     .type = KEY_DOUBLE,
     .offset = AT(log.io_timeout),
     .missing = "3600",
     .min = 0,
     .max = 1e9,
     .help = "The same while the run starts, loads, saves or ends."},
    {.path = "log.accounting",
     .type = KEY_BOOL,
     .offset = AT(log.accounting),
     .missing = "true",
     .help =
         "Say in every step where its time went: computing, waiting, the pipeline's "
         "bubble beside the ideal one, imbalance, exposed communication. Changes no "
         "result."},
    {.path = "log.timeline.from",
     .type = KEY_I64,
     .offset = AT(log.timeline_from),
     .missing = "1",
     .min = 1,
     .max = STEPS_MAX,
     .example = "10",
     .help =
         "The first step of the timeline; a run that goes on from a later one makes "
         "none."},
    {.path = "log.timeline.steps",
     .type = KEY_I64,
     .offset = AT(log.timeline_steps),
     .missing = "0",
     .min = 0,
     .max = 10000,
     .example = "2",
     .help =
         "Steps of which every operation of every rank is kept, and then written to "
         "the run's folder: timeline.json for Perfetto, and timeline.svg, a "
         "picture."},
    {.path = NULL},
};

const struct section schema_sections[] = {
    {"run", "Where the run lives."},
    {"model", "The model and its first weights."},
    {"model.shape", "The shape of a random model, in the words of config.json."},
    {"data", "Token or record sets and how they are read."},
    {"train", "What a step is and how many there are."},
    {"dpo", "What is preferred, with train.objective: dpo, and beside which model."},
    {"optim", "AdamW and its learning rate."},
    {"parallel", "How the model is spread over the ranks."},
    {"eval", "Losses on held-out text during the run."},
    {"checkpoint", "Saving and resuming."},
    {"log", "What is told of the run."},
    {"log.timeline", "Some steps in every detail, on one clock."},
    {NULL, NULL},
};

const struct key *schema_find(const char *path)
{
    for (const struct key *k = schema_keys; k->path; k++)
        if (strcmp(k->path, path) == 0)
            return k;
    return NULL;
}

const struct section *schema_find_section(const char *path)
{
    for (const struct section *s = schema_sections; s->path; s++)
        if (strcmp(s->path, path) == 0)
            return s;
    return NULL;
}

const char *schema_leaf(const struct key *k, const char *section)
{
    size_t n = strlen(section);
    if (strncmp(k->path, section, n) != 0 || k->path[n] != '.')
        return NULL;
    return strchr(k->path + n + 1, '.') ? NULL : k->path + n + 1;
}

bool schema_applies(const struct key *k, const struct run *r)
{
    switch (k->when) {
    case WHEN_ALWAYS:
        break;
    case WHEN_RANDOM:
        return !r->model.init;
    case WHEN_CHECKPOINT:
        return r->model.init;
    case WHEN_WSD:
        return r->optim.schedule == RUN_WSD;
    case WHEN_DPO:
        return r->train.objective == RUN_DPO;
    }
    return true;
}

const char *schema_condition(const struct key *k)
{
    static const char *const conditions[] = {
        [WHEN_ALWAYS] = "always",
        [WHEN_RANDOM] = "model.init: random",
        [WHEN_CHECKPOINT] = "a checkpoint in model.init",
        [WHEN_WSD] = "optim.schedule: wsd",
        [WHEN_DPO] = "train.objective: dpo",
    };
    return conditions[k->when];
}
