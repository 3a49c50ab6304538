// OpenAI's responses: one message, told event by event.
#include <chrono>
#include <ctime>
#include <string>
#include <utility>

#include "api/answer_parts.h"
#include "api/answers.h"
#include "api/fields.h"
#include "engine/engine.h"

namespace steelyard::api {
namespace {

class ResponsesFormat final : public AnswerFormat {
 public:
  ResponsesFormat(AnswerFacts facts, ResponsesEcho echo)
      : facts_(std::move(facts)),
        echo_(std::move(echo)),
        id_(fresh_id("resp")),
        item_(fresh_id("msg")),
        created_(std::time(nullptr)) {}
  const char* stream_type() const override { return "text/event-stream"; }
  Dialect dialect() const override { return Dialect::openai; }
  std::string idle() override { return ": working\n\n"; }
  std::string opening() override {
    const Json begun = response("in_progress", Json::array(), nullptr);
    std::string out = event("response.created", {{"response", begun}});  // one by one: they count
    out += event("response.in_progress", {{"response", begun}});
    out += event("response.output_item.added",
                 {{"output_index", 0}, {"item", message("in_progress", Json::array())}});
    out += event("response.content_part.added", placed({{"part", text_part("")}}));
    return out;
  }
  std::string piece(const Piece& piece) override {
    text_ += piece.text;
    return event("response.output_text.delta", placed({{"delta", piece.text}, {"logprobs", Json::array()}}));
  }
  std::string closing(std::span<const Choice> choices) override {
    const Answer& a = choices.front().answer;
    const Json item = message(status(a), Json::array({text_part(text_)}));
    const bool whole = a.reason != DoneReason::length;
    std::string out =
        event("response.output_text.done", placed({{"text", text_}, {"logprobs", Json::array()}}));
    out += event("response.content_part.done", placed({{"part", text_part(text_)}}));
    out += event("response.output_item.done", {{"output_index", 0}, {"item", item}});
    out += event(whole ? "response.completed" : "response.incomplete",
                 {{"response", response(status(a), Json::array({item}), &a)}});
    return out;
  }
  std::string failure(std::string_view message) override {
    Json failed = response("failed", Json::array(), nullptr);
    failed["error"] = {{"code", "server_error"}, {"message", message}};
    return event("response.failed", {{"response", std::move(failed)}});
  }
  Reply whole(std::span<const Choice> choices) override {
    const Answer& a = choices.front().answer;
    const Json item = message(status(a), Json::array({text_part(choices.front().text)}));
    return {.body = dump(response(status(a), Json::array({item}), &a))};
  }

 private:
  static const char* status(const Answer& a) {
    return a.reason == DoneReason::length ? "incomplete" : "completed";
  }
  static Json text_part(std::string_view text) {
    return {
        {"type", "output_text"}, {"text", text}, {"annotations", Json::array()}, {"logprobs", Json::array()}};
  }
  Json message(const char* status, Json content) const {
    return {{"id", item_},
            {"type", "message"},
            {"status", status},
            {"role", "assistant"},
            {"content", std::move(content)}};
  }
  // An event of the only part of the only item.
  Json placed(Json data) const {
    data["item_id"] = item_;
    data["output_index"] = 0;
    data["content_index"] = 0;
    return data;
  }
  std::string event(const char* type, const Json& data) {
    Json j = {{"type", type}, {"sequence_number", number_++}};
    j.update(data);
    return named_event(type, j);
  }
  static Json usage(const Answer& a) {
    return {{"input_tokens", a.prompt_tokens},
            {"input_tokens_details", {{"cached_tokens", a.cached_tokens}}},
            {"output_tokens", a.generated_tokens},
            {"output_tokens_details", {{"reasoning_tokens", 0}}},
            {"total_tokens", a.prompt_tokens + a.generated_tokens}};
  }
  static Json or_null(const auto& value) { return value ? Json(*value) : Json(); }
  Json response(const char* status, Json output, const Answer* a) const {
    Json j = {{"id", id_},
              {"object", "response"},
              {"created_at", created_},
              {"status", status},
              {"background", false},
              {"error", nullptr},
              {"incomplete_details", nullptr},
              {"instructions", or_null(echo_.instructions)},
              {"max_output_tokens", or_null(echo_.max_output_tokens)},
              {"model", facts_.model},
              {"output", std::move(output)},
              {"parallel_tool_calls", true},
              {"previous_response_id", nullptr},
              {"reasoning", {{"effort", nullptr}, {"summary", nullptr}}},
              {"store", false},
              {"temperature", or_null(echo_.temperature)},
              {"text", {{"format", {{"type", "text"}}}}},
              {"tool_choice", "auto"},
              {"tools", echo_.tools},
              {"top_p", or_null(echo_.top_p)},
              {"truncation", echo_.truncate ? "auto" : "disabled"},
              {"usage", a ? usage(*a) : Json()},
              {"user", nullptr},
              {"metadata", Json::object()}};
    if (a && a->reason == DoneReason::length) j["incomplete_details"] = {{"reason", "max_output_tokens"}};
    if (a) j["steelyard"] = figures(*a, facts_);
    return j;
  }

  AnswerFacts facts_;
  ResponsesEcho echo_;
  std::string id_, item_;
  std::time_t created_;
  std::string text_;  // so far
  std::uint64_t number_ = 0;
};

}  // namespace

std::unique_ptr<AnswerFormat> responses_format(AnswerFacts facts, ResponsesEcho echo) {
  return std::make_unique<ResponsesFormat>(std::move(facts), std::move(echo));
}

}  // namespace steelyard::api
