// OpenAI's dialect: chat completions and completions.
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <map>
#include <utility>
#include <vector>

#include "api/answer_parts.h"
#include "api/answers.h"
#include "api/fields.h"
#include "engine/answer_parser.h"
#include "engine/engine.h"

namespace steelyard::api {
namespace {

using Clock = std::chrono::system_clock;

std::string event(const Json& json) { return "data: " + dump(json) + "\n\n"; }

// What both have: ids, usage, the stream's frame.
class OpenAiFormat : public AnswerFormat {
 public:
  OpenAiFormat(AnswerFacts facts, OpenAiFacts openai, const char* id)
      : facts_(std::move(facts)), openai_(std::move(openai)), created_(Clock::to_time_t(Clock::now())) {
    static std::atomic<std::uint64_t> number{0};
    id_ = fmt::format("{}-{:x}-{}", id, created_, ++number);
  }
  const char* stream_type() const override { return "text/event-stream"; }
  Dialect dialect() const override { return Dialect::openai; }
  std::string idle() override { return ": working\n\n"; }
  std::string closing(std::span<const Choice> choices) override {
    std::string out;
    if (openai_.include_usage) {
      Json j = base(true);
      j["choices"] = Json::array();
      j["usage"] = usage(choices);
      out += event(j);
    }
    return out + "data: [DONE]\n\n";
  }
  std::string failure(std::string_view message) override {
    return event(
        {{"error", {{"message", message}, {"type", "server_error"}, {"param", nullptr}, {"code", nullptr}}}});
  }
  Reply whole(std::span<const Choice> choices) override {
    Json j = base(false);
    j["choices"] = Json::array();
    for (std::size_t i = 0; i < choices.size(); ++i)
      j["choices"].push_back(whole_choice(static_cast<std::uint32_t>(i), choices[i]));
    j["usage"] = usage(choices);
    j["steelyard"] = figures(choices.front().answer, facts_);
    return {.body = dump(j)};
  }

 protected:
  virtual const char* object(bool stream) const = 0;
  virtual Json whole_choice(std::uint32_t index, const Choice& choice) const = 0;
  Json base(bool stream) const {
    return {{"id", id_},
            {"object", object(stream)},
            {"created", created_},
            {"model", facts_.model},
            {"system_fingerprint", "steelyard"}};
  }
  // One event of a stream. Who asked for the usage gets it in an event of its own, and null till then.
  Json chunk(Json choice) const {
    Json j = base(true);
    j["choices"] = Json::array({std::move(choice)});
    if (openai_.include_usage) j["usage"] = nullptr;
    return j;
  }
  std::string last_chunk(Json choice, const Answer& answer) const {
    Json j = chunk(std::move(choice));
    j["steelyard"] = figures(answer, facts_);
    return event(j);
  }

  AnswerFacts facts_;
  OpenAiFacts openai_;

 private:
  // A prompt counts once, however many answers it gets.
  Json usage(std::span<const Choice> choices) const {
    std::uint64_t prompt = 0, cached = 0, generated = 0;
    for (std::size_t i = 0; i < choices.size(); ++i) {
      const Answer& a = choices[i].answer;
      if (i % openai_.alike == 0) prompt += a.prompt_tokens, cached += a.cached_tokens;
      generated += a.generated_tokens;
    }
    return {{"prompt_tokens", prompt},
            {"completion_tokens", generated},
            {"total_tokens", prompt + generated},
            {"prompt_tokens_details", {{"cached_tokens", cached}}}};
  }

  std::time_t created_;
  std::string id_;
};

class ChatFormat final : public OpenAiFormat {
 public:
  ChatFormat(AnswerFacts facts, OpenAiFacts openai)
      : OpenAiFormat(std::move(facts), std::move(openai), "chatcmpl") {}
  const AnswerSyntax* syntax() const override { return &facts_.syntax; }
  std::string opening() override {
    std::string out;
    for (std::uint32_t i = 0; i < openai_.alike; ++i)
      out += event(chunk(delta(i, {{"role", "assistant"}, {"content", ""}}, nullptr)));
    return out;
  }
  std::string piece(const Piece& piece) override {
    const std::vector<AnswerPart> parts = reader_.push(piece.choice, piece.text);
    if (!facts_.tokenizer || piece.chances.empty()) return frames(piece.choice, parts);
    // The chances of all that came, with its text or alone.
    const bool text = !parts.empty() && parts.front().kind == AnswerPart::Kind::text;
    Json choice = delta(piece.choice, {{"content", text ? parts.front().text : ""}}, nullptr);
    choice["logprobs"] = logprobs(piece.chances);
    return event(chunk(std::move(choice))) + frames(piece.choice, std::span(parts).subspan(text ? 1 : 0));
  }
  std::string ended(std::uint32_t index, const Choice& choice) override {
    const std::string last = frames(index, reader_.finish(index));
    return last +
           last_chunk(delta(index, Json::object(), reason(choice, reader_.calls(index))), choice.answer);
  }

