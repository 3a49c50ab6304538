// Anthropic's dialect.
#include <string>
#include <utility>

#include "api/answer_parts.h"
#include "api/answers.h"
#include "api/fields.h"
#include "engine/engine.h"

namespace steelyard::api {
namespace {

class MessagesFormat final : public AnswerFormat {
 public:
  explicit MessagesFormat(AnswerFacts facts) : facts_(std::move(facts)), id_(fresh_id("msg")) {}
  const char* stream_type() const override { return "text/event-stream"; }
  Dialect dialect() const override { return Dialect::anthropic; }
  std::string idle() override { return named_event("ping", {{"type", "ping"}}); }
  std::string opening() override {
    Json message = base(Json::array(), nullptr, nullptr);
    message["usage"] = {{"input_tokens", facts_.prompt_tokens}, {"output_tokens", 0}};
    return named_event("message_start", {{"type", "message_start"}, {"message", std::move(message)}}) +
           named_event("content_block_start", {{"type", "content_block_start"},
                                               {"index", 0},
                                               {"content_block", {{"type", "text"}, {"text", ""}}}});
  }
  std::string piece(const Piece& piece) override {
    return named_event("content_block_delta", {{"type", "content_block_delta"},
                                               {"index", 0},
                                               {"delta", {{"type", "text_delta"}, {"text", piece.text}}}});
  }
  std::string closing(std::span<const Choice> choices) override {
    const Answer& a = choices.front().answer;
    return named_event("content_block_stop", {{"type", "content_block_stop"}, {"index", 0}}) +
           named_event("message_delta", {{"type", "message_delta"},
                                         {"delta", {{"stop_reason", reason(a)}, {"stop_sequence", stop(a)}}},
                                         {"usage", usage(a)},
                                         {"steelyard", figures(a, facts_)}}) +
           named_event("message_stop", {{"type", "message_stop"}});
  }
  std::string failure(std::string_view message) override {
    return named_event("error",
                       {{"type", "error"}, {"error", {{"type", "api_error"}, {"message", message}}}});
  }
  Reply whole(std::span<const Choice> choices) override {
    const Answer& a = choices.front().answer;
    Json j = base(Json::array({{{"type", "text"}, {"text", choices.front().text}}}), reason(a), stop(a));
    j["usage"] = usage(a);
    j["steelyard"] = figures(a, facts_);
    return {.body = dump(j)};
  }

 private:
  static Json stop(const Answer& a) { return a.stop_string.empty() ? Json() : Json(a.stop_string); }
  static const char* reason(const Answer& a) {
    if (!a.stop_string.empty()) return "stop_sequence";
    return a.reason == DoneReason::length ? "max_tokens" : "end_turn";
  }
  // What was cached isn't among the input tokens here.
  static Json usage(const Answer& a) {
    return {{"input_tokens", a.prompt_tokens - a.cached_tokens},
            {"cache_read_input_tokens", a.cached_tokens},
            {"cache_creation_input_tokens", 0},
            {"output_tokens", a.generated_tokens}};
  }
  Json base(Json content, const Json& reason, const Json& stop) const {
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", facts_.model},
            {"content", std::move(content)},
            {"stop_reason", reason},
            {"stop_sequence", stop}};
  }

  AnswerFacts facts_;
  std::string id_;
};

}  // namespace

std::unique_ptr<AnswerFormat> messages_format(AnswerFacts facts) {
  return std::make_unique<MessagesFormat>(std::move(facts));
}

}  // namespace steelyard::api
