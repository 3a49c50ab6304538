// Answers in the clients' dialects: what a generation becomes on the wire. Pure but for the clock.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "api/requests.h"
#include "base/error.h"
#include "engine/engine.h"
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
};

enum class Dialect { native, openai };

unsigned status_of(ErrorKind kind);
Reply error_reply(Dialect dialect, ErrorKind kind, std::string_view message);
Reply error_reply(Dialect dialect, unsigned status, std::string_view message);
// 400, with the code by which OpenAI's clients know that a conversation has become too long.
Reply too_long_reply(Dialect dialect, std::string_view message);

// What is known of a generation beside its text.
struct AnswerFacts {
  std::string model;
  std::int64_t load_ns = 0;
  std::size_t dropped_messages = 0;  // the oldest, that the context had no room for
  std::vector<TokenId> prompt;       // for /api/generate's context; else empty
};

// Turns a generation's text and end into bytes. One object a request.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  virtual const char* stream_type() const = 0;           // content type of a stream
  virtual std::string opening() { return {}; }           // before any text
  virtual std::string piece(std::string_view text) = 0;  // one frame of a stream
  virtual std::string idle() { return {}; }  // while there is nothing to say, so that nobody gives up
  virtual std::string closing(const Answer& answer, std::span<const TokenId> tokens) = 0;
  virtual std::string failure(std::string_view message) = 0;  // an error after the first byte
  virtual Reply whole(const std::string& text, const Answer& answer, std::span<const TokenId> tokens) = 0;
  virtual Dialect dialect() const = 0;
};

std::unique_ptr<AnswerFormat> generate_format(AnswerFacts facts);
std::unique_ptr<AnswerFormat> chat_format(AnswerFacts facts);
std::unique_ptr<AnswerFormat> openai_format(AnswerFacts facts, bool include_usage);

// The answer of an empty prompt or conversation: the model was loaded or unloaded.
Reply loaded_reply(const std::string& model, bool chat, const char* reason, std::int64_t load_ns);

}  // namespace steelyard::api