 private:
  static Json delta(std::uint32_t index, const Json& delta, const Json& finish_reason) {
    return {{"index", index}, {"delta", delta}, {"finish_reason", finish_reason}};
  }
  const char* object(bool stream) const override {
    return stream ? "chat.completion.chunk" : "chat.completion";
  }
  Json whole_choice(std::uint32_t index, const Choice& choice) const override {
    const WholeParts parts = whole_parts(facts_.syntax, choice.text);
    return {{"index", index},
            {"message", message(parts)},
            {"logprobs", facts_.tokenizer ? logprobs(choice.chances) : Json()},
            {"finish_reason", reason(choice, parts.calls.size())}};
  }
  static Json message(const WholeParts& parts) {
    Json j = {{"role", "assistant"}, {"content", parts.text}};
    if (parts.text.empty() && !parts.calls.empty()) j["content"] = nullptr;
    if (!parts.thinking.empty()) j["reasoning_content"] = parts.thinking;
    for (const AnswerPart& call : parts.calls) j["tool_calls"].push_back(call_json(call));
    return j;
  }
  static Json call_json(const AnswerPart& call) {
    return {{"id", fresh_id("call")},
            {"type", "function"},
            {"function", {{"name", call.text}, {"arguments", dump(call.arguments)}}}};
  }
  static const char* reason(const Choice& choice, std::size_t calls) {
    return calls > 0 && choice.answer.reason == DoneReason::stop ? "tool_calls"
                                                                 : reason_word(choice.answer.reason);
  }
  // A frame for each part.
  std::string frames(std::uint32_t choice, std::span<const AnswerPart> parts) {
    std::string out;
    for (const AnswerPart& part : parts) {
      Json what;
      if (part.kind == AnswerPart::Kind::call) {
        Json call = {{"index", told_calls_[choice]++}};
        call.update(call_json(part));
        what["tool_calls"] = Json::array({std::move(call)});
      } else {
        what[part.kind == AnswerPart::Kind::text ? "content" : "reasoning_content"] = part.text;
      }
      out += event(chunk(delta(choice, what, nullptr)));
    }
    return out;
  }
  Json logprobs(std::span<const TokenChances> chances) const {
    return {{"content", chances_json(chances, *facts_.tokenizer)}, {"refusal", nullptr}};
  }

  PartReader reader_{facts_.syntax};
  std::map<std::uint32_t, std::uint32_t> told_calls_;  // by choice
};

class CompletionFormat final : public OpenAiFormat {
 public:
  CompletionFormat(AnswerFacts facts, OpenAiFacts openai)
      : OpenAiFormat(std::move(facts), std::move(openai), "cmpl") {}
  // The prompts that are to be said again, of each choice.
  std::string opening() override {
    std::string out;
    for (std::size_t i = 0; i < openai_.echo.size(); ++i)
      for (std::uint32_t n = 0; n < openai_.alike; ++n)
        out +=
            event(chunk(text(static_cast<std::uint32_t>(i) * openai_.alike + n, openai_.echo[i], nullptr)));
    return out;
  }
  std::string piece(const Piece& piece) override {
    return event(chunk(text(piece.choice, piece.text, nullptr, piece.chances)));
  }
  std::string ended(std::uint32_t index, const Choice& choice) override {
    return last_chunk(text(index, "", reason_word(choice.answer.reason)), choice.answer);
  }

 private:
  Json text(std::uint32_t index, std::string_view text, const Json& finish_reason,
            std::span<const TokenChances> chances = {}) const {
    const Json told = facts_.tokenizer && !chances.empty() ? logprobs(chances) : Json();
    return {{"text", text}, {"index", index}, {"logprobs", told}, {"finish_reason", finish_reason}};
  }
  // Offsets count from the beginning of `chances`' own text.
  Json logprobs(std::span<const TokenChances> chances) const {
    Json tokens = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
    std::size_t offset = 0;
    for (const TokenChances& c : chances) {
      const std::string_view token = facts_.tokenizer->piece(c.drawn.token, true);
      tokens.push_back(token);
      values.push_back(c.drawn.logprob);
      offsets.push_back(offset);
      offset += token.size();
      Json top = Json::object();
      for (std::uint32_t i = 0; i < c.n_top; ++i)
        top[std::string(facts_.tokenizer->piece(c.top[i].token, true))] = c.top[i].logprob;
      tops.push_back(std::move(top));
    }
    return {{"tokens", tokens}, {"token_logprobs", values}, {"top_logprobs", tops}, {"text_offset", offsets}};
  }
  const char* object(bool) const override { return "text_completion"; }
  Json whole_choice(std::uint32_t index, const Choice& choice) const override {
    const std::string before = openai_.echo.empty() ? "" : openai_.echo.at(index / openai_.alike);
    return text(index, before + choice.text, reason_word(choice.answer.reason), choice.chances);
  }
};

}  // namespace

std::unique_ptr<AnswerFormat> openai_format(AnswerFacts facts, OpenAiFacts openai) {
  return std::make_unique<ChatFormat>(std::move(facts), std::move(openai));
}
std::unique_ptr<AnswerFormat> completion_format(AnswerFacts facts, OpenAiFacts openai) {
  return std::make_unique<CompletionFormat>(std::move(facts), std::move(openai));
}

}  // namespace steelyard::api
