#include "api/answers.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdint>
#include <ctime>

#include "api/answer_parts.h"
#include "api/fields.h"
#include "text/tokenizer.h"

namespace steelyard::api {
std::string fresh_id(std::string_view prefix) {
  static std::atomic<std::uint64_t> number{0};
  return fmt::format("{}_{:x}{:06x}", prefix, std::time(nullptr), ++number);
}

namespace {

const char* openai_type(unsigned status) { return status >= 500 ? "server_error" : "invalid_request_error"; }

const char* anthropic_type(unsigned status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 503:
      return "overloaded_error";
    default:
      return status >= 500 ? "api_error" : "invalid_request_error";
  }
}

Json error_body(Dialect dialect, unsigned status, std::string_view message, const Json& code) {
  if (dialect == Dialect::native) return {{"error", message}};
  if (dialect == Dialect::anthropic)
    return {{"type", "error"},
            {"error", {{"type", anthropic_type(status)}, {"message", message}}},
            {"request_id", fresh_id("req")}};
  return {
      {"error", {{"message", message}, {"type", openai_type(status)}, {"param", nullptr}, {"code", code}}}};
}

Reply coded_reply(Dialect dialect, unsigned status, std::string_view message, const Json& code) {
  return {.status = status,
          .body = dump(error_body(dialect, status, message, code)),
          .retry_after = status == 503,
          .no_retry = status == 507,
          .wants_key = status == 401};
}

}  // namespace

std::string named_event(std::string_view name, const Json& data) {
  return fmt::format("event: {}\ndata: {}\n\n", name, dump(data));
}

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

AnswerParser& PartReader::of(std::uint32_t choice) {
  return parsers_.try_emplace(choice, syntax_).first->second;
}

std::vector<AnswerPart> PartReader::push(std::uint32_t choice, std::string_view text) {
  std::vector<AnswerPart> parts;
  of(choice).push(text, parts);
  return parts;
}

std::vector<AnswerPart> PartReader::finish(std::uint32_t choice) {
  std::vector<AnswerPart> parts;
  of(choice).finish(parts);
  return parts;
}

WholeParts whole_parts(const AnswerSyntax& syntax, std::string_view text) {
  std::vector<AnswerPart> parts;
  AnswerParser parser(syntax);
  parser.push(text, parts);
  parser.finish(parts);
  WholeParts whole;
  for (AnswerPart& part : parts) {
    if (part.kind == AnswerPart::Kind::call)
      whole.calls.push_back(std::move(part));
    else
      (part.kind == AnswerPart::Kind::text ? whole.text : whole.thinking) += part.text;
  }
  return whole;
}

}  // namespace steelyard::api
