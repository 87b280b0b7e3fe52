/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tokenizer.h"

#include "io/spm_model.h"
#include "io/spm_shim.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/rng.h"

#include <jansson.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *const models[] = {"tiny512", "mistral-v1"};
enum { MODELS = sizeof models / sizeof *models };

static char *oracle_read(const char *model, const char *file, size_t *bytes)
{
    struct err err = {0};
    const char *srcdir = getenv("srcdir");
    char *path = mem_printf(&err, "%s/tests/oracle/model/tokenizer/%s/%s",
                            srcdir ? srcdir : ".", model, file);
    char *data = file_read(path, 64 << 20, bytes, &err);
    if (!data)
        print_error("%s\n", err.text);
    assert_non_null(data);
    free(path);
    return data;
}

static struct tokenizer *load(const char *model)
{
    struct err err = {0};
    size_t bytes;
    char *data = oracle_read(model, "tokenizer.model", &bytes);
    struct tokenizer *t = tokenizer_create(data, bytes, model, &err);
    if (!t)
        print_error("%s\n", err.text);
    assert_non_null(t);
    free(data);
    return t;
}

static json_t *load_json(const char *model, const char *file)
{
    size_t bytes;
    char *data = oracle_read(model, file, &bytes);
    json_t *root = json_loadb(data, bytes, JSON_ALLOW_NUL, NULL);
    assert_non_null(root);
    free(data);
    return root;
}

static int same_ids(const struct token_ids *ids, const json_t *expect)
{
    if (ids->n != (int64_t)json_array_size(expect))
        return 0;
    for (size_t i = 0; i < json_array_size(expect); i++)
        if (ids->id[i] != json_integer_value(json_array_get(expect, i)))
            return 0;
    return 1;
}

static void check_encode(const struct tokenizer *t, const char *text, size_t bytes,
                         bool parse_special, const json_t *expect)
{
    struct err err = {0};
    struct token_ids ids = {0};
    assert_int_equal(tokenizer_encode(t, text, bytes, parse_special, &ids, &err), 0);
    if (!same_ids(&ids, expect)) {
        print_error("'%.*s' expected", (int)bytes, text);
        for (size_t i = 0; i < json_array_size(expect); i++)
            print_error(" %d", (int)json_integer_value(json_array_get(expect, i)));
        print_error(", found");
        for (int64_t i = 0; i < ids.n; i++)
            print_error(" %d", (int)ids.id[i]);
        print_error("\n");
        fail();
    }
    free(ids.id);
}

static void check_decode(const struct tokenizer *t, const json_t *ids,
                         const json_t *expect)
{
    struct err err = {0};
    int32_t id[512];
    int64_t n = (int64_t)json_array_size(ids);
    assert_in_range(n, 0, 512);
    for (int64_t i = 0; i < n; i++)
        id[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
    char *text = tokenizer_decode(t, id, n, &err);
    assert_non_null(text);
    assert_string_equal(text, json_string_value(expect));
    free(text);
}

static void encodes_and_decodes_as_the_oracle(void **state)
{
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        struct tokenizer *t = load(models[m]);
        json_t *root = load_json(models[m], "vectors.json"), *v;
        size_t i;
        assert_int_equal(tokenizer_vocab(t),
                         json_integer_value(json_object_get(root, "vocab_size")));
        assert_int_equal(tokenizer_bos(t),
                         json_integer_value(json_object_get(root, "bos")));
        assert_int_equal(tokenizer_eos(t),
                         json_integer_value(json_object_get(root, "eos")));
        assert_int_equal(tokenizer_unk(t),
                         json_integer_value(json_object_get(root, "unk")));
        json_array_foreach(json_object_get(root, "encode"), i, v)
        {
            const json_t *text = json_object_get(v, "text");
            const json_t *ids = json_object_get(v, "ids"), *piece;
            size_t k;
            check_encode(t, json_string_value(text), json_string_length(text), false,
                         ids);
            check_decode(t, ids, json_object_get(v, "decoded"));
            json_array_foreach(json_object_get(v, "pieces"), k, piece)
            {
                json_int_t id = json_integer_value(json_array_get(ids, k));
                /* unknown text keeps its own spelling as the piece */
                if (id != tokenizer_unk(t))
                    assert_string_equal(tokenizer_piece(t, (int32_t)id),
                                        json_string_value(piece));
            }
        }
        printf("%s: %zu strings", models[m], i);
        assert_true(i > 50);
        json_array_foreach(json_object_get(root, "decode"), i, v)
            check_decode(t, json_object_get(v, "ids"), json_object_get(v, "decoded"));
        printf(", %zu id lists\n", i);
        assert_true(i > 0);
        json_decref(root);
        tokenizer_destroy(t);
    }
}

