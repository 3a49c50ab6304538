// Ollama's dialect.
#include <chrono>
#include <utility>
#include <vector>

#include "api/answer_parts.h"
#include "api/answers.h"
#include "api/fields.h"
#include "base/units.h"
#include "engine/answer_parser.h"
#include "engine/engine.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

using Clock = std::chrono::system_clock;

class NativeFormat final : public AnswerFormat {
 public:
  NativeFormat(AnswerFacts facts, bool chat) : facts_(std::move(facts)), chat_(chat) {}
  const char* stream_type() const override { return "application/x-ndjson"; }
  Dialect dialect() const override { return Dialect::native; }
  const AnswerSyntax* syntax() const override { return &facts_.syntax; }
  std::string piece(const Piece& piece) override {
    std::vector<AnswerPart> parts = reader_.push(0, piece.text);
    if (parts.empty() && facts_.tokenizer && !piece.chances.empty()) parts.emplace_back();
    return lines(parts, piece.chances);
  }
  std::string closing(std::span<const Choice> choices) override {
    return lines(reader_.finish(0), {}) + dump(last({}, choices.front())) + "\n";
  }
  std::string failure(std::string_view message) override { return dump({{"error", message}}) + "\n"; }
  Reply whole(std::span<const Choice> choices) override {
    return {.body = dump(last(whole_parts(facts_.syntax, choices.front().text), choices.front()))};
  }

 private:
  Json head(const WholeParts& parts) const {
    Json j = {{"model", facts_.model}, {"created_at", rfc3339(Clock::now())}};
    Json& message = chat_ ? j["message"] : j;
    if (chat_) message["role"] = "assistant";
    message[chat_ ? "content" : "response"] = parts.text;
    if (!parts.thinking.empty()) message["thinking"] = parts.thinking;
    for (std::size_t i = 0; i < parts.calls.size(); ++i) {
      const AnswerPart& call = parts.calls[i];
      message["tool_calls"].push_back(
          {{"id", fresh_id("call")},
           {"function", {{"index", told_calls_ + i}, {"name", call.text}, {"arguments", call.arguments}}}});
    }
    return j;
  }
  // A line for each part; the first has the chances of all.
  std::string lines(std::span<const AnswerPart> parts, std::span<const TokenChances> chances) {
    std::string out;
    for (const AnswerPart& part : parts) {
      WholeParts one;
      if (part.kind == AnswerPart::Kind::call)
        one.calls.push_back(part);
      else
        (part.kind == AnswerPart::Kind::text ? one.text : one.thinking) = part.text;
      Json j = head(one);
      told_calls_ += one.calls.size();
      j["done"] = false;
      add_chances(j, std::exchange(chances, {}));
      out += dump(j) + "\n";
    }
    return out;
  }
  void add_chances(Json& j, std::span<const TokenChances> chances) const {
    if (facts_.tokenizer && !chances.empty()) j["logprobs"] = chances_json(chances, *facts_.tokenizer);
  }
  Json last(const WholeParts& parts, const Choice& choice) const {
    const Answer& a = choice.answer;
    Json j = head(parts);
    j["done"] = true;
    add_chances(j, choice.chances);
    j["done_reason"] = reason_word(a.reason);
    if (!chat_ && !facts_.prompt.empty()) {
      std::vector<TokenId> context = facts_.prompt;
      context.insert(context.end(), choice.tokens.begin(), choice.tokens.end());
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
  PartReader reader_{facts_.syntax};
  std::size_t told_calls_ = 0;
};

}  // namespace

std::unique_ptr<AnswerFormat> generate_format(AnswerFacts facts) {
  return std::make_unique<NativeFormat>(std::move(facts), false);
}
std::unique_ptr<AnswerFormat> chat_format(AnswerFacts facts) {
  return std::make_unique<NativeFormat>(std::move(facts), true);
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
