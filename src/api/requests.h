// Request bodies as values: bytes in, a checked request or an Error(bad_input, unsupported) that names the
// field out. Pure functions. Unknown fields are ignored, as Ollama does; a known one that Steelyard can't
// honour yet and that would change the answer is refused rather than ignored.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "device/step.h"
#include "engine/chat.h"
#include "engine/engine.h"
#include "engine/model_manager.h"
#include "engine/sampling_options.h"
#include "grammar/grammar.h"
#include "text/vocabulary.h"

namespace steelyard::api {

// What OpenAI's responses repeat of their request.
struct ResponsesEcho {
  std::optional<std::string> instructions;
  std::optional<std::int64_t> max_output_tokens;
  std::optional<double> temperature, top_p;
  nlohmann::ordered_json tools = nlohmann::ordered_json::array();  // as they came
  bool truncate = false;
};

// How an answer is drawn, whatever the dialect said.
struct Options : AnswerWishes {
  std::uint32_t num_ctx = 0;         // 0: the model's
  std::vector<std::string> ignored;  // names of options that Steelyard doesn't know, for the log
};

struct CommonRequest {
  std::string model;
  bool stream = true;
  std::uint32_t choices = 1;   // answers to each prompt
  std::int32_t logprobs = -1;  // as EngineRequest::logprobs
  std::vector<TokenBias> biases;
  std::shared_ptr<const Grammar> grammar;  // what answers are held to; null: nothing
  std::optional<KeepAlive> keep_alive;
  Options options;
};

struct GenerateRequest : CommonRequest {
  std::string prompt;
  std::optional<std::string> system;
  bool raw = false;
  std::optional<bool> think;
  std::vector<TokenId> context;                                     // of an earlier answer, to go on from
  nlohmann::ordered_json before = nlohmann::ordered_json::array();  // messages that come before the prompt
  std::stop_token stop_prompt;  // asked to stop: the prompt isn't needed any more
};

struct ChatRequest : CommonRequest {
  ChatInput input;
  bool one_call = false;  // of an answer's calls of tools only the first counts
  bool truncate = false;  // leave out the oldest turns of a conversation that the context doesn't hold
};

struct OpenAiChatRequest : ChatRequest {
  bool include_usage = false;
};

struct CompletionRequest : CommonRequest {
  // What is to be completed, as it is: each a text, or token ids.
  std::vector<std::string> prompts;
  std::vector<std::vector<TokenId>> prompt_ids;  // instead
  bool echo = false;                             // say the prompt before the answer
  bool include_usage = false;
};

struct EmbedRequest : CommonRequest {
  std::vector<std::string> texts;
  std::vector<std::vector<TokenId>> ids;  // instead
  bool truncate = false;                  // cut what is too long at its end
  std::uint32_t dimensions = 0;           // the first so many values; 0: all
  bool normalise = true;                  // to length 1
  bool base64 = false;
};

// Anthropic's messages.
struct MessagesRequest : ChatRequest {};

struct ResponsesRequest : ChatRequest {
  ResponsesEcho echo;
};

// Texts that one request may have embedded.
inline constexpr std::size_t kMostInputs = 2048;
// Answers that one request may have.
inline constexpr std::uint32_t kMostChoices = 128;

GenerateRequest parse_generate(std::string_view body);
ChatRequest parse_chat(std::string_view body);
OpenAiChatRequest parse_openai_chat(std::string_view body);
CompletionRequest parse_completion(std::string_view body);
// `counting`: for count_tokens, which takes no max_tokens.
MessagesRequest parse_messages(std::string_view body, bool counting = false);
ResponsesRequest parse_responses(std::string_view body);
EmbedRequest parse_embed(std::string_view body);              // Ollama's /api/embed
EmbedRequest parse_embeddings(std::string_view body);         // and the older /api/embeddings
EmbedRequest parse_openai_embeddings(std::string_view body);  // /v1/embeddings

// "5m", "1h30m", "250ms", "-1", a number of seconds → a duration; negative: for ever.
KeepAlive parse_keep_alive(std::string_view text);

}  // namespace steelyard::api