static size_t from_hex(const char *hex, char *bytes, size_t room)
{
    size_t n = strlen(hex) / 2;
    assert_true(n <= room);
    for (size_t i = 0; i < n; i++) {
        char two[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        bytes[i] = (char)strtol(two, NULL, 16);
    }
    return n;
}

static void reads_invalid_utf8_as_the_oracle(void **state)
{
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        struct tokenizer *t = load(models[m]);
        json_t *root = load_json(models[m], "vectors.json"), *v;
        char bytes[256];
        size_t i;
        json_array_foreach(json_object_get(root, "encode_bytes"), i, v)
        {
            size_t n = from_hex(json_string_value(json_object_get(v, "bytes_hex")),
                                bytes, sizeof bytes);
            check_encode(t, bytes, n, false, json_object_get(v, "ids"));
        }
        printf("%s: %zu byte strings\n", models[m], i);
        assert_true(i > 0);
        json_decref(root);
        tokenizer_destroy(t);
    }
}

/* What the slow tokenizer of transformers 4.57.6 (legacy=true) gives. */
static void parses_special_tokens_as_transformers(void **state)
{
    (void)state;
    static const struct {
        const char *text, *ids[MODELS];
    } rows[] = {
        {"<s>", {"[1]", "[1]"}},
        {"</s>", {"[2]", "[2]"}},
        {"<s>Hello</s>", {"[1,412,287,429,2]", "[1,22557,2]"}},
        {"a <unk> b", {"[261,425,0,425,272]", "[264,28705,0,28705,287]"}},
        {"<s> [INST] x</s> y",
         {"[1,425,425,94,464,483,472,461,96,425,478,2,425,326]",
          "[1,28705,733,16289,28793,1318,2,28705,337]"}},
    };
    for (int m = 0; m < MODELS; m++) {
        struct tokenizer *t = load(models[m]);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            json_t *ids = json_loads(rows[i].ids[m], 0, NULL);
            check_encode(t, rows[i].text, strlen(rows[i].text), true, ids);
            json_decref(ids);
        }
        tokenizer_destroy(t);
    }
}

/* Ids as without spans; spans that cover the text from end to end, each with the
 * characters of its piece. */
static void check_spans(const struct tokenizer *t, const char *text, size_t bytes)
{
    static const char space[] = "\xe2\x96\x81";
    struct err err = {0};
    struct token_ids ids = {0};
    struct spanned_ids s = {0};
    size_t end = 100, covered = 0;
    assert_int_equal(tokenizer_encode(t, text, bytes, false, &ids, &err), 0);
    assert_int_equal(tokenizer_encode_spans(t, text, bytes, 100, &s, &err), 0);
    assert_int_equal(s.n, ids.n);
    assert_memory_equal(s.id, ids.id, (size_t)ids.n * sizeof *ids.id);
    for (int64_t i = 0; i < s.n; i++) {
        struct text_span k = s.span[i];
        const char *piece = tokenizer_piece(t, s.id[i]);
        bool byte = strncmp(piece, "<0x", 3) == 0;
        bool same = i && byte && k.begin == s.span[i - 1].begin && k.begin < end;
        assert_int_equal(same ? s.span[i - 1].end : end, same ? k.end : k.begin);
        end = k.end;
        covered += same ? 0 : k.end - k.begin;
        if (byte) {
            char code[8];
            size_t nth = 0; /* byte of its character */
            while (nth < (size_t)i && s.span[i - 1 - (int64_t)nth].begin == k.begin &&
                   s.span[i - 1 - (int64_t)nth].end == k.end)
                nth++;
            assert_true(k.begin + nth < k.end);
            snprintf(code, sizeof code, "<0x%02X>",
                     (unsigned char)text[k.begin - 100 + nth]);
            assert_string_equal(piece, code);
            continue;
        }
        char surface[256] = "";
        size_t used = 0;
        for (size_t c = k.begin - 100; c < k.end - 100; c++)
            if (text[c] == ' ')
                used += (size_t)snprintf(surface + used, sizeof surface - used, "%s",
                                         space);
            else
                surface[used++] = text[c];
        surface[used] = '\0';
        if (i == 0) { /* what the model puts in front has no bytes */
            assert_memory_equal(piece, space, 3);
            piece += 3;
        }
        assert_string_equal(piece, surface);
    }
    assert_int_equal(covered, bytes);
    free(ids.id);
    spanned_ids_fini(&s);
}

