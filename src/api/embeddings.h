// Embeddings as the APIs tell them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "api/answers.h"
#include "api/requests.h"

namespace steelyard::api {

// The first `dimensions` values (0: all), of length 1 if `normalise`; zeros stay zeros.
std::vector<float> finished_embedding(std::span<const float> raw, std::uint32_t dimensions, bool normalise);

// The values' bytes, little endian, in base64 (RFC 4648).
std::string base64_of(std::span<const float> values);

enum class EmbedForm : std::uint8_t { list, one, openai };  // /api/embed, /api/embeddings, /v1/embeddings

// `dropped`: by input, the tokens that were cut off its end.
std::unique_ptr<AnswerFormat> embed_format(EmbedForm form, AnswerFacts facts, const EmbedRequest& request,
                                           std::vector<std::size_t> dropped);

// What no input at all is answered with.
Reply no_embeddings(EmbedForm form, const AnswerFacts& facts);

}  // namespace steelyard::api
