#include "api/answers.h"

#include <fmt/format.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "base/units.h"

namespace steelyard::api {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::system_clock;

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

// Ollama's word for how an answer ended.
const char* native_reason(DoneReason reason) { return reason == DoneReason::length ? "length" : "stop"; }

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

class NativeFormat final : public AnswerFormat {
 public:
  NativeFormat(AnswerFacts facts, bool chat) : facts_(std::move(facts)), chat_(chat) {}
  const char* stream_type() const override { return "application/x-ndjson"; }
  Dialect dialect() const override { return Dialect::native; }
  std::string piece(std::string_view text) override {
    Json j = head(text);
    j["done"] = false;
    return dump(j) + "\n";
  }
  std::string closing(const Answer& answer, std::span<const TokenId> tokens) override {
    return dump(last("", answer, tokens)) + "\n";
  }
  std::string failure(std::string_view message) override { return dump({{"error", message}}) + "\n"; }
  Reply whole(const std::string& text, const Answer& answer, std::span<const TokenId> tokens) override {
    return {.body = dump(last(text, answer, tokens))};
  }

 private:
  Json head(std::string_view text) const {
    Json j = {{"model", facts_.model}, {"created_at", rfc3339(Clock::now())}};
    if (chat_)
      j["message"] = {{"role", "assistant"}, {"content", text}};
    else
      j["response"] = text;
    return j;
  }
  Json last(std::string_view text, const Answer& a, std::span<const TokenId> tokens) const {
    Json j = head(text);
    j["done"] = true;
    j["done_reason"] = native_reason(a.reason);
    if (!chat_ && !facts_.prompt.empty()) {
      std::vector<TokenId> context = facts_.prompt;
      context.insert(context.end(), tokens.begin(), tokens.end());
      j["context"] = context;
    }
    j["total_duration"] = a.total_ns + facts_.load_ns;
    j["load_duration"] = facts_.load_ns;
    j["prompt_eval_count"] = a.prompt_tokens;
    j["prompt_eval_duration"] = a.prompt_ns;
    j["eval_count"] = a.generated_tokens;
    j["eval_duration"] = a.generation_ns;
    j["steelyard"] = figures(a, facts_);
    return j;
  }

  AnswerFacts facts_;
  bool chat_;
};

class OpenAiFormat final : public AnswerFormat {
 public:
  OpenAiFormat(AnswerFacts facts, bool include_usage)
      : facts_(std::move(facts)), include_usage_(include_usage), created_(Clock::to_time_t(Clock::now())) {
    static std::atomic<std::uint64_t> number{0};
    id_ = fmt::format("chatcmpl-{:x}-{}", created_, ++number);
  }
  const char* stream_type() const override { return "text/event-stream"; }
  Dialect dialect() const override { return Dialect::openai; }
  std::string opening() override { return event(chunk({{"role", "assistant"}, {"content", ""}}, nullptr)); }
  std::string idle() override { return ": working\n\n"; }
  std::string piece(std::string_view text) override { return event(chunk({{"content", text}}, nullptr)); }
  std::string closing(const Answer& answer, std::span<const TokenId>) override {
    Json last = chunk(Json::object(), native_reason(answer.reason));
    last["steelyard"] = figures(answer, facts_);
    std::string out = event(last);
    if (include_usage_) {
      Json j = base("chat.completion.chunk");
      j["choices"] = Json::array();
      j["usage"] = usage(answer);
      out += event(j);
    }
    return out + "data: [DONE]\n\n";
  }
  std::string failure(std::string_view message) override {
    return event(
        {{"error", {{"message", message}, {"type", "server_error"}, {"param", nullptr}, {"code", nullptr}}}});
  }
  Reply whole(const std::string& text, const Answer& answer, std::span<const TokenId>) override {
    Json j = base("chat.completion");
    j["choices"] = Json::array({{{"index", 0},
                                 {"message", {{"role", "assistant"}, {"content", text}}},
                                 {"logprobs", nullptr},
                                 {"finish_reason", native_reason(answer.reason)}}});
    j["usage"] = usage(answer);
    j["steelyard"] = figures(answer, facts_);
    return {.body = dump(j)};
  }

 private:
  static std::string event(const Json& json) { return "data: " + dump(json) + "\n\n"; }
  Json base(const char* object) const {
    return {{"id", id_},
            {"object", object},
            {"created", created_},
            {"model", facts_.model},
            {"system_fingerprint", "steelyard"}};
  }
  Json chunk(const Json& delta, const Json& finish_reason) const {
    Json j = base("chat.completion.chunk");
    j["choices"] = Json::array({{{"index", 0}, {"delta", delta}, {"finish_reason", finish_reason}}});
    return j;
  }
  static Json usage(const Answer& a) {
    return {{"prompt_tokens", a.prompt_tokens},
            {"completion_tokens", a.generated_tokens},
            {"total_tokens", a.prompt_tokens + a.generated_tokens},
            {"prompt_tokens_details", {{"cached_tokens", a.cached_tokens}}}};
  }

  AnswerFacts facts_;
  bool include_usage_;
  std::time_t created_;
  std::string id_;
};

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

std::unique_ptr<AnswerFormat> generate_format(AnswerFacts facts) {
  return std::make_unique<NativeFormat>(std::move(facts), false);
}
std::unique_ptr<AnswerFormat> chat_format(AnswerFacts facts) {
  return std::make_unique<NativeFormat>(std::move(facts), true);
}
std::unique_ptr<AnswerFormat> openai_format(AnswerFacts facts, bool include_usage) {
  return std::make_unique<OpenAiFormat>(std::move(facts), include_usage);
}

Reply loaded_reply(const std::string& model, bool chat, const char* reason, std::int64_t load_ns) {
  Json j = {{"model", model}, {"created_at", rfc3339(Clock::now())}};
  if (chat)
    j["message"] = {{"role", "assistant"}, {"content", ""}};
  else
    j["response"] = "";
  j["done"] = true;
  j["done_reason"] = reason;
  j["total_duration"] = load_ns;
  j["load_duration"] = load_ns;
  return {.body = dump(j)};
}

}  // namespace steelyard::api