static void spans_are_the_bytes_of_the_pieces(void **state)
{
    (void)state;
    static const char *const word[] = {"the",
                                       " ",
                                       "  ",
                                       "\xed\x95\x9c\xea\xb5\xad",
                                       "\n",
                                       "x=1;",
                                       "\xf0\x9f\x98\x80",
                                       "12",
                                       "\xe2\x96\x81",
                                       " and ",
                                       "\xc3\xa9"};
    for (int m = 0; m < MODELS; m++) {
        struct tokenizer *t = load(models[m]);
        for (uint64_t i = 0; i < 300; i++) {
            char text[4096] = "";
            size_t used = 0;
            for (uint64_t k = 0; k < i; k++)
                used += (size_t)snprintf(
                    text + used, sizeof text - used, "%s",
                    word[rng_u64(7, i, k) % (sizeof word / sizeof *word)]);
            check_spans(t, text, used);
        }
        tokenizer_destroy(t);
    }
}

static void appends_ids_and_refuses_unknown_ones(void **state)
{
    (void)state;
    struct err err = {0};
    struct token_ids ids = {0};
    struct tokenizer *t = load("tiny512");
    assert_int_equal(tokenizer_encode(t, "Hello", 5, false, &ids, &err), 0);
    int64_t n = ids.n;
    assert_int_equal(tokenizer_encode(t, "Hello", 5, false, &ids, &err), 0);
    assert_int_equal(ids.n, 2 * n);
    assert_memory_equal(ids.id, ids.id + n, (size_t)n * sizeof *ids.id);
    static const int32_t wrong[] = {512, -1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int32_t list[] = {5, wrong[i]};
        assert_null(tokenizer_decode(t, list, 2, &err));
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, "token 1 of 2: expected an id below 512"));
        assert_null(tokenizer_piece(t, wrong[i]));
    }
    assert_string_equal(tokenizer_piece(t, 1), "<s>");
    free(ids.id);
    tokenizer_destroy(t);
}

static int take_ids(void *context, const int *ids, size_t n)
{
    struct err err = {0};
    for (size_t i = 0; i < n; i++)
        if (token_ids_push(context, ids[i], &err))
            return -1;
    return 0;
}

