/* SPDX-License-Identifier: Apache-2.0 */
#include "io/spm_shim.h"

#include <sentencepiece_processor.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

struct spm {
    sentencepiece::SentencePieceProcessor processor;
};

static void tell(char *why, size_t why_bytes, const char *what)
{
    std::snprintf(why, why_bytes, "%s", what);
}

spm *spm_create(const void *model, size_t bytes, char *why, size_t why_bytes)
{
    try {
        auto s = std::make_unique<spm>();
        const auto status = s->processor.LoadFromSerializedProto(
            std::string_view(static_cast<const char *>(model), bytes));
        if (status.ok())
            return s.release();
        tell(why, why_bytes, status.ToString().c_str());
    } catch (const std::exception &e) {
        tell(why, why_bytes, e.what());
    } catch (...) {
        tell(why, why_bytes, "unknown exception");
    }
    return nullptr;
}

void spm_destroy(spm *s)
{
    delete s;
}

int spm_vocab(const spm *s)
{
    return s->processor.GetPieceSize();
}

int spm_bos(const spm *s)
{
    return s->processor.bos_id();
}

int spm_eos(const spm *s)
{
    return s->processor.eos_id();
}

int spm_unk(const spm *s)
{
    return s->processor.unk_id();
}

const char *spm_piece(const spm *s, int id)
{
    return s->processor.IdToPiece(id).c_str();
}

int spm_is_byte(const spm *s, int id)
{
    return s->processor.IsByte(id);
}

int spm_encode(const spm *s, const char *text, size_t bytes,
               int (*take)(void *context, const int *ids, size_t n), void *context,
               char *why, size_t why_bytes)
{
    try {
        std::vector<int> ids;
        const auto status = s->processor.Encode(std::string_view(text, bytes), &ids);
        if (status.ok())
            return take(context, ids.data(), ids.size());
        tell(why, why_bytes, status.ToString().c_str());
    } catch (const std::exception &e) {
        tell(why, why_bytes, e.what());
    } catch (...) {
        tell(why, why_bytes, "unknown exception");
    }
    return -1;
}

int spm_encode_tokens(const spm *s, const char *text, size_t bytes,
                      int (*take)(void *context, const spm_token *tokens, size_t n),
                      void *context, char *why, size_t why_bytes)
{
    try {
        sentencepiece::ImmutableSentencePieceText found;
        const auto status = s->processor.Encode(std::string_view(text, bytes),
                                                found.mutable_proto());
        if (status.ok()) {
            std::vector<spm_token> tokens(found.pieces_size());
            for (size_t i = 0; i < tokens.size(); i++) {
                const auto piece = found.pieces(static_cast<int>(i));
                tokens[i] = {static_cast<int32_t>(piece.id()), piece.begin(),
                             piece.end()};
            }
            return take(context, tokens.data(), tokens.size());
        }
        tell(why, why_bytes, status.ToString().c_str());
    } catch (const std::exception &e) {
        tell(why, why_bytes, e.what());
    } catch (...) {
        tell(why, why_bytes, "unknown exception");
    }
    return -1;
}

char *spm_decode(const spm *s, const int32_t *ids, size_t n, char *why,
                 size_t why_bytes)
{
    try {
        std::string text;
        const auto status = s->processor.Decode(std::vector<int>(ids, ids + n), &text);
        if (status.ok()) {
            auto *copy = static_cast<char *>(std::malloc(text.size() + 1));
            if (!copy)
                throw std::bad_alloc();
            std::memcpy(copy, text.c_str(), text.size() + 1);
            return copy;
        }
        tell(why, why_bytes, status.ToString().c_str());
    } catch (const std::exception &e) {
        tell(why, why_bytes, e.what());
    } catch (...) {
        tell(why, why_bytes, "unknown exception");
    }
    return nullptr;
}
