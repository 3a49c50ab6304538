// What the dialects' requests have in common: conversations, tools, options, durations. Pure functions; they
// throw Error(bad_input, unsupported) that names the field.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "api/fields.h"
#include "api/requests.h"
#include "engine/engine.h"
#include "engine/model_manager.h"
#include "engine/sampling_options.h"
#include "text/vocabulary.h"

namespace steelyard::api {

inline constexpr std::int64_t kInt32 = std::numeric_limits<std::int32_t>::max();

template <typename To, typename From>
void assign(To& to, const std::optional<From>& from) {
  if (from) to = static_cast<To>(*from);
}

void take_stops(Options& o, std::vector<std::string> stops);
void take_seed(Options& o, const Fields& f);
// The field of the option's name, if it is there.
void read_number(Options& o, const Fields& f, const NumberOption& option);
// A field that means the option `name`, within the ranges of its dialect.
void take_number(Options& o, const std::optional<double>& value, std::string_view name);
void take_number(Options& o, const std::optional<std::int64_t>& value, std::string_view name);

// "model"; throws when there is none.
std::string read_model(const Fields& f);
std::optional<KeepAlive> read_keep_alive(const Fields& f);
std::optional<bool> read_think(const Fields& f);

// "logprobs" (true or false) and "top_logprobs", as EngineRequest::logprobs.
std::int32_t read_logprobs(const Fields& f);
// OpenAI's "logit_bias": {"token id": -100 … 100}, at most 1024 of them.
std::vector<TokenBias> read_biases(const Fields& f);

// Ollama's "options", and the names of those that it doesn't know.
Options read_options(const Json& request);
std::vector<TokenId> token_ids(const Fields& f, const char* key, const Json& list);

// Absent, null or [].
bool empty_list(const Json* value);
// As templates want them, with contents as text.
Json read_messages(const Json& request);
// The role that OpenAI gave a new name; templates know the old one.
void rename_developer(Json& messages);
Json read_tools(const Json& request);
// A text, or a list of parts of type `kinds`, joined; other parts are refused by name. `where` names the
// field.
std::string parts_text(const Json& content, const std::string& where,
                       std::initializer_list<std::string_view> kinds);

}  // namespace steelyard::api