/* Long texts are encoded in parts: SentencePiece in one go must give the same ids. */
static void parts_of_a_text_give_the_ids_of_the_whole(void **state)
{
    (void)state;
    static const char *const words[] = {" ",
                                        "  ",
                                        "   ",
                                        "Hello",
                                        "world",
                                        "\n",
                                        "a",
                                        "48/2=24",
                                        "\t",
                                        "\xe2\x96\x81",
                                        "</s>",
                                        "\xff",
                                        "\xe2",
                                        "\xe2\x96",
                                        "\xe6\x97\xa5",
                                        "\xf0\x9f\x98\x80",
                                        " ",
                                        " the",
                                        " of"};
    enum { WORDS = sizeof words / sizeof *words, TEXTS = 60, TEXT_BYTES = 20000 };
    char *text = malloc(TEXT_BYTES + 16);
    for (int m = 0; m < MODELS; m++) {
        size_t model_bytes;
        char why[256] = "",
             *model = oracle_read(models[m], "tokenizer.model", &model_bytes);
        struct tokenizer *t = load(models[m]);
        struct spm *spm = spm_create(model, model_bytes, why, sizeof why);
        struct spm_traits traits = {0};
        struct err err = {0};
        int64_t all = 0;
        assert_non_null(spm);
        assert_int_equal(spm_model_check(model, model_bytes, models[m], &traits, &err),
                         0);
        assert_true(traits.parts_at_spaces);
        for (uint64_t seed = 0; seed < TEXTS; seed++) {
            struct token_ids parts = {0}, whole = {0};
            size_t bytes = 0, size = rng_u64(seed, 0, 0) % TEXT_BYTES;
            /* from words without a space to spaces nearly alone */
            uint64_t kinds = seed % 3 == 0 ? WORDS : seed % 3 == 1 ? 4 : WORDS - 3;
            for (uint64_t k = 0; bytes < size; k++) {
                const char *word = words[rng_u64(seed, 1, k) % kinds];
                memcpy(text + bytes, word, strlen(word));
                bytes += strlen(word);
            }
            assert_int_equal(tokenizer_encode(t, text, bytes, false, &parts, &err), 0);
            assert_int_equal(
                spm_encode(spm, text, bytes, take_ids, &whole, why, sizeof why), 0);
            assert_int_equal(parts.n, whole.n);
            for (int64_t i = 0; i < whole.n; i++)
                assert_int_equal(parts.id[i], whole.id[i]);
            all += whole.n;
            free(parts.id);
            free(whole.id);
        }
        printf("%s: %d texts, %lld ids\n", models[m], (int)TEXTS, (long long)all);
        spm_destroy(spm);
        tokenizer_destroy(t);
        free(model);
    }
    free(text);
}

static void hash_tells_models_apart(void **state)
{
    (void)state;
    char hash[MODELS][33];
    for (int m = 0; m < MODELS; m++) {
        struct tokenizer *t = load(models[m]);
        tokenizer_hash(t, hash[m], sizeof hash[m]);
        printf("%s %s\n", models[m], hash[m]);
        assert_int_equal(strspn(hash[m], "0123456789abcdef"), 32);
        tokenizer_destroy(t);
    }
    assert_string_not_equal(hash[0], hash[1]);
}

/* Every stretch between added tokens is encoded as if it stood alone. */
static void cuts_at_added_tokens(void **state)
{
    (void)state;
    static const struct added_token added[] = {
        {"<|im_start|>", 512}, {"<|im_end|>", 513}, {"<|im_", 600}};
    static const char text[] = "<|im_start|>user\nHello <|im_end|><|im_x</s>y";
    static const char *const parts[] = {NULL, "user\nHello ", NULL, NULL,
                                        "x",  NULL,           "y"};
    static const int32_t special[] = {512, 0, 513, 600, 0, 2, 0};
    struct err err = {0};
    struct token_ids ids = {0}, expect = {0};
    size_t bytes;
    char hash[2][33];
    char *model = oracle_read("tiny512", "tokenizer.model", &bytes);
    struct tokenizer *plain = load("tiny512");
    struct tokenizer *t = tokenizer_create_added(model, bytes, added, 3, "added", &err);
    assert_non_null(t);
    assert_int_equal(tokenizer_vocab(plain), 512);
    assert_int_equal(tokenizer_vocab(t), 601);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i])
            assert_int_equal(tokenizer_encode(plain, parts[i], strlen(parts[i]), false,
                                              &expect, &err),
                             0);
        else
            token_ids_push(&expect, special[i], &err);
    assert_int_equal(tokenizer_encode(t, text, strlen(text), true, &ids, &err), 0);
    printf("%lld ids\n", (long long)ids.n);
    assert_int_equal(ids.n, expect.n);
    assert_memory_equal(ids.id, expect.id, (size_t)ids.n * sizeof *ids.id);
    char *back = tokenizer_decode(t, ids.id, ids.n, &err);
    assert_string_equal(back, "<|im_start|>user\nHello <|im_end|><|im_x y");
    free(back);
    ids.n = expect.n = 0; /* as text they are text */
    assert_int_equal(tokenizer_encode(t, text, strlen(text), false, &ids, &err), 0);
    assert_int_equal(tokenizer_encode(plain, text, strlen(text), false, &expect, &err),
                     0);
    assert_int_equal(ids.n, expect.n);
    assert_memory_equal(ids.id, expect.id, (size_t)ids.n * sizeof *ids.id);
    assert_string_equal(tokenizer_piece(t, 513), "<|im_end|>");
    assert_null(tokenizer_piece(t, 514)); /* no token */
    assert_null(tokenizer_decode(t, (int32_t[]){514}, 1, &err));
    assert_int_equal(tokenizer_find(t, "<|im_start|>"), 512);
    assert_int_equal(tokenizer_find(t, "<s>"), 1);
    assert_string_equal(tokenizer_piece(t, 300), tokenizer_piece(plain, 300));
    assert_int_equal(tokenizer_find(t, tokenizer_piece(t, 300)), 300);
    assert_int_equal(tokenizer_find(plain, "<|im_start|>"), -1);
    assert_int_equal(tokenizer_special(t, "<|im_"), 600);
    assert_int_equal(tokenizer_special(t, "er"), -1);
    tokenizer_hash(plain, hash[0], sizeof hash[0]);
    tokenizer_hash(t, hash[1], sizeof hash[1]);
    assert_string_not_equal(hash[0], hash[1]);
    tokenizer_identity(model, bytes, NULL, 0, hash[1]);
    assert_string_equal(hash[0], hash[1]);
    free(ids.id);
    free(expect.id);
    free(model);
    tokenizer_destroy(plain);
    tokenizer_destroy(t);
}

