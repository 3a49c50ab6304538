// OpenAI's dialect.
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <ctime>

#include "api/answer_parts.h"
#include "api/answers.h"
#include "api/fields.h"
#include "engine/engine.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

using Clock = std::chrono::system_clock;

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
    Json last = chunk(Json::object(), reason_word(answer.reason));
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
                                 {"finish_reason", reason_word(answer.reason)}}});
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

}  // namespace

std::unique_ptr<AnswerFormat> openai_format(AnswerFacts facts, bool include_usage) {
  return std::make_unique<OpenAiFormat>(std::move(facts), include_usage);
}

}  // namespace steelyard::api
