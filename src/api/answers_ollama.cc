// Ollama's dialect.
#include <chrono>
#include <vector>

#include "api/answer_parts.h"
#include "api/answers.h"
#include "api/fields.h"
#include "base/units.h"
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
  std::string piece(const Piece& piece) override {
    Json j = head(piece.text);
    j["done"] = false;
    add_chances(j, piece.chances);
    return dump(j) + "\n";
  }
  std::string closing(std::span<const Choice> choices) override {
    return dump(last("", choices.front())) + "\n";
  }
  std::string failure(std::string_view message) override { return dump({{"error", message}}) + "\n"; }
  Reply whole(std::span<const Choice> choices) override {
    return {.body = dump(last(choices.front().text, choices.front()))};
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
  void add_chances(Json& j, std::span<const TokenChances> chances) const {
    if (facts_.tokenizer && !chances.empty()) j["logprobs"] = chances_json(chances, *facts_.tokenizer);
  }
  Json last(std::string_view text, const Choice& choice) const {
    const Answer& a = choice.answer;
    Json j = head(text);
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