static void refuses_bad_added_tokens(void **state)
{
    (void)state;
    static const struct {
        struct added_token added[2];
        const char *says;
    } rows[] = {
        {{{"<a>", 600}, {"", 601}},
         "\"\": expected a text and an id above 600, found id 601"},
        {{{"<a>", 600}, {"<b>", 600}},
         "\"<b>\": expected a text and an id above 600, found id 600"},
        {{{"<a>", 511}, {"<b>", 512}}, "\"<a>\": expected a text and an id above 511"},
        {{{"<a>", 600}, {"<a>", 601}},
         "\"<a>\": expected a new token, found it as id 600"},
        {{{"</s>", 600}, {"<b>", 601}},
         "\"</s>\": expected a new token, found it as id 2"},
    };
    size_t bytes;
    char *model = oracle_read("tiny512", "tokenizer.model", &bytes);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        assert_null(tokenizer_create_added(model, bytes, rows[i].added, 2, "x", &err));
        printf("%s\n", err.text);
        assert_non_null(strstr(err.text, rows[i].says));
        assert_int_equal(err.code, ERR_INPUT);
    }
    free(model);
}

/* Either refused with a reason, or usable. */
static int survives(const char *model, size_t bytes)
{
    static const char text[] =
        "Natalia sold 48/2 = 24 clips.\n\xff\xf0\x9f\x98\x80\t</s> ";
    struct err err = {0};
    struct token_ids ids = {0};
    struct tokenizer *t = tokenizer_create(model, bytes, "hostile.model", &err);
    if (!t) {
        assert_true(err.code == ERR_INPUT || err.code == ERR_OTHER);
        assert_int_equal(strncmp(err.text, "hostile.model: ", 15), 0);
        return 0;
    }
    if (tokenizer_encode(t, text, sizeof text - 1, true, &ids, &err) == 0) {
        char *back = tokenizer_decode(t, ids.id, ids.n, &err);
        free(back);
    }
    free(ids.id);
    tokenizer_destroy(t);
    return 1;
}

static void survives_a_cut_at_every_byte(void **state)
{
    (void)state;
    size_t bytes;
    int accepted = 0;
    char *model = oracle_read("tiny512", "tokenizer.model", &bytes);
    for (size_t n = 0; n < bytes; n++) {
        char *cut = malloc(n + 1); /* exact, so that a read beyond it is seen */
        memcpy(cut, model, n);
        accepted += survives(cut, n);
        free(cut);
    }
    /* A cut between two top-level fields is a file without the last ones. */
    printf("%zu cuts, %d still a model\n", bytes, accepted);
    assert_in_range(accepted, 0, 5);
    free(model);
}

