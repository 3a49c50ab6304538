#include "api/answers.h"

#include "api/answer_parts.h"
#include "api/fields.h"
#include "text/tokenizer.h"

namespace steelyard::api {
namespace {

const char* openai_type(unsigned status) { return status >= 500 ? "server_error" : "invalid_request_error"; }

Reply coded_reply(Dialect dialect, unsigned status, std::string_view message, const Json& code) {
  const Json body =
      dialect == Dialect::native
          ? Json{{"error", message}}
          : Json{{"error",
                  {{"message", message}, {"type", openai_type(status)}, {"param", nullptr}, {"code", code}}}};
  return {.status = status, .body = dump(body), .retry_after = status == 503, .no_retry = status == 507};
}

}  // namespace

const char* reason_word(DoneReason reason) { return reason == DoneReason::length ? "length" : "stop"; }

namespace {

// What is no whole character is in the bytes alone.
Json chance_json(const TokenChance& c, const Tokenizer& tokenizer) {
  const std::string_view text = tokenizer.piece(c.token, true);
  Json bytes = Json::array();
  for (const char byte : text) bytes.push_back(static_cast<unsigned char>(byte));
  return {{"token", text}, {"logprob", c.logprob}, {"bytes", bytes}};
}

}  // namespace

Json chances_json(std::span<const TokenChances> chances, const Tokenizer& tokenizer) {
  Json list = Json::array();
  for (const TokenChances& c : chances) {
    Json entry = chance_json(c.drawn, tokenizer);
    entry["top_logprobs"] = Json::array();
    for (std::uint32_t i = 0; i < c.n_top; ++i)
      entry["top_logprobs"].push_back(chance_json(c.top[i], tokenizer));
    list.push_back(std::move(entry));
  }
  return list;
}

Json figures(const Answer& a, const AnswerFacts& facts) {
  Json j = {{"cached_tokens", a.cached_tokens},
            {"prompt_tokens_per_second", a.prompt_tokens_per_second()},
            {"generated_tokens_per_second", a.generated_tokens_per_second()},
            {"queue_duration", a.queue_ns},
            {"seed", a.seed}};
  if (facts.dropped_messages) j["dropped_messages"] = facts.dropped_messages;
  // Unknown until this machine was probed.
  j["prompt_achieved_over_limit"] = a.prompt_achieved > 0 ? Json(a.prompt_achieved) : Json();
  j["generation_achieved_over_limit"] = a.generation_achieved > 0 ? Json(a.generation_achieved) : Json();
  return j;
}

unsigned status_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::bad_input:
    case ErrorKind::unsupported:
      return 400;
    case ErrorKind::not_found:
      return 404;
    case ErrorKind::no_memory:
      return 507;
    case ErrorKind::busy:
    case ErrorKind::cancelled:
      return 503;
    case ErrorKind::io:
    case ErrorKind::internal:
      return 500;
  }
  return 500;
}

Reply error_reply(Dialect dialect, unsigned status, std::string_view message) {
  return coded_reply(dialect, status, message, Json());
}

Reply error_reply(Dialect dialect, ErrorKind kind, std::string_view message) {
  return coded_reply(dialect, status_of(kind), message,
                     kind == ErrorKind::not_found ? Json("model_not_found") : Json());
}

Reply too_long_reply(Dialect dialect, std::string_view message) {
  return coded_reply(dialect, 400, message, "context_length_exceeded");
}

}  // namespace steelyard::api
