// Anthropic's dialect.
#include <string>
#include <utility>

#include "api/answer_parts.h"
#include "api/answers.h"
#include "api/fields.h"
#include "engine/answer_parser.h"
#include "engine/engine.h"

namespace steelyard::api {
namespace {

class MessagesFormat final : public AnswerFormat {
 public:
  explicit MessagesFormat(AnswerFacts facts) : facts_(std::move(facts)), id_(fresh_id("msg")) {}
  const char* stream_type() const override { return "text/event-stream"; }
  Dialect dialect() const override { return Dialect::anthropic; }
  const AnswerSyntax* syntax() const override { return &facts_.syntax; }
  std::string idle() override { return named_event("ping", {{"type", "ping"}}); }
  std::string opening() override {
    Json message = base(Json::array(), nullptr, nullptr);
    message["usage"] = {{"input_tokens", facts_.prompt_tokens}, {"output_tokens", 0}};
    return named_event("message_start", {{"type", "message_start"}, {"message", std::move(message)}});
  }
  std::string piece(const Piece& piece) override { return events(reader_.push(0, piece.text)); }
  std::string closing(std::span<const Choice> choices) override {
    const Answer& a = choices.front().answer;
    std::string blocks = events(reader_.finish(0));
    if (blocks_ == 0) blocks += begin_block(AnswerPart());
    blocks += end_block();
    return blocks +
           named_event("message_delta",
                       {{"type", "message_delta"},
                        {"delta", {{"stop_reason", reason(a, reader_.calls(0))}, {"stop_sequence", stop(a)}}},
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
    const WholeParts parts = whole_parts(facts_.syntax, choices.front().text);
    Json content = Json::array();
    if (!parts.thinking.empty()) content.push_back(thinking_block(parts.thinking));
    if (!parts.text.empty() || parts.calls.empty())
      content.push_back({{"type", "text"}, {"text", parts.text}});
    for (const AnswerPart& call : parts.calls) content.push_back(call_block(call.text, call.arguments));
    Json j = base(std::move(content), reason(a, parts.calls.size()), stop(a));
    j["usage"] = usage(a);
    j["steelyard"] = figures(a, facts_);
    return {.body = dump(j)};
  }

 private:
  static Json stop(const Answer& a) { return a.stop_string.empty() ? Json() : Json(a.stop_string); }
  static const char* reason(const Answer& a, std::size_t calls) {
    if (!a.stop_string.empty()) return "stop_sequence";
    if (calls > 0 && a.reason == DoneReason::stop) return "tool_use";
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

  static Json thinking_block(std::string_view text) {
    return {{"type", "thinking"}, {"thinking", text}, {"signature", ""}};
  }
  static Json call_block(const std::string& name, const Json& arguments) {
    return {{"type", "tool_use"}, {"id", fresh_id("toolu")}, {"name", name}, {"input", arguments}};
  }

  // Blocks follow each other: one ends where a part of another kind begins, and every call has its own.
  std::string events(std::span<const AnswerPart> parts) {
    std::string out;
    for (const AnswerPart& part : parts) {
      if (!open_ || kind_ != part.kind || part.kind == AnswerPart::Kind::call) {
        out += end_block();  // one by one: they count
        out += begin_block(part);
      }
      out += delta(part);
    }
    return out;
  }
  std::string begin_block(const AnswerPart& part) {
    Json block = {{"type", "text"}, {"text", ""}};
    if (part.kind == AnswerPart::Kind::thinking) block = thinking_block("");
    if (part.kind == AnswerPart::Kind::call) block = call_block(part.text, Json::object());
    open_ = true;
    kind_ = part.kind;
    return named_event(
        "content_block_start",
        {{"type", "content_block_start"}, {"index", blocks_++}, {"content_block", std::move(block)}});
  }
  std::string end_block() {
    if (!open_) return {};
    open_ = false;
    return named_event("content_block_stop", {{"type", "content_block_stop"}, {"index", blocks_ - 1}});
  }
  std::string delta(const AnswerPart& part) const {
    Json d = {{"type", "text_delta"}, {"text", part.text}};
    if (part.kind == AnswerPart::Kind::thinking) d = {{"type", "thinking_delta"}, {"thinking", part.text}};
    if (part.kind == AnswerPart::Kind::call)
      d = {{"type", "input_json_delta"}, {"partial_json", dump(part.arguments)}};
    return named_event("content_block_delta",
                       {{"type", "content_block_delta"}, {"index", blocks_ - 1}, {"delta", std::move(d)}});
  }

  AnswerFacts facts_;
  std::string id_;
  PartReader reader_{facts_.syntax};
  bool open_ = false;  // a block
  AnswerPart::Kind kind_ = AnswerPart::Kind::text;
  std::uint32_t blocks_ = 0;
};

}  // namespace

std::unique_ptr<AnswerFormat> messages_format(AnswerFacts facts) {
  return std::make_unique<MessagesFormat>(std::move(facts));
}

}  // namespace steelyard::api