static void survives_random_damage(void **state)
{
    (void)state;
    size_t bytes;
    int accepted = 0;
    char *model = oracle_read("tiny512", "tokenizer.model", &bytes);
    for (uint64_t round = 0; round < 3000; round++) {
        char *damaged = malloc(bytes);
        memcpy(damaged, model, bytes);
        uint64_t flips = 1 + rng_u64(1, round, 0) % 4;
        for (uint64_t k = 1; k <= flips; k++) {
            uint64_t r = rng_u64(1, round, k);
            /* half of them in the last 128 bytes: trainer and normalizer settings */
            size_t at = r & 1 ? r / 2048 % bytes : bytes - 1 - r / 2048 % 128;
            int byte = (int)(r >> 8 & 255), bit = 1 << (byte & 7);
            damaged[at] = (char)(r & 2 ? byte : damaged[at] ^ bit);
        }
        accepted += survives(damaged, bytes);
        free(damaged);
    }
    printf("3000 damaged models, %d accepted\n", accepted);
    free(model);
}

/* A model made by hand, one field after the other. */
struct made {
    char *data;
    size_t bytes;
};

static void put(struct made *m, const void *data, size_t bytes)
{
    m->data = realloc(m->data, m->bytes + bytes);
    memcpy(m->data + m->bytes, data, bytes);
    m->bytes += bytes;
}

static void put_varint(struct made *m, uint64_t value)
{
    for (; value > 127; value >>= 7)
        put(m, (unsigned char[]){(unsigned char)(value | 128)}, 1);
    put(m, (unsigned char[]){(unsigned char)value}, 1);
}

static void put_bytes(struct made *m, uint64_t field, const void *data, size_t bytes)
{
    put_varint(m, field << 3 | 2);
    put_varint(m, bytes);
    put(m, data, bytes);
}

static void put_piece(struct made *m, const void *text, size_t bytes, int type)
{
    struct made p = {0};
    put_bytes(&p, 1, text, bytes);
    put_varint(&p, 3 << 3);
    put_varint(&p, (uint64_t)type);
    put_bytes(m, 1, p.data, p.bytes);
    free(p.data);
}

static struct made small_model(void)
{
    struct made m = {0};
    put_piece(&m, "<unk>", 5, 2);
    put_piece(&m, "<s>", 3, 3);
    put_piece(&m, "</s>", 4, 3);
    put_piece(&m, "a", 1, 1);
    put_piece(&m, "b", 1, 1);
    put_piece(&m, "X", 1, 1);
    put_piece(&m, "\xe2\x96\x81", 3, 1);
    put_bytes(&m, 2, "\x18\x02", 2); /* BPE */
    return m;
}

/* Which models may be given text in parts. */
static void parts_need_a_model_that_splits_at_spaces(void **state)
{
    (void)state;
    static const struct {
        const char *piece;
        int type;
        const char *model; /* trainer and normalizer, as in the file */
        bool parts;
    } rows[] = {
        {"\xe2\x96\x81\xe2\x96\x81x", 1, "\x12\x02\x18\x02\x1a\x02\x20\x00", true},
        {"x\xe2\x96\x81", 1, "\x12\x02\x18\x02\x1a\x02\x20\x00", false},
        {"\xe2\x96\x81x\xe2\x96\x81", 1, "\x12\x02\x18\x02\x1a\x02\x20\x00", false},
        {"\xe2\x96\x81\xe2\x96\x81", 4, "\x12\x02\x18\x02\x1a\x02\x20\x00", false},
        {"x y", 4, "\x12\x02\x18\x02\x1a\x02\x20\x00", false},
        {"x", 4, "\x12\x02\x18\x02\x1a\x02\x20\x00", true},
        {"x", 1, "\x12\x02\x18\x01\x1a\x02\x20\x00", false}, /* unigram */
        {"x", 1, "\x12\x02\x18\x02\x1a\x02\x20\x01", false}, /* spaces removed */
        {"x", 1, "\x12\x02\x18\x02", false},                 /* by default as well */
        {"x", 1, "\x12\x02\x18\x02\x1a\x04\x20\x00\x18\x00", false}, /* no prefix */
        {"x", 1, "\x12\x02\x18\x02\x1a\x04\x20\x00\x28\x00", false}, /* not escaped */
        {"x", 1, "\x12\x05\x18\x02\xc0\x01\x01\x1a\x02\x20\x00", false}, /* suffix */
    };
    static const size_t bytes[] = {8, 8, 8, 8, 8, 8, 8, 8, 4, 10, 10, 11};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct spm_traits traits = {0};
        struct made m = small_model();
        put_piece(&m, rows[i].piece, strlen(rows[i].piece), rows[i].type);
        put(&m, rows[i].model, bytes[i]);
        assert_int_equal(spm_model_check(m.data, m.bytes, "made.model", &traits, &err),
                         0);
        if (traits.parts_at_spaces != rows[i].parts)
            fail_msg("row %zu: parts %d", i, traits.parts_at_spaces);
        free(m.data);
    }
}

