// Answers in the clients' dialects: what a generation becomes on the wire. Pure but for the clock.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/requests.h"
#include "base/error.h"
#include "engine/answer_parser.h"
#include "engine/engine.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard::api {

// A complete response.
struct Reply {
  unsigned status = 200;
  std::string body;
  std::string_view content_type = "application/json";  // a literal
  std::string allow;                                   // of 405
  bool retry_after = false;                            // of 503: come again in a second
  bool no_retry = false;                               // of 507: that would be in vain
  bool wants_key = false;                              // of 401
};

enum class Dialect { native, openai, anthropic };

unsigned status_of(ErrorKind kind);
Reply error_reply(Dialect dialect, ErrorKind kind, std::string_view message);
Reply error_reply(Dialect dialect, unsigned status, std::string_view message);
// 400, with the code by which OpenAI's clients know that a conversation has become too long.
Reply too_long_reply(Dialect dialect, std::string_view message);

// What is known of a generation beside its text.
struct AnswerFacts {
  std::string model;
  std::int64_t load_ns = 0;
  std::size_t prompt_tokens = 0;         // for dialects that tell it before the answer
  std::size_t dropped_messages = 0;      // the oldest, that the context had no room for
  std::vector<TokenId> prompt;           // for /api/generate's context; else empty
  AnswerSyntax syntax;                   // how thoughts and calls are told from text
  const Tokenizer* tokenizer = nullptr;  // the model's, which outlives the answer: for the texts of tokens
};

// What OpenAI's dialect says beside it.
struct OpenAiFacts {
  bool include_usage = false;     // at a stream's end
  std::uint32_t alike = 1;        // choices of one prompt
  std::vector<std::string> echo;  // of completions: the prompts, to be said before their answers; else empty
};

// One of a request's generations; most requests have one.
struct Choice {
  std::string text;                   // of an answer that isn't streamed
  std::vector<TokenChances> chances;  // likewise, where they were asked for
  Answer answer;
  std::span<const TokenId> tokens;
  std::span<const float> embedding;  // instead of an answer
};

// What came of a choice since the last piece.
struct Piece {
  std::uint32_t choice = 0;
  std::string_view text;
  std::span<const TokenChances> chances = {};
};

// Turns generations' text and end into bytes. One object a request.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  virtual const char* stream_type() const = 0;        // content type of a stream
  virtual std::string opening() { return {}; }        // before any text
  virtual std::string piece(const Piece& piece) = 0;  // one frame of a stream
  virtual std::string idle() { return {}; }  // while there is nothing to say, so that nobody gives up
  virtual std::string ended(std::uint32_t /*choice*/, const Choice&) {
    return {};
  }                                                                  // one of a stream's choices
  virtual std::string closing(std::span<const Choice> choices) = 0;  // all of them
  virtual std::string failure(std::string_view message) = 0;         // an error after the first byte
  virtual Reply whole(std::span<const Choice> choices) = 0;
  virtual Dialect dialect() const = 0;
  virtual const AnswerSyntax* syntax() const {
    return nullptr;
  }  // by which it reads answers; null: it doesn't
};

std::unique_ptr<AnswerFormat> generate_format(AnswerFacts facts);
std::unique_ptr<AnswerFormat> chat_format(AnswerFacts facts);
std::unique_ptr<AnswerFormat> openai_format(AnswerFacts facts, OpenAiFacts openai);
std::unique_ptr<AnswerFormat> messages_format(AnswerFacts facts);
std::unique_ptr<AnswerFormat> responses_format(AnswerFacts facts, ResponsesEcho echo);
std::unique_ptr<AnswerFormat> completion_format(AnswerFacts facts, OpenAiFacts openai);

// The answer of an empty prompt or conversation: the model was loaded or unloaded.
Reply loaded_reply(const std::string& model, bool chat, const char* reason, std::int64_t load_ns);

}  // namespace steelyard::api
