// What the dialects' answers have in common.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "api/answers.h"
#include "api/fields.h"
#include "engine/answer_parser.h"
#include "engine/engine.h"
#include "text/tokenizer.h"

namespace steelyard::api {

// "stop" or "length": Ollama's and OpenAI's word for how an answer ended.
const char* reason_word(DoneReason reason);

// [{token, logprob, bytes, top_logprobs: [{token, logprob, bytes}]}], as Ollama and OpenAI's chat have it.
Json chances_json(std::span<const TokenChances> chances, const Tokenizer& tokenizer);

// "msg_69…000001": no two of a server are the same.
std::string fresh_id(std::string_view prefix);

// One event of a stream whose events have names.
std::string named_event(std::string_view name, const Json& data);

// The parts of a request's answers as their texts come. By choice.
class PartReader {
 public:
  explicit PartReader(const AnswerSyntax& syntax) : syntax_(syntax) {}
  std::vector<AnswerPart> push(std::uint32_t choice, std::string_view text);
  std::vector<AnswerPart> finish(std::uint32_t choice);
  std::uint32_t calls(std::uint32_t choice) { return of(choice).calls(); }

 private:
  AnswerParser& of(std::uint32_t choice);
  AnswerSyntax syntax_;
  std::map<std::uint32_t, AnswerParser> parsers_;
};

// A whole answer's parts, with at most one of text and one of thoughts.
struct WholeParts {
  std::string text, thinking;
  std::vector<AnswerPart> calls;
};
WholeParts whole_parts(const AnswerSyntax& syntax, std::string_view text);

// The object "steelyard" of an answer.
Json figures(const Answer& answer, const AnswerFacts& facts);

}  // namespace steelyard::api