static void expect_refusal(struct made *m, const char *says)
{
    struct err err = {0};
    struct tokenizer *t = tokenizer_create(m->data, m->bytes, "made.model", &err);
    printf("%s\n", err.text);
    assert_null(t);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, says));
    free(m->data);
}

static void refuses_what_sentencepiece_would_stumble_over(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
        int type;
        const char *says;
    } pieces[] = {
        {"", 0, 1, "piece 7: expected 1 to 4096 bytes"},
        {"a\0b", 3, 1, "piece 7: a NUL"},
        {"x", 1, 7, "piece 7: unknown piece type"},
        {"<unk2>", 6, 2, "expected one piece for unknown text"},
        {"a", 1, 1, "SentencePiece refuses it"}, /* defined twice */
    };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        struct made m = small_model();
        put_piece(&m, pieces[i].text, pieces[i].bytes, pieces[i].type);
        expect_refusal(&m, pieces[i].says);
    }
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } tails[] = {
        {"\x0a\x07\x0a\x01z\x15\x00\x00", 8, "cut or broken"},
        {"\x0a\x08\x0a\x01z\x15\x00\x00\xc0\x7f", 10, "piece 7: the score is NaN"},
        {"\x0a\x05\x0a\x01z\x18", 6, "cut or broken"},
        {"\x0a\x04\x0a\x7fz\x18", 6, "piece 7: cut or broken"},
        {"\x0a\x02\x08\x01", 4, "piece 7: a field of the wrong type"},
        {"\x12\x02\x18\x09", 4, "unknown model type"},
        {"\x0b\x0c", 2, "cut or broken"}, /* a group */
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "cut or broken"},
        {"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "cut or broken"},
        {"\x1a\x06\x12\x04\x00\x00\x00\x00", 8, "a character map that is cut"},
        {"\x1a\x02\x10\x01", 4, "a character map of the wrong type"},
    };
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        struct made m = small_model();
        put(&m, tails[i].bytes, tails[i].n);
        expect_refusal(&m, tails[i].says);
    }
    struct made nested = small_model(), none = {0};
    char text[128];
    memset(text, 'q', sizeof text);
    for (size_t n = 1; n <= SPM_NESTED_PIECES + 1; n++)
        put_piece(&nested, text, n, 4);
    expect_refusal(&nested, "more than 64 different lengths");
    expect_refusal(&none, "no pieces");
    struct err err = {0};
    struct spm_traits traits;
    assert_int_equal(
        spm_model_check("", (size_t)SPM_MODEL_BYTES + 1, "big.model", &traits, &err),
        -1);
    assert_non_null(strstr(err.text, "at most 64 MiB"));
}

/* A character map with the rules a -> X, aa -> X, ... up to `depth` letters; the k-th
 * node has the block of units that starts at 256 (k + 1). */
enum { DEPTH_MAX = SPM_NESTED_RULES + 1, UNITS = 256 * (DEPTH_MAX + 2) };

static uint32_t node_at(uint32_t k)
{
    return k ? 256 * k ^ 'a' : 0;
}

