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
// What every dialect has: the model, "keep_alive", and "stream", which is so unless it is said.
void read_head(CommonRequest& r, const Fields& f, bool stream);
std::optional<bool> read_think(const Fields& f);

// "logprobs" (true or false) and "top_logprobs", as EngineRequest::logprobs.
std::int32_t read_logprobs(const Fields& f);
// OpenAI's "logit_bias": {"token id": -100 … 100}, at most 1024 of them.
std::vector<TokenBias> read_biases(const Fields& f);

// Ollama's "options", and the names of those that it doesn't know.
Options read_options(const Json& request);
std::vector<TokenId> token_ids(const Fields& f, const char* key, const Json& list);
// A text, texts, token ids or lists of them.
void read_texts(const Fields& f, const char* key, std::vector<std::string>& texts,
                std::vector<std::vector<TokenId>>& ids);

// Absent, null or [].
bool empty_list(const Json* value);
// As templates want them, with contents as text.
Json read_messages(const Json& request);
// The role that OpenAI gave a new name; templates know the old one.
void rename_developer(Json& messages);
Json read_tools(const Fields& f);
// {type, name, description, SCHEMA} in the list "tools" → as templates want them. All must be of type `type`,
// which a dialect may let be left out (`usual`).
Json read_flat_tools(const Fields& f, std::string_view type, std::string_view usual, const char* schema);
// "tool_choice" in OpenAI's dialect, "auto" or "none": whether the tools are told at all.
bool may_use_tools(const Fields& f);
// A field that must be there.
std::string needed_text(const Fields& f, const char* key);
// A text, or a list of parts of type `kinds`, joined; other parts are refused by name. `where` names the
// field.
std::string parts_text(const Json& content, const std::string& where,
                       std::initializer_list<std::string_view> kinds);

}  // namespace steelyard::api