static uint32_t unit(uint32_t at, uint32_t base, bool value, uint32_t label)
{
    return (at ^ base) << 10 | (value ? 0x100u : 0) | label;
}

static void make_trie(uint32_t *units, uint32_t depth)
{
    for (uint32_t i = 0; i < UNITS; i++)
        units[i] = 0x800000ffu; /* a label that no byte has */
    for (uint32_t k = 0; k <= depth; k++) {
        units[node_at(k)] = unit(node_at(k), 256 * (k + 1), k > 0, k ? 'a' : 0);
        units[256 * (k + 1)] = 0x80000000u; /* value: the string at 0 */
    }
}

static struct made model_with_trie(const uint32_t *units)
{
    struct made m = small_model(), map = {0}, spec = {0};
    uint32_t bytes = UNITS * sizeof *units;
    put(&map, &bytes, sizeof bytes);
    put(&map, units, bytes);
    put(&map, "X", 2);
    put_bytes(&spec, 2, map.data, map.bytes);
    put_bytes(&m, 3, spec.data, spec.bytes);
    free(map.data);
    free(spec.data);
    return m;
}

static void follows_a_sound_character_map(void **state)
{
    (void)state;
    static uint32_t units[UNITS];
    struct err err = {0};
    struct token_ids ids = {0};
    make_trie(units, SPM_NESTED_RULES);
    struct made m = model_with_trie(units);
    struct tokenizer *t = tokenizer_create(m.data, m.bytes, "made.model", &err);
    if (!t)
        print_error("%s\n", err.text);
    assert_non_null(t);
    assert_int_equal(tokenizer_encode(t, "aaba", 4, false, &ids, &err), 0);
    static const int32_t expect[] = {6, 5, 4, 5}; /* dummy prefix, X, b, X */
    assert_int_equal(ids.n, 4);
    assert_memory_equal(ids.id, expect, sizeof expect);
    free(ids.id);
    tokenizer_destroy(t);
    free(m.data);
}

static void refuses_a_character_map_that_leads_astray(void **state)
{
    (void)state;
    static uint32_t units[UNITS];
    const struct {
        const char *what;
        uint32_t depth, at, unit;
    } spoiled[] = {
        {"a link past the end", 2, node_at(1), 0x1fffffu << 10 | 'a'},
        {"the root's link past the end", 2, 0, UNITS << 10},
        {"a value past the strings", 2, 512, 0x80000002u},
        {"a circle", 2, node_at(2), unit(node_at(2), 256, true, 'a')},
        {"back to the root", 2, node_at(2), unit(node_at(2), 0, true, 'a')},
        {"33 rules in one another", SPM_NESTED_RULES + 1, 1, 0x800000ffu},
    };
    for (size_t i = 0; i < sizeof spoiled / sizeof *spoiled; i++) {
        make_trie(units, spoiled[i].depth);
        units[spoiled[i].at] = spoiled[i].unit;
        struct made m = model_with_trie(units);
        printf("%s: ", spoiled[i].what);
        expect_refusal(&m, "whose trie leads astray");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_and_decodes_as_the_oracle),
        cmocka_unit_test(reads_invalid_utf8_as_the_oracle),
        cmocka_unit_test(parses_special_tokens_as_transformers),
        cmocka_unit_test(spans_are_the_bytes_of_the_pieces),
        cmocka_unit_test(appends_ids_and_refuses_unknown_ones),
        cmocka_unit_test(parts_of_a_text_give_the_ids_of_the_whole),
        cmocka_unit_test(parts_need_a_model_that_splits_at_spaces),
        cmocka_unit_test(hash_tells_models_apart),
        cmocka_unit_test(cuts_at_added_tokens),
        cmocka_unit_test(refuses_bad_added_tokens),
        cmocka_unit_test(survives_a_cut_at_every_byte),
        cmocka_unit_test(survives_random_damage),
        cmocka_unit_test(refuses_what_sentencepiece_would_stumble_over),
        cmocka_unit_test(follows_a_sound_character_map),
        cmocka_unit_test(refuses_a_character_map_that_leads_astray),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
